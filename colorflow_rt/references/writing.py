"""The one way to write a set: its lock, its database, and first the work that a killed writer left undone."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from sqlite3 import Connection

from colorflow_rt.references import database
from colorflow_rt.references.images import image_path
from colorflow_rt.references.layout import Layout


@contextmanager
def writing(layout: Layout, wait_s: float) -> Iterator[Connection]:
    """A connection to write by, alone. ReferencesError naming the holder after `wait_s` seconds."""
    with layout.locked(wait_s), database.writing(layout.database) as db:
        unlink_removed(db, layout)
        yield db


def unlink_removed(db: Connection, layout: Layout) -> None:
    """Unlink the files of removed pictures. What cannot be unlinked now is left for the next writer."""
    removed = database.removals(db)
    if not removed:
        return
    for sha256 in removed:
        with suppress(OSError):
            image_path(layout.images, sha256).unlink(missing_ok=True)
    gone = [(sha256,) for sha256 in removed if not image_path(layout.images, sha256).exists()]
    with database.transaction(db):
        db.executemany("DELETE FROM removals WHERE sha256 = ?", gone)
