"""`python -m colorflow_server`."""

from colorflow_server.cli import main

main()
