"""The `colorflow` command. Its modules import click alone; what is heavy is imported inside the commands."""

import os
import sys
from collections.abc import Sequence

import click

from colorflow_rt.cli.screen import INTERRUPTED
from colorflow_rt.errors import ColorflowError


def main() -> None:
    """Entry point of the `colorflow` command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code: 0 well, 1 a failure, 2 usage, 130 Ctrl-C.

    Whatever goes wrong is one line on stderr; `colorflow --debug ...` shows the traceback instead.
    """
    from colorflow_rt.cli.commands import colorflow

    try:
        code = colorflow.main(list(arguments), prog_name="colorflow", standalone_mode=False)
        sys.stdout.flush()
    except Exception as error:
        if "--debug" in arguments[:1]:
            raise
        return _report(error)
    return code if isinstance(code, int) else 0


def _report(error: Exception) -> int:
    """Say in one line what went wrong; the exit code that belongs to it."""
    match error:
        case BrokenPipeError():  # the reader has gone: nobody to tell, and nothing may be flushed at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        case click.exceptions.NoArgsIsHelpError():
            click.echo(error.format_message(), err=True)
            return 2
        case click.Abort():
            _say("interrupted (Ctrl-C)")
            return INTERRUPTED
        case click.UsageError():
            where = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
            _say(error.format_message().rstrip(".") + where)
            return 2
        case click.ClickException():
            _say(error.format_message())
        case ColorflowError():
            _say(str(error))
            return error.exit_code
        case ModuleNotFoundError():
            _say(f"{error.name} is not installed: pip install --force-reinstall colorflow-rt gets what is missing")
        case _:
            _say(f"unexpected {type(error).__name__}: {error} (`colorflow --debug ...` shows where)")
    return 1


def _say(message: str) -> None:
    click.echo(f"error: {' '.join(message.split())}", err=True)
