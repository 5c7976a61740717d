"""What can still be read of a damaged set.sqlite. Nothing of it is believed that cannot be right."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from colorflow_rt.references.database import COLUMNS, EmbeddingRow, intact
from colorflow_rt.references.records import SOURCES, STATES, Reference, Source, State

_PICTURES = f"SELECT {COLUMNS} FROM pictures"
_EMBEDDINGS = "SELECT sha256, encoder, dim, vectors, checksum FROM embeddings"


def salvage(path: Path, files: set[str]) -> tuple[list[Reference], list[EmbeddingRow]]:
    """Pictures whose hash is one of `files`, and those of their embeddings that are as they were written."""
    pictures: dict[str, Reference] = {}
    for row in _readable(path, _PICTURES):
        reference = _plausible(row)
        if reference and reference.sha256 in files:
            pictures[reference.sha256] = reference
    unique = {reference.id: reference for reference in pictures.values()}
    embeddings: dict[tuple[str, str], EmbeddingRow] = {}
    known = {reference.sha256 for reference in unique.values()}
    for row in _readable(path, _EMBEDDINGS):
        if row[0] in known and _typed(row, str, str, int, bytes, str) and intact(*row):
            embeddings[row[0], row[1]] = row
    return [unique[identifier] for identifier in sorted(unique)], list(embeddings.values())


def _readable(path: Path, query: str) -> Iterable[tuple[Any, ...]]:
    """Rows from both ends of a table: a damaged page in its middle hides only what lies on it."""
    rows: list[tuple[Any, ...]] = []
    for order in ("ASC", "DESC"):
        with (
            suppress(sqlite3.Error, UnicodeDecodeError),  # the latter of a message that cites a damaged schema
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db,
        ):
            db.text_factory = lambda data: data.decode("utf-8", "replace")
            for row in db.execute(f"{query} ORDER BY rowid {order}"):
                rows.append(row)
    return rows


def _plausible(row: tuple[Any, ...]) -> Reference | None:
    numbers, texts = (row[0], *row[4:6]), (*row[1:3], row[6])
    if not _typed(numbers, int, int, int) or not _typed(texts, str, str, str) or row[0] < 1:
        return None
    identifier, sha256, name, tag, width, height, added, source, state = row
    tag = tag if isinstance(tag, str) else None
    origin: Source = source if source in SOURCES else "added"
    default: State = state if state in STATES else "normal"
    return Reference(identifier, sha256, name, tag, (width, height), added, origin, default)


def _typed(values: Iterable[object], *types: type) -> bool:
    return all(isinstance(value, kind) for value, kind in zip(values, types, strict=True))
