"""`python -m deepres` is `deepres`."""

from deepres.cli import main

main()
