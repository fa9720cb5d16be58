"""What every room needs: errors, files, devices, ranks, progress, the terminal; nothing of networks."""
