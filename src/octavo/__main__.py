"""`python -m octavo`: the command, where the folder of scripts is not on the path."""

from octavo.cli.main import main

main()
