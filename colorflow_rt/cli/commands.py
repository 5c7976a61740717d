"""The command `colorflow` and its subcommands."""

import importlib

import click

# One line per command: the module of colorflow_rt.cli that holds a click command of this name.
COMMANDS = ("colorize", "refs", "comics", "packs", "doctor", "demo", "bench", "evaluate", "explain")


class Commands(click.Group):
    """Finds a command in the module of its name, so that a module is imported when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"colorflow_rt.cli.{name}"), name)
        return command


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"colorflow {version('colorflow-rt')}")
        except PackageNotFoundError:
            click.echo("colorflow (not installed: run from a checkout)")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def colorflow(debug: bool) -> None:
    """Colour the pages of a comic from coloured references.

    \b
      colorflow colorize pages/ --refs colour/ --out coloured/
      colorflow doctor        what is installed and what can run
    """
