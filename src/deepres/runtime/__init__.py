"""What all packages use: errors, files, devices, ranks, progress and the terminal. Nothing here knows networks."""
