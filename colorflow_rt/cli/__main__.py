"""`python -m colorflow_rt.cli`: the `colorflow` command of this checkout."""

from colorflow_rt.cli import main

main()
