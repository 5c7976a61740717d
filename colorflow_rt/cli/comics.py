"""`colorflow comics make` and `bench`: chapters with known colours."""

from pathlib import Path

import click

from colorflow_rt.cli.parameters import size_option
from colorflow_rt.cli.screen import progress, shown


@click.group()
def comics() -> None:
    """Make comics whose colours are known."""


@comics.command()
@click.option("--chapters", default=1, show_default=True, help="Number of chapters.")
@click.option("--pages", default=4, show_default=True, help="Pages of each.")
@click.option("--references", default=6, show_default=True, help="Colour references of each.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same chapters.")
@size_option
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
def make(chapters: int, pages: int, references: int, seed: int, size: tuple[int, int], out: Path) -> None:
    """Write chapters as folders of PNG files.

    \b
    chapter_000/references/000.png             in colour
    chapter_000/pages/gray/000.png             and screentone/, lineart/
    chapter_000/truth/000.png                  the page as it should be coloured
    chapter_000/regions/000.png, regions.json  region ids, and what they are; those of references: reference_regions/

    A folder made before by the same seed and size is completed, not made anew.
    """
    _write(chapters, pages, references, seed, size, out)


@comics.command()
@click.option("--chapters", default=30, show_default=True, help="Number of chapters.")
@click.option("--pages", default=50, show_default=True, help="Pages of each.")
@click.option("--references", default=40, show_default=True, help="Colour references of each.")
@size_option
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
def bench(chapters: int, pages: int, references: int, size: tuple[int, int], out: Path) -> None:
    """Write the benchmark for `colorflow evaluate`.

    Its seeds are fixed and training never sees them. Chapter k, page i and reference j are the same whatever numbers
    are asked for: a smaller benchmark is a part of the larger. Otherwise as `colorflow comics make`.
    """
    from colorflow_rt.comics import BENCHMARK_SEED

    _write(chapters, pages, references, BENCHMARK_SEED, size, out)


def _write(chapters: int, pages: int, references: int, seed: int, size: tuple[int, int], out: Path) -> None:
    from colorflow_rt.comics import write_chapters

    with progress("drawing", chapters * (pages + references)) as advance:
        write_chapters(
            out,
            chapters=chapters,
            pages=pages,
            references=references,
            seed=seed,
            size=size,
            progress=lambda done, total: advance(""),
        )
    click.echo(f"{chapters} chapters of {pages} pages and {references} references in {shown(out)}")
