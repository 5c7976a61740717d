"""`colorflow-server`: a server from flags, environment and a TOML file."""

import asyncio
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from colorflow_rt.errors import ColorflowError
from colorflow_server.config import ServerConfig, load_config

ENVIRONMENT = "COLORFLOW_SERVER"
_TYPES: dict[Any, Any] = {int: int, float: float, str: str}


def main() -> None:
    """Entry point of the `colorflow-server` command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code: 0 well, 1 a failure, 2 usage. Failures are one line on stderr."""
    try:
        command.main(arguments, prog_name="colorflow-server", standalone_mode=False)
    except ColorflowError as error:
        return _say(str(error), error.exit_code)
    except click.ClickException as error:
        return _say(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return 130
    return 0


def _say(message: str, code: int) -> int:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    return code


def _flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """A flag for every field of ServerConfig."""
    for field in reversed(dataclasses.fields(ServerConfig)):
        shown = ", ".join(field.default) if isinstance(field.default, tuple) else field.default
        text = field.metadata["help"] + (f" [default: {shown}]" if shown != "" else "")
        if field.name == "packs":
            option = click.option("--pack", "packs", multiple=True, help=text)
        else:
            flag = "--" + field.name.replace("_", "-")
            option = click.option(flag, field.name, type=_TYPES[field.type], default=None, help=text)
        function = option(function)
    return function


@click.command(context_settings={"auto_envvar_prefix": ENVIRONMENT, "help_option_names": ["-h", "--help"]})
@click.option(
    "--config", "file", type=click.Path(path_type=Path), help="TOML file; flags and environment go before it."
)
@click.option("--check-config", is_flag=True, help="Check everything that a start would read, print it, and end.")
@_flags
def command(file: Path | None, check_config: bool, **flags: Any) -> None:
    """Serve ColorFlow RT over gRPC (colorflow.v1.Colorizer).

    Every flag is also a key of the TOML file and a variable COLORFLOW_SERVER_<NAME>. SIGTERM drains, SIGHUP reloads.
    """
    given = {name: value for name, value in flags.items() if value is not None and value != ()}
    if "packs" in given:
        given["packs"] = list(given["packs"])
    config = load_config(file, given)
    if check_config:
        check(config)
    else:
        _serve(config)


def _serve(config: ServerConfig) -> None:
    from colorflow_server import log
    from colorflow_server.serve import serve

    log.set_up(config.log_level)
    asyncio.run(serve(config))


def check(config: ServerConfig) -> None:
    """Read what a start would read: packs with their hashes, certificates, tokens. Prints the configuration as TOML."""
    from colorflow_server.access import Certificates, Tokens
    from colorflow_server.tracing import Tracer

    for pack in config.packs:
        config.open(pack).verify()
    if config.tokens:
        Tokens(Path(config.tokens))
    if config.tls_cert:
        Certificates(config)
    Tracer(config.trace_endpoint).close()
    click.echo(config.to_toml(), nl=False)
