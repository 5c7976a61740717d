"""`verify`: everything a set can have wrong with it, found without changing a byte."""

from collections.abc import Iterator
from sqlite3 import Connection

from colorflow_rt.errors import ImageError
from colorflow_rt.lock import is_held
from colorflow_rt.references import database
from colorflow_rt.references.images import image_path, load, stored_hashes
from colorflow_rt.references.layout import Layout
from colorflow_rt.references.records import Problem, Progress, Reference
from colorflow_rt.references.vectors import index_problem


def verify(layout: Layout, on_progress: Progress | None = None) -> list[Problem]:
    """Check the database, every picture against its hash, embeddings, index files, and look for orphans.

    A writer may be at work: what it has in flight is no problem.
    """
    complaint = database.integrity(layout.database)
    if complaint is not None:
        how = f"{layout.database} is damaged ({complaint}): run `colorflow refs rebuild {layout.name}`"
        return [Problem("database", layout.database.name, how), *_unreadable_files(layout)]
    with database.reading(layout.database) as db:
        references = database.references(db)
        embeddings = list(_embeddings(db))
    pictures = list(_pictures(layout, references, on_progress))
    return [*_still_listed(layout, pictures), *embeddings, *_indexes(layout), *_orphans(layout)]


def _unreadable_files(layout: Layout) -> Iterator[Problem]:
    for sha256 in sorted(stored_hashes(layout.images)):
        if error := _why_not(layout, sha256):
            yield Problem("picture", sha256, f"{error}: add the original again")


def _pictures(
    layout: Layout, references: list[Reference], on_progress: Progress | None
) -> Iterator[tuple[Reference, Problem]]:
    for done, reference in enumerate(references, 1):
        if error := _why_not(layout, reference.sha256):
            subject = f"#{reference.id} {reference.name}"
            todo = f"add the original again, or `colorflow refs remove {layout.name} {reference.id}`"
            yield reference, Problem("picture", subject, f"{subject}: {error}: {todo}")
        if on_progress:
            on_progress(done, len(references))


def _why_not(layout: Layout, sha256: str) -> str | None:
    try:
        load(layout.images, sha256)
    except ImageError as error:
        return str(error)
    return None


def _still_listed(layout: Layout, found: list[tuple[Reference, Problem]]) -> list[Problem]:
    """Without pictures that were removed while this ran."""
    with database.reading(layout.database) as db:
        there = {reference.id for reference in database.references(db)}
    return [problem for reference, problem in found if reference.id in there]


def _embeddings(db: Connection) -> Iterator[Problem]:
    for sha256, encoder in database.damaged_embeddings(db):
        subject = f"{sha256} by {encoder}"
        yield Problem("embedding", subject, f"{subject} is damaged in set.sqlite: it is computed again when used")


def _indexes(layout: Layout) -> list[Problem]:
    generations = _generations(layout)
    problems = [(row, index_problem(layout.index(*row), row[1])) for row in generations]
    named = _generations(layout)  # a writer may have replaced the oldest meanwhile
    found = [(layout.index(*row).name, wrong) for row, wrong in problems if wrong and row in named]
    how = f"it is built again when used, or by `colorflow refs rebuild {layout.name}`"
    return [Problem("index", name, f"{name} {wrong}: {how}") for name, wrong in found]


def _generations(layout: Layout) -> list[tuple[int, str]]:
    with database.reading(layout.database) as db:
        return database.generations(db)


def _orphans(layout: Layout) -> list[Problem]:
    files = stored_hashes(layout.images)  # before the rows: a picture's file is written before its row
    indexes, temporary = layout.index_files(), layout.temporary_files()
    with database.reading(layout.database) as db:
        pictures = {reference.sha256 for reference in database.references(db)}
        removed = database.removals(db)
        named = {layout.index(*generation) for generation in database.generations(db)}
    if is_held(layout.lock):  # a writer's files in flight look the same
        return []
    rebuild = f"`colorflow refs rebuild {layout.name}`"
    left = [(path, "is a left-over of a killed writer") for path in temporary]
    left += [(path, "is an index that no row names") for path in indexes if path not in named]
    left += [(image_path(layout.images, sha256), "was removed from the set") for sha256 in sorted(removed & files)]
    found = [(path.name, f"{what}: {rebuild} clears it away") for path, what in left]
    without = f"is a picture without a row (a killed add): add it again, or {rebuild} takes it up"
    found += [(f"{sha256}.png", without) for sha256 in sorted(files - pictures - removed)]
    return [Problem("orphan", name, f"{name} {what}") for name, what in found]
