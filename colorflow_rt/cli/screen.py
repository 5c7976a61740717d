"""What a person sees: tables and lines on stdout, progress on stderr (a bar with ETA, or plain lines)."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it
WIDE = 400  # columns of a table that goes to a file or a pipe: nothing is cut or wrapped there


def shown(path: Path | str) -> str:
    """A path or name as it can be printed, whatever bytes it holds."""
    text = click.format_filename(path)
    return text if text.isprintable() else ascii(text)[1:-1]


def print_notices(source: object) -> None:
    """What a reference set had to say: damage that was mended, and the like."""
    for notice in getattr(source, "notices", ()):
        click.echo(f"note: {notice}", err=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[str] = ()) -> None:
    """A table on stdout; columns named in `right` hold numbers."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*[Text(str(value)) for value in row])
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDE).print(table)


Advance = Callable[[str], None]


@contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """Yields `advance(line)`: one of `total` is done, and what to say of it ("" for nothing)."""
    with _bar(what, total) if sys.stderr.isatty() else _lines(total) as advance:
        yield advance


@contextmanager
def _lines(total: int) -> Iterator[Advance]:
    done = 0

    def advance(line: str) -> None:
        nonlocal done
        done += 1
        if line:
            click.echo(line if line.startswith("error: ") else f"[{done}/{total}] {line}", err=True)

    yield advance


@contextmanager
def _bar(what: str, total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as EtaColumn
    from rich.text import Text

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("ETA"), EtaColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)

        def advance(line: str) -> None:
            if line:
                bar.console.print(Text(line))
            bar.advance(task)

        yield advance
