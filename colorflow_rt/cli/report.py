"""What `colorflow colorize` leaves behind beside the pages: summary, contact sheets, JSON."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from colorflow_rt.cli.coloring import COLORED, FAILED, FINISHED, IN_COLOR, Outcome
from colorflow_rt.cli.screen import shown
from colorflow_rt.errors import ImageError
from colorflow_rt.files import atomic_write
from colorflow_rt.pixels import Limits, read_picture
from colorflow_rt.pool import Pool
from colorflow_rt.sheet import Row, Shot, write_contact_sheets

STATES = (COLORED, FINISHED, IN_COLOR, FAILED)
REFERENCES = 4  # of each page, the most similar ones, are shown on a contact sheet


def print_summary(outcomes: Sequence[Outcome], pages: int, out: Path, seconds: float) -> None:
    """What became of the pages, those named that a person should look at."""
    counts = Counter(outcome.state for outcome in outcomes)
    parts = [f"{counts[state]} {state}" for state in STATES if counts[state]]
    click.echo(f"{pages} pages: {', '.join(parts) or 'none done'} ({seconds:.1f} s) in {shown(out)}")
    if in_color := [shown(o.page) for o in outcomes if o.details.get("passed_through")]:
        click.echo(f"already in colour, copied as they are: {', '.join(in_color)}")
    if failed := [shown(o.page) for o in outcomes if o.state == FAILED]:
        click.echo(f"failed: {', '.join(failed)}")


def write_report(path: Path, outcomes: Sequence[Outcome], out: Path, seconds: float, exit_code: int) -> None:
    """The outcomes as JSON, with what is in the pages' records."""
    counts = Counter(outcome.state for outcome in outcomes)
    pages = [
        {"page": str(o.page), "state": o.state, "output": o.output, "error": o.error, **o.details} for o in outcomes
    ]
    report = {
        "out": str(out),
        "exit_code": exit_code,
        "seconds": round(seconds, 3),
        "counts": {state: counts[state] for state in STATES},
        "pages": pages,
    }
    atomic_write(path, (json.dumps(report, indent=1) + "\n").encode())


def write_sheets(out: Path, outcomes: Iterable[Outcome], pool: Pool, limits: Limits) -> None:
    """Contact sheets of all pages that have a result; left as they are if nothing is new."""
    done = [outcome for outcome in outcomes if outcome.output]
    new = any(outcome.state != FINISHED for outcome in done)
    if new or (done and not (out / "contact_sheet.png").exists()):
        rows = (row for outcome in done if (row := _row(outcome, out, pool, limits)))
        write_contact_sheets(out, ("page", "references used", "result"), rows)


def _row(outcome: Outcome, out: Path, pool: Pool, limits: Limits) -> Row | None:
    """None if a picture has gone or was damaged since: the sheet is no reason to fail."""
    details = outcome.details
    what = IN_COLOR if details.get("passed_through") else details.get("style", "")
    try:
        page, result = (read_picture(path, limits).rgb for path in (outcome.page, out / str(outcome.output)))
        cells = ([Shot(page)], reference_shots(pool, details.get("references", [])), [Shot(result)])
    except ImageError:
        return None
    name, output = outcome.page.name, str(outcome.output)
    title = name if Path(name).stem == Path(output).stem else f"{name} -> {output}"
    return Row(f"{shown(title)}   {what}", cells)


def reference_shots(pool: Pool, used: Sequence[dict[str, object]]) -> list[Shot]:
    """The most similar of the references that a page used, those that are still there."""
    known = {reference.name: reference for reference in pool.list()}
    return [
        Shot(pool.picture(known[str(use["name"])]).rgb, f"{shown(str(use['name']))}  {use['similarity']:.2f}")
        for use in used[:REFERENCES]
        if use["name"] in known
    ]
