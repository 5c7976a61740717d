"""`colorflow demo`: a generated chapter coloured with the bundled pack, and how near it came to the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, NamedTuple

import click

from colorflow_rt.cli.parameters import pack_option, size_option
from colorflow_rt.cli.screen import print_table, progress, shown

if TYPE_CHECKING:
    from colorflow_rt.pipeline import Colorizer
    from colorflow_rt.pool import Pool
    from colorflow_rt.result import Result
    from colorflow_rt.sheet import Row

REFERENCES = 6
EXTRA_STYLES = ("screentone", "lineart")  # one page of each, beside the gray ones


class Example(NamedTuple):
    """A page of the chapter as it is given to the model, and where its result goes."""

    style: str
    number: int
    page: Path
    gray: Path
    truth: Path
    output: Path


class Scored(NamedTuple):
    """A coloured example: PSNR against the truth of its result and of the gray page, in dB."""

    example: Example
    result: Result
    psnr: float
    gray_psnr: float


@click.command()
@click.option("--out", metavar="DIR", default="demo", show_default=True, type=click.Path(path_type=Path))
@pack_option
@click.option("--pages", type=click.IntRange(1, 100), default=4, show_default=True, help="Gray pages.")
@size_option
def demo(out: Path, pack: str, pages: int, size: tuple[int, int]) -> None:
    """Colour a generated chapter and measure the result.

    Writes the chapter, OUT/coloured/*.png and OUT/contact_sheet.png; prints the seconds of each stage and the PSNR
    against the known colours, beside that of the gray page.
    """
    from colorflow_rt.comics import DEMO_SEED, write_chapters
    from colorflow_rt.pipeline import Colorizer

    colorizer = Colorizer(pack)
    with progress("drawing the chapter", pages + REFERENCES) as advance:
        numbers = {"chapters": 1, "pages": pages, "references": REFERENCES, "seed": DEMO_SEED}
        write_chapters(out, **numbers, size=size, progress=lambda done, total: advance(""))
    examples = _examples(out, pages)
    pool = colorizer.references(out / "chapter_000" / "references")
    (out / "coloured").mkdir(exist_ok=True)
    with progress("colouring", len(examples)) as advance:
        scored = []
        for example in examples:
            scored.append(_color(example, colorizer, pool))
            advance(f"{shown(example.page)} -> {shown(example.output)}")
    sheets = _write_sheet(out, scored, pool)
    _print_seconds([each.result for each in scored])
    _print_errors(scored)
    click.echo(f"coloured pages: {shown(out / 'coloured')}")
    click.echo(f"look at {shown(sheets[0])}: page, references used, result, truth")


def _examples(out: Path, pages: int) -> list[Example]:
    chosen = [("gray", number) for number in range(pages)] + [(style, 0) for style in EXTRA_STYLES]
    return [_example(out, style, number) for style, number in chosen]


def _example(out: Path, style: str, number: int) -> Example:
    chapter, file = out / "chapter_000", f"{number:03d}.png"
    page, gray = chapter / "pages" / style / file, chapter / "pages" / "gray" / file
    return Example(style, number, page, gray, chapter / "truth" / file, out / "coloured" / f"{style}_{file}")


def _color(example: Example, colorizer: Colorizer, pool: Pool) -> Scored:
    from colorflow_rt.metrics import psnr
    from colorflow_rt.options import ColorizeOptions
    from colorflow_rt.pixels import read_picture, write_png

    result = colorizer.colorize(example.page, pool, ColorizeOptions(style=example.style))
    write_png(example.output, result.image, result.alpha)
    truth, gray = read_picture(example.truth).rgb, read_picture(example.gray).rgb
    return Scored(example, result, psnr(truth, result.image), psnr(truth, gray))


def _write_sheet(out: Path, scored: Sequence[Scored], pool: Pool) -> list[Path]:
    from colorflow_rt.sheet import write_contact_sheets

    columns = ("page", "references used", "result", "truth")
    return write_contact_sheets(out, columns, (_row(each, pool) for each in scored))


def _row(scored: Scored, pool: Pool) -> Row:
    from colorflow_rt.cli.coloring import details_of
    from colorflow_rt.cli.report import reference_shots
    from colorflow_rt.pixels import read_picture
    from colorflow_rt.sheet import Row, Shot

    example = scored.example
    page, truth = read_picture(example.page).rgb, read_picture(example.truth).rgb
    references = reference_shots(pool, details_of(scored.result)["references"])
    result = Shot(scored.result.image, f"{scored.psnr:.1f} dB (gray page {scored.gray_psnr:.1f} dB)")
    return Row(f"{example.style} {example.number:03d}", [[Shot(page)], references, [result], [Shot(truth)]])


def _print_seconds(results: Sequence[Result]) -> None:
    """Seconds by stage: of the first page, which loads the model and embeds the references, and of the others."""
    first, others = results[0].seconds, [result.seconds for result in results[1:]]
    rows = [(stage, first[stage], median(each[stage] for each in others)) for stage in first]
    rows.append(("in all", sum(first.values()), median(sum(each.values()) for each in others)))
    columns = ("stage", "first page, s", "others (median), s")
    print_table(columns, [(stage, f"{one:.3f}", f"{other:.3f}") for stage, one, other in rows], right=columns[1:])


def _print_errors(scored: Sequence[Scored]) -> None:
    styles = {each.example.style: None for each in scored}
    rows = []
    for style in styles:
        of_style = [each for each in scored if each.example.style == style]
        gray, result = mean(each.gray_psnr for each in of_style), mean(each.psnr for each in of_style)
        rows.append((style, len(of_style), f"{gray:.2f}", f"{result:.2f}", f"{result - gray:+.2f}"))
    columns = ("style", "pages", "gray page, dB", "coloured, dB", "gain, dB")
    click.echo()
    print_table(columns, rows, right=columns[1:])
