"""`python -m guestwire` is the command `guestwire`."""

from guestwire.cli import main

main()
