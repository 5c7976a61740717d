"""`colorflow refs ...`: persistent, named sets of reference pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from colorflow_rt.cli.parameters import pack_option
from colorflow_rt.cli.screen import print_notices, print_table, progress, shown

if TYPE_CHECKING:
    from colorflow_rt.references import Reference

QUADRANTS = ("top left", "top right", "bottom left", "bottom right")
PARTS = ("whole", *QUADRANTS)

set_argument = click.argument("name", metavar="SET")
pictures_argument = click.argument("pictures", metavar="PICTURE...", nargs=-1, required=True)


@click.group()
def refs() -> None:
    """Keep named sets of reference pictures.

    A PICTURE is a name or an id (#7), as `colorflow refs list SET` shows them.
    """


@refs.command()
@set_argument
@click.argument("paths", metavar="FILE|FOLDER...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--tag", help="What the pictures show: a character, a scene.")
@click.pass_context
def add(ctx: click.Context, name: str, paths: Sequence[Path], tag: str | None) -> None:
    """Add pictures to a set.

    The set is made if there is none of this name.
    """
    from colorflow_rt.jobs import list_pages
    from colorflow_rt.references import ReferenceSet

    files = list_pages(paths)
    chosen = ReferenceSet.open_or_create(name)
    with progress("adding", len(files)) as advance:
        report = chosen.add(files, tag=tag, on_progress=lambda done, total: advance(""))
    print_notices(chosen)
    for given, known in report.duplicates:
        click.echo(f"{shown(given)}: already there as #{known.id} {shown(known.name)}")
    for mended in report.repaired:
        click.echo(f"#{mended.id} {shown(mended.name)}: its file was missing or damaged and was written again")
    for _, reason in report.refused:
        click.echo(f"not added: {reason}", err=True)
    click.echo(
        f"{name}: {len(report.added)} added, {len(report.duplicates)} already there, {len(report.refused)} refused"
    )
    ctx.exit(1 if report.refused else 0)


@refs.command("list")
@click.argument("name", metavar="[SET]", required=False)
def list_(name: str | None) -> None:
    """List the pictures of a set, or all sets."""
    from colorflow_rt.references import ReferenceSet

    if name is None:
        rows = [(each, len(ReferenceSet.open(each).list())) for each in ReferenceSet.names()]
        print_table(("set", "pictures"), rows, right=("pictures",))
        return
    chosen = ReferenceSet.open(name)
    print_table(("id", "name", "tag", "size", "state", "source"), [_row(r) for r in chosen.list()], right=("id",))
    print_notices(chosen)


def _row(reference: Reference) -> tuple[object, ...]:
    width, height = reference.size
    return (
        f"#{reference.id}",
        shown(reference.name),
        shown(reference.tag or "-"),
        f"{width}x{height}",
        reference.state,
        reference.source,
    )


@refs.command()
@set_argument
@click.argument("pictures", metavar="[PICTURE]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Delete the whole set.")
def remove(name: str, pictures: Sequence[str], everything: bool) -> None:
    """Remove pictures, or with --all the whole set."""
    from colorflow_rt.references import ReferenceSet

    if bool(pictures) == everything:
        raise click.UsageError("give the pictures to remove, or --all to delete the whole set")
    if everything:
        ReferenceSet.delete(name)
        click.echo(f"{name}: deleted")
        return
    click.echo(f"{name}: {ReferenceSet.open(name).remove(pictures)} removed")


@refs.command()
@set_argument
@pictures_argument
@click.option("--off", is_flag=True, help="Take the pin away.")
def pin(name: str, pictures: Sequence[str], off: bool) -> None:
    """Make pictures appear on every canvas."""
    _set_state(name, pictures, "normal" if off else "pinned")


@refs.command()
@set_argument
@pictures_argument
@click.option("--off", is_flag=True, help="Take the ban away.")
def ban(name: str, pictures: Sequence[str], off: bool) -> None:
    """Keep pictures, but use them for no page."""
    _set_state(name, pictures, "normal" if off else "banned")


def _set_state(name: str, pictures: Sequence[str], state: str) -> None:
    from colorflow_rt.references import ReferenceSet

    click.echo(f"{name}: {ReferenceSet.open(name).set_state(pictures, state)} {state}")  # type: ignore[arg-type]


@refs.command()
@set_argument
@pictures_argument
@click.option("--as", "tag", help="What the pictures show; without it their tag is taken away.")
def tag(name: str, pictures: Sequence[str], tag: str | None) -> None:
    """Say what pictures show: a character, a scene."""
    from colorflow_rt.references import ReferenceSet

    count = ReferenceSet.open(name).set_tag(pictures, tag)
    click.echo(f"{name}: {count} tagged {tag}" if tag else f"{name}: {count} without a tag now")


@refs.command()
@set_argument
@click.argument("page", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-k", "count", type=click.IntRange(1, 100), default=3, show_default=True, help="Patches of each quadrant."
)
@pack_option
@click.option("--fit", type=click.Choice(("pad", "crop")), default="pad", show_default=True)
def search(name: str, page: Path, count: int, pack: str, fit: Literal["pad", "crop"]) -> None:
    """Show which patches of a set a page would take.

    For each quadrant of the page the most similar patches, banned pictures left out. score: cosine similarity.
    """
    from colorflow_rt.pack import open_pack
    from colorflow_rt.pixels import read_picture
    from colorflow_rt.pool import nearest
    from colorflow_rt.references import ReferenceSet

    opened, chosen = open_pack(pack), ReferenceSet.open(name)
    found = nearest(chosen, opened, read_picture(page).rgb, count, fit)
    rows = [
        (
            QUADRANTS[quadrant],
            rank,
            f"{hit.score:.3f}",
            f"#{hit.reference.id}",
            shown(hit.reference.name),
            PARTS[hit.patch],
        )
        for quadrant, hits in enumerate(found)
        for rank, hit in enumerate(hits, 1)
    ]
    print_table(("quadrant", "rank", "score", "id", "name", "part"), rows, right=("rank", "score", "id"))
    print_notices(chosen)


@refs.command()
@set_argument
@click.pass_context
def verify(ctx: click.Context, name: str) -> None:
    """Check every picture of a set and its index.

    Nothing is changed. Exit code 1 if anything is wrong.
    """
    from colorflow_rt.references import ReferenceSet

    problems = ReferenceSet.open(name).verify()
    for problem in problems:
        click.echo(f"{problem.kind}: {problem.message}")
    wrong = [problem for problem in problems if problem.kind != "orphan"]
    click.echo(f"{name}: {len(wrong)} problems" if wrong else f"{name}: everything is as it should be")
    ctx.exit(1 if wrong else 0)


@refs.command()
@set_argument
@click.pass_context
def rebuild(ctx: click.Context, name: str) -> None:
    """Repair a set: its index, a damaged database.

    The pictures are the truth: what can be made from them is made anew. Exit code 1 if something stays wrong.
    """
    from colorflow_rt.references import ReferenceSet

    report = ReferenceSet.open(name).rebuild()
    if report.kept_aside:
        click.echo(f"the damaged database was kept as {shown(report.kept_aside)}")
    for problem in report.problems:
        click.echo(f"{problem.kind}: {problem.message}", err=True)
    click.echo(
        f"{name}: {len(report.recovered)} pictures recovered, {len(report.indexes)} indexes built, "
        f"{len(report.removed)} left-over files removed, {len(report.problems)} problems left"
    )
    ctx.exit(1 if report.problems else 0)
