"""`python -m prunelab`: the command, where it is not on the path."""

from prunelab.cli import main

main()
