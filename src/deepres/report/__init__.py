"""From run records to plots, tables and one page that needs no network."""
