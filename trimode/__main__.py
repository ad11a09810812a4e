"""`python -m trimode`."""

from trimode.cli import main

main()
