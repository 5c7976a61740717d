"""How good could colours get: what bounds a matcher that never errs, on the benchmark, by style.

    python benchmarks/ceiling.py .quality/bench --limit 12

Every row is a picture made from the truth, brought to the page by the same luminance step as any method's:

all references      each region in its colour in the chapter's references; what they do not show, from the table
the canvas          the same, from the twelve tiles that retrieval took for this page
first twelve        the same, from the first twelve references as they come (no retrieval)
best twelve         the same, from the twelve whole references that together show most of the page
working size        the truth itself, at the model's working size
vae                 the truth through the pack's VAE: what perfect latents give without super-resolution
vae and gsrp        the same with super-resolution
tokens N            the truth as one colour for each N x N pixels of the working size

seen: share of the page's region pixels whose region is there to be matched.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colorflow_rt.canvas import fit_page, reference_patches, unfit
from colorflow_rt.cli.parameters import pack_option
from colorflow_rt.cli.screen import print_table
from colorflow_rt.context import STYLES, context_image
from colorflow_rt.evaluate.baselines import by_region, table
from colorflow_rt.evaluate.chapters import BenchPage, chosen_pages, read_benchmark, read_ids, read_rgb
from colorflow_rt.evaluate.methods import ChapterPainter, Painters, chapter_painters
from colorflow_rt.latents import from_model, to_model
from colorflow_rt.metrics import psnr
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pipeline import Colorizer
from colorflow_rt.pixels import resize
from colorflow_rt.upscale import drawn_page, merge, super_resolve

U8 = NDArray[np.uint8]
Ids = NDArray[np.int32]
LEAST = 24  # pixels at working size of which a region must show to count as seen
TOKENS = (4, 8, 16)


class Bound(NamedTuple):
    """A picture that bounds what a model may reach; seen: of the page's regions, or None."""

    name: str
    image: U8
    seen: float | None


@click.command()
@click.argument("bench", type=click.Path(path_type=Path))
@pack_option
@click.option("--limit", default=12, show_default=True, help="Pages of each style.")
def ceiling(bench: Path, pack: str, limit: int) -> None:
    """What bounds a matcher that never errs."""
    colorizer, chapters = Colorizer(pack), read_benchmark(bench)
    painters = chapter_painters(Painters(colorizer, ColorizeOptions()), chapters)
    for style in STYLES:
        found: dict[str, list[tuple[float, float | None]]] = defaultdict(list)
        for page in chosen_pages(chapters, style, limit):
            painter = next(each for each in painters if each.chapter.name == page.chapter)
            rgb, truth = read_rgb(page.page), read_rgb(page.truth)
            drawn = drawn_page(rgb, style)
            for bound in _bounds(colorizer, painter, page):
                merged = merge(rgb, bound.image, style=style, drawn=drawn)
                found[bound.name].append((psnr(truth, merged), bound.seen))
        rows = [
            (name, f"{np.mean([db for db, _ in each]):.2f}", _seen([seen for _, seen in each]))
            for name, each in found.items()
        ]
        print_table((style, "PSNR, dB", "seen"), rows, right=("PSNR, dB", "seen"))
        click.echo()


def _seen(shares: Sequence[float | None]) -> str:
    known = [share for share in shares if share is not None]
    return f"{np.mean(known):.3f}" if known else "-"


def _bounds(colorizer: Colorizer, painter: ChapterPainter, page: BenchPage) -> Iterator[Bound]:
    rgb, truth = read_rgb(page.page), read_rgb(page.truth)
    assert page.regions is not None
    ids = read_ids(page.regions, truth.shape[:2])
    yield Bound("gray page", rgb, None)
    lookup = table(rgb, page.style, painter.colours)
    yield Bound("table", lookup, None)
    rest = np.where((ids == 0)[..., None], np.uint8(255), lookup)
    work = colorizer.begin(rgb, painter.pool, ColorizeOptions(style=page.style, steps=1))
    window = work.open(0)
    size = window.placement.size
    shown = _shown(painter, size)
    names = [reference.name for reference in painter.pool.list()]
    sets = {
        "all references": [(name, 0) for name in names],
        "the canvas": [(hit.reference.name, hit.patch) for row in window.found for hit in row],
        "first twelve": [(name, 0) for name in names[:12]],
        "best twelve": _best(shown, names, ids),
    }
    for name, tiles in sets.items():
        there = set().union(*(shown[tile] for tile in tiles))
        colours = {region: colour for region, colour in painter.region_colours.rgb.items() if region in there}
        yield Bound(name, by_region(ids, colours, rest), _share(ids, there))
    fitted, placement = fit_page(truth, size)
    yield Bound("working size", unfit(fitted, placement), None)
    for side in TOKENS:
        small = np.asarray(Image.fromarray(fitted).reduce(side))
        yield Bound(f"tokens {side}", unfit(resize(small, size), placement), None)
    factor, scale = colorizer.pack.config.model.vae_factor, colorizer.pack.config.pages.gsrp_scale
    latents = colorizer.pack.engine("vae_encoder")({"image": to_model(fitted[np.newaxis])})["latents"]
    decoded = from_model(colorizer.pack.engine("vae_decoder")({"latents": latents})["image"])[0]
    yield Bound("vae", unfit(decoded, placement), None)
    guide = context_image(fit_page(rgb, (round(size[0] * scale), round(size[1] * scale)))[0])
    yield Bound(
        "vae and gsrp", unfit(super_resolve(colorizer.pack.engine("gsrp"), decoded, guide, factor), placement), None
    )


def _shown(painter: ChapterPainter, size: tuple[int, int]) -> dict[tuple[str, int], set[int]]:
    """Regions that each patch of each reference shows, by (name, patch)."""
    known: dict[tuple[str, int], set[int]] = painter.__dict__.setdefault("shown", {})
    if not known:
        for path in painter.chapter.references:
            regions = painter.chapter.reference_regions(path)
            assert regions is not None
            ids = read_ids(regions, read_rgb(path).shape[:2])
            small = np.asarray(Image.fromarray(ids.astype(np.int32), "I").resize(size, Image.Resampling.NEAREST))
            for patch, part in enumerate(reference_patches(small)):
                counts = np.bincount(part.ravel())
                known[path.name, patch] = {int(i) for i in np.flatnonzero(counts >= LEAST) if i}
    return known


def _best(shown: Mapping[tuple[str, int], set[int]], names: Sequence[str], ids: Ids) -> list[tuple[str, int]]:
    """Greedily twelve whole references that show most of the page's pixels."""
    weights = np.bincount(ids.ravel())
    left = {int(i) for i in np.flatnonzero(weights) if i}
    chosen: list[tuple[str, int]] = []
    for _ in range(12):
        best = max(names, key=lambda name: sum(int(weights[i]) for i in shown[name, 0] & left))
        chosen.append((best, 0))
        left -= shown[best, 0]
    return chosen


def _share(ids: Ids, there: set[int]) -> float:
    return float(np.isin(ids[ids > 0], list(there)).mean())


if __name__ == "__main__":
    ceiling()
