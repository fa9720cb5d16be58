"""Reports from run records: plots, tables and one HTML page that loads nothing from the web."""
