"""`python -m colorflow_export`: the command `colorflow-export`."""

from colorflow_export.cli import main

main()
