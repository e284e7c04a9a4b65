"""`python -m prunelab.cli`."""

from prunelab.cli import main

main()
