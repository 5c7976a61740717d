"""`rebuild`: make everything anew that can be made anew. No good picture is ever deleted.

A set.sqlite that is missing or damaged is replaced: rows that can still be read are taken over, every other
picture of images/ gets a new one, and the damaged file is kept aside.
"""

import os
import shutil
import sqlite3
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from colorflow_rt.errors import ImageError, OutputError
from colorflow_rt.files import sync, temporary_in
from colorflow_rt.references import database
from colorflow_rt.references.checks import verify
from colorflow_rt.references.images import load, stored_hashes
from colorflow_rt.references.layout import Layout
from colorflow_rt.references.records import PATCHES, RebuildReport, Reference, unnamed
from colorflow_rt.references.salvage import salvage
from colorflow_rt.references.vectors import as_matrix, commit_index, index_problem, remove_unnamed
from colorflow_rt.references.writing import unlink_removed
from colorflow_rt.retrieval import PatchIndex


def rebuild(layout: Layout, wait_s: float, exact_limit: int) -> RebuildReport:
    """Replace a damaged database, take up pictures without a row, clear left-overs, build indexes."""
    report = RebuildReport()
    try:
        with layout.locked(wait_s):
            _rebuild(layout, exact_limit, report)
    except OSError as error:
        raise OutputError(
            f"reference set {layout.name!r} cannot be rebuilt ({error}): check {layout.folder}"
        ) from error
    report.problems = verify(layout)
    return report


def _rebuild(layout: Layout, exact_limit: int, report: RebuildReport) -> None:
    layout.images.mkdir(exist_ok=True)
    damaged = database.integrity(layout.database) is not None
    if damaged:
        report.kept_aside = _replace_database(layout)
    with database.writing(layout.database) as db:
        unlink_removed(db, layout)
        taken_up = _take_up(db, layout)
        report.recovered = database.references(db) if damaged else taken_up
        _forget_damaged(db, layout)
        report.removed = [path.name for path in (*_clear_temporary(layout), *remove_unnamed(db, layout))]
        report.indexes = [path.name for path in _build_indexes(db, layout, exact_limit)]


def _take_up(db: sqlite3.Connection, layout: Layout) -> list[Reference]:
    """Give a row to every good picture that has none."""
    known = {reference.sha256 for reference in database.references(db)}
    taken = []
    for sha256 in sorted(stored_hashes(layout.images) - known):
        with suppress(ImageError):  # left where it is; verify names it
            taken.append(database.insert(db, unnamed(sha256, load(layout.images, sha256).size)))
    return taken


def _forget_damaged(db: sqlite3.Connection, layout: Layout) -> None:
    bad = [number for number, sha256 in database.generations(db) if index_problem(layout.index(number, sha256), sha256)]
    rows = list(database.damaged_embeddings(db))
    with database.transaction(db):
        db.executemany("DELETE FROM generations WHERE generation = ?", [(number,) for number in bad])
        db.executemany("DELETE FROM embeddings WHERE sha256 = ? AND encoder = ?", rows)


def _clear_temporary(layout: Layout) -> list[Path]:
    """The lock is held, so no temporary file is in use."""
    left = layout.temporary_files()
    for path in left:
        path.unlink(missing_ok=True)
    return left


def _build_indexes(db: sqlite3.Connection, layout: Layout, exact_limit: int) -> list[Path]:
    """An index for every encoder whose embeddings are all stored, where one is due and there is none."""
    references = database.references(db)
    fingerprint = database.fingerprint(references)
    built = []
    for encoder, dim in database.encoders(db):
        known, _ = database.stored_embeddings(db, encoder, dim)
        if len(known) < len(references) or PATCHES * len(known) <= exact_limit:
            continue
        matrix = as_matrix(references, known, dim)
        if not database.generations_of(db, encoder, matrix.shape, fingerprint):
            index = PatchIndex(matrix, exact_limit=exact_limit)
            built.append(commit_index(db, layout, index, encoder, fingerprint, matrix))
    return built


# A damaged set.sqlite


def _replace_database(layout: Layout) -> Path | None:
    """Put a new database in the place of a damaged one; where that one lies now (None: there was none)."""
    references, embeddings = salvage(layout.database, stored_hashes(layout.images))
    new = temporary_in(layout.folder)
    database.create(new)
    with database.writing(new) as db:
        database.restore(db, references, embeddings)
    aside = _keep_aside(layout.database)
    new.replace(layout.database)
    sync(layout.folder)
    return aside


def _keep_aside(path: Path) -> Path | None:
    """Give the damaged file a second name (it keeps the first until it is replaced) and take its WAL away."""
    aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC).strftime('%Y%m%dT%H%M%S.%fZ')}")
    wal = path.with_name(path.name + "-wal")
    if path.exists():
        try:
            os.link(path, aside)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, aside)
    if wal.exists():
        wal.replace(aside.with_name(aside.name + "-wal"))
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    return aside if aside.exists() else None
