"""Options that several commands take."""

import re

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
