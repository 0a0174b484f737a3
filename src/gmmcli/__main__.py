"""``python -m gmmcli``."""

from gmmcli.cli.app import main

main()
