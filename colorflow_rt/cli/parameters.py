"""Options that several commands take."""

import re
from collections.abc import Callable
from typing import Any

import click


class Size(click.ParamType[tuple[int, int]]):
    """WIDTHxHEIGHT in pixels."""

    name = "WxH"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """(width, height); a usage error for anything else."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", str(value))
        if not match:
            self.fail(f"{value!r} is no size: give width and height in pixels, such as 512x768", param, ctx)
        return int(match[1]), int(match[2])


pack_option = click.option(
    "--pack", default="mini", show_default=True, envvar="COLORFLOW_PACK", help="Model pack: name or folder."
)
size_option = click.option("--size", type=Size(), default="512x768", show_default=True, help="Page size in pixels.")

SERVER_OPTIONS = ("server", "token", "tls_ca", "tls_cert", "tls_key")
_FILE = click.Path(exists=True, dir_okay=False)


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of SERVER_OPTIONS: where a server is, and how to be let in."""
    options = (
        click.option("--server", metavar="HOST:PORT", help="Colour there; --set and --pack are then its own."),
        click.option("--token", metavar="TOKEN", envvar="COLORFLOW_TOKEN", help="Bearer token for --server."),
        click.option("--tls-ca", metavar="FILE", type=_FILE, help="Speak TLS, and trust these authorities (PEM)."),
        click.option("--tls-cert", metavar="FILE", type=_FILE, help="Certificate (PEM) for mutual TLS."),
        click.option("--tls-key", metavar="FILE", type=_FILE, help="Its key (PEM)."),
    )
    for option in reversed(options):
        command = option(command)
    return command
