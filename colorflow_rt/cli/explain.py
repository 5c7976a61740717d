"""`colorflow explain`: which reference pixels a point took its colour from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from colorflow_rt.cli.parameters import pack_option
from colorflow_rt.cli.screen import print_table, shown

if TYPE_CHECKING:
    from colorflow_rt.explain import Explanation

FILE = click.Path(path_type=Path)
SHOWN = 5  # cells that are listed
PARTS = ("whole", "top left", "top right", "bottom left", "bottom right")


class At(click.ParamType[tuple[int, int]]):
    """X,Y in pixels of the page."""

    name = "X,Y"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """(x, y); a usage error for anything else."""
        match = re.fullmatch(r"(\d{1,6}),(\d{1,6})", str(value))
        if not match:
            self.fail(f"{value!r} is no point: give x and y in pixels of the page, such as 120,340", param, ctx)
        return int(match[1]), int(match[2])


@click.command()
@click.argument("page", type=FILE)
@click.option("--refs", metavar="DIR", required=True, type=click.Path(exists=True, path_type=Path), help="References.")
@click.option(
    "--at", required=True, type=At(), metavar="X,Y", help="The point, in pixels of the page from its top left."
)
@click.option("--out", metavar="FILE", required=True, type=FILE, help="The picture to write (PNG).")
@pack_option
@click.option("--steps", type=int, help="Denoising steps; default: the pack's.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the noise.")
def explain(page: Path, refs: Path, at: tuple[int, int], out: Path, pack: str, steps: int | None, seed: int) -> None:
    """Show which reference pixels a point of PAGE took its colour from.

    The page is coloured as by `colorize`, and the attention of its guider is taken from the same computation, and so is
    what its colour was drawn to in the last step, where the pack looks colours up. The picture shows the result with
    the point, the canvas with heat over its references, and below the pictures that were looked in; tables name them.
    """
    from colorflow_rt.explain import explain as ask
    from colorflow_rt.explain import heat_map
    from colorflow_rt.options import ColorizeOptions
    from colorflow_rt.pack import installed_packs, open_pack
    from colorflow_rt.pipeline import Colorizer
    from colorflow_rt.pixels import write_png

    # Of the pack's own graphs: those of built engines cannot be looked into.
    colorizer = Colorizer(open_pack(installed_packs().get(pack, pack), "onnx-cpu"))
    found = ask(colorizer, page, refs, at, ColorizeOptions(steps=steps, seed=seed))
    write_png(out, heat_map(found))
    _print(found, out)


def _print(found: Explanation, out: Path) -> None:
    rows = [
        (f"{100 * share:.1f} %", shown(match.reference), PARTS[match.patch], "row {} column {}".format(*match.cell))
        for match, share in found.cells[:SHOWN]
    ]
    print_table(("attention", "reference", "part", "canvas cell"), rows, right=("attention",))
    share = 100 * float(found.heat.sum())
    click.echo(
        f"{share:.1f} % to references, the rest to the page itself; {len(found.layers)} layers, all heads and steps"
    )
    looked_up = [(f"{100 * float(one.shares.sum()):.1f} %", shown(one.name)) for one in found.looked_up[:SHOWN]]
    if looked_up:
        print_table(("looked up", "reference"), looked_up, right=("looked up",))
        left = 100 - 100 * sum(float(one.shares.sum()) for one in found.looked_up)
        click.echo(f"{left:.1f} % stays as it was painted (of line art: is paper)")
    click.echo(shown(out))
