"""set.sqlite, the truth of a reference set: its schema, connections, and every statement about it.

A connection lives for one operation, so sets can be shared by threads and survive forks. Errors of SQLite
leave this module as errors of ours (`explained`).
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.errors import OutputError, ReferencesError
from colorflow_rt.references.records import PATCHES, Reference

VERSION = 1
BUSY_S = 10.0
F32 = NDArray[np.float32]
EmbeddingRow = tuple[str, str, int, bytes, str]  # the columns of `embeddings`

_SCHEMA = f"""
CREATE TABLE pictures (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  sha256 TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  tag TEXT,
  width INTEGER NOT NULL,
  height INTEGER NOT NULL,
  added TEXT NOT NULL,
  source TEXT NOT NULL CHECK (source IN ('added', 'approved')),
  state TEXT NOT NULL CHECK (state IN ('normal', 'pinned', 'banned'))
);
CREATE TABLE removals (sha256 TEXT PRIMARY KEY);  -- files whose row is gone and that are still to be unlinked
CREATE TABLE embeddings (
  sha256 TEXT NOT NULL REFERENCES pictures (sha256) ON DELETE CASCADE,
  encoder TEXT NOT NULL,
  dim INTEGER NOT NULL,
  vectors BLOB NOT NULL,                          -- 5 x dim float32, little-endian
  checksum TEXT NOT NULL,                         -- SQLite has none of its own for its content
  PRIMARY KEY (sha256, encoder)
);
CREATE TABLE generations (
  generation INTEGER PRIMARY KEY,
  sha256 TEXT NOT NULL,                           -- of index.<generation>.<sha256>.bin
  encoder TEXT NOT NULL,
  dim INTEGER NOT NULL,
  count INTEGER NOT NULL,
  pictures TEXT NOT NULL                          -- `fingerprint` of the pictures it holds
);
PRAGMA user_version = {VERSION};
"""
_NO_ACCESS = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
_NO_SIDE_FILES = (*_NO_ACCESS, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL)
COLUMNS = "id, sha256, name, tag, width, height, added, source, state"
_MARKS = ", ".join("?" * 9)


class DamagedDatabaseError(ReferencesError):
    """set.sqlite is missing or unreadable; `ReferenceSet.rebuild` makes it anew from the pictures."""


def create(path: Path) -> None:
    """Write an empty set.sqlite; when this returns it is one file, synced."""
    with explained(path), closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript("BEGIN;" + _SCHEMA + "COMMIT;")


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that sees one committed state from its first statement on, and cannot write."""
    with explained(path), closing(_connect_reading(path)) as db:
        db.execute("PRAGMA query_only = ON")
        db.execute("BEGIN")
        yield db


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to write by `transaction`; the caller holds the set's WriterLock."""
    with explained(path), closing(_connect(path, "mode=rw")) as db:
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        yield db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Everything inside is committed and on the disk at the end, or nothing of it ever was."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _connect_reading(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path, "mode=rw")
    except sqlite3.OperationalError as error:
        # In a read-only folder or on a full disk SQLite cannot make the WAL's side files, which even reading takes.
        # With no WAL left the file is complete by itself.
        wal = path.with_name(path.name + "-wal")
        if error.sqlite_errorcode & 0xFF not in _NO_SIDE_FILES or (wal.exists() and wal.stat().st_size):
            raise
        return _connect(path, "mode=ro&immutable=1")


def _connect(path: Path, how: str) -> sqlite3.Connection:
    if not path.is_file():
        raise DamagedDatabaseError(_damaged(path, "it is missing"))
    db = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=BUSY_S, isolation_level=None)
    try:
        db.text_factory = lambda data: data.decode("utf-8", "replace")
        _check_version(path, db.execute("PRAGMA user_version").fetchone()[0])
    except BaseException:
        db.close()
        raise
    return db


def _check_version(path: Path, version: int) -> None:
    if version > VERSION:
        raise ReferencesError(
            f"{_set_of(path)} was written by a newer ColorFlow RT (schema {version}, expected {VERSION}): "
            "install the newer colorflow-rt to use it"
        )
    if version != VERSION:
        raise DamagedDatabaseError(_damaged(path, "it is not the database of a set"))


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about the set.sqlite at `path` into ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explain(path, error) from error
    except UnicodeDecodeError as error:  # of SQLite's message, which cites the damaged schema
        raise DamagedDatabaseError(_damaged(path, "its schema is not UTF-8")) from error


def _explain(path: Path, error: sqlite3.Error) -> Exception:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return error  # a mistake of ours, not a state of the file
    name = _set_of(path)
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_FULL:
        return OutputError(f"{name}: the disk is full: free some space and run it again; nothing stored was lost")
    if primary == sqlite3.SQLITE_IOERR:
        return OutputError(f"{name}: {path} cannot be read or written ({error}): check the disk and its space")
    if primary in _NO_ACCESS:
        return ReferencesError(f"{name}: {path} cannot be opened or written ({error}): check the folder's rights")
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return ReferencesError(f"{name} is busy ({error}): try again in a moment")
    if primary in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_FORMAT,
    ):
        return DamagedDatabaseError(_damaged(path, str(error)))
    return ReferencesError(f"{name}: {error}")


def _set_of(path: Path) -> str:
    return f"reference set {path.parent.name!r}"


def _damaged(path: Path, how: str) -> str:
    return (
        f"{_set_of(path)}: {path.name} is damaged ({how}): run `colorflow refs rebuild {path.parent.name}`, "
        "which makes it anew from the pictures in images/"
    )


# Pictures


def references(db: sqlite3.Connection) -> list[Reference]:
    """All pictures, in the order they were added."""
    return [_reference(row) for row in db.execute(f"SELECT {COLUMNS} FROM pictures ORDER BY id")]


def find(db: sqlite3.Connection, sha256: str) -> Reference | None:
    """The picture with these pixels."""
    row = db.execute(f"SELECT {COLUMNS} FROM pictures WHERE sha256 = ?", (sha256,)).fetchone()
    return None if row is None else _reference(row)


def insert(db: sqlite3.Connection, new: Reference) -> Reference:
    """Add a row (an id of 0 is replaced by a fresh one); the row as stored."""
    with transaction(db):
        row = db.execute(f"INSERT INTO pictures ({COLUMNS}) VALUES ({_MARKS})", as_row(new))
        db.execute("DELETE FROM removals WHERE sha256 = ?", (new.sha256,))
    return replace(new, id=row.lastrowid or new.id)


def as_row(reference: Reference) -> tuple[object, ...]:
    """The columns of `pictures`."""
    r = reference
    return (r.id or None, r.sha256, r.name, r.tag, *r.size, r.added, r.source, r.state)


def _reference(row: tuple[object, ...]) -> Reference:
    identifier, sha256, name, tag, width, height, added, source, state = row
    size = (width, height)
    return Reference(identifier, sha256, name, tag, size, added, source, state)  # type: ignore[arg-type]


def remove(db: sqlite3.Connection, gone: Iterable[Reference]) -> None:
    """Remove the rows, and note their files for unlinking, in one transaction."""
    with transaction(db):
        for reference in gone:
            db.execute("DELETE FROM pictures WHERE id = ?", (reference.id,))
            db.execute("INSERT OR IGNORE INTO removals VALUES (?)", (reference.sha256,))


def removals(db: sqlite3.Connection) -> set[str]:
    """Hashes of the files that are still to be unlinked."""
    return {row[0] for row in db.execute("SELECT sha256 FROM removals")}


def update(db: sqlite3.Connection, column: str, value: str | None, which: Iterable[Reference]) -> None:
    """Set `column` ("name", "tag" or "state") of these pictures."""
    with transaction(db):
        db.executemany(f"UPDATE pictures SET {column} = ? WHERE id = ?", [(value, r.id) for r in which])


def fingerprint(pictures: Iterable[Reference]) -> str:
    """Names a list of pictures: SHA-256 of their hashes in order."""
    return hashlib.sha256("\n".join(r.sha256 for r in pictures).encode()).hexdigest()


# Embeddings


def checksum(sha256: str, encoder: str, vectors: bytes) -> str:
    """What `embeddings.checksum` must be: it binds the numbers to their picture and encoder."""
    return hashlib.sha256(f"{sha256}\n{encoder}\n".encode() + vectors).hexdigest()


def store_embeddings(db: sqlite3.Connection, encoder: str, rows: dict[str, F32]) -> None:
    """Store f32[5,D] by picture hash; pictures removed meanwhile are left out."""
    with transaction(db):
        for sha256, vectors in rows.items():
            data = np.ascontiguousarray(vectors, "<f4").tobytes()
            db.execute(
                "INSERT OR REPLACE INTO embeddings SELECT ?, ?, ?, ?, ? FROM pictures WHERE sha256 = ?",
                (sha256, encoder, vectors.shape[1], data, checksum(sha256, encoder, data), sha256),
            )


def stored_embeddings(db: sqlite3.Connection, encoder: str, dim: int) -> tuple[dict[str, F32], list[str]]:
    """f32[5,dim] by picture hash, and the hashes of pictures whose stored numbers are damaged."""
    good: dict[str, F32] = {}
    damaged = []
    query = "SELECT sha256, vectors, checksum FROM embeddings WHERE encoder = ? AND dim = ?"
    for sha256, data, stored in db.execute(query, (encoder, dim)):
        if intact(sha256, encoder, dim, data, stored):
            good[sha256] = np.frombuffer(data, "<f4").astype(np.float32).reshape(PATCHES, dim)
        else:
            damaged.append(sha256)
    return good, damaged


def intact(sha256: str, encoder: str, dim: int, data: object, stored: str) -> bool:
    """Whether a row of `embeddings` is as it was written."""
    if not isinstance(data, bytes) or len(data) != PATCHES * dim * 4:
        return False
    return checksum(sha256, encoder, data) == stored


def damaged_embeddings(db: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """(picture hash, encoder) of stored numbers that are not as they were written."""
    for row in db.execute("SELECT sha256, encoder, dim, vectors, checksum FROM embeddings"):
        if not intact(*row):
            yield row[0], row[1]


def encoders(db: sqlite3.Connection) -> list[tuple[str, int]]:
    """(encoder, dim) of everything stored."""
    return db.execute("SELECT DISTINCT encoder, dim FROM embeddings ORDER BY encoder, dim").fetchall()


def restore(db: sqlite3.Connection, pictures: Iterable[Reference], embeddings: Iterable[EmbeddingRow]) -> None:
    """Fill a new database with salvaged rows."""
    with transaction(db):
        db.executemany(f"INSERT INTO pictures ({COLUMNS}) VALUES ({_MARKS})", [as_row(r) for r in pictures])
        db.executemany("INSERT INTO embeddings VALUES (?, ?, ?, ?, ?)", embeddings)


def integrity(path: Path) -> str | None:
    """What SQLite's own check of the whole file complains about, None if nothing."""
    try:
        with reading(path) as db:
            found = [str(row[0]) for row in db.execute("PRAGMA integrity_check(3)")]
            found += [f"a row of {row[0]} has no picture" for row in db.execute("PRAGMA foreign_key_check")]
            references(db)
    except DamagedDatabaseError as error:
        return str(error.__cause__ or error)
    return None if found == ["ok"] else "; ".join(" ".join(line.split()) for line in found[:3])


# Generations of the index


def generations(db: sqlite3.Connection) -> list[tuple[int, str]]:
    """(generation, SHA-256 of the file), all of them."""
    return db.execute("SELECT generation, sha256 FROM generations ORDER BY generation").fetchall()


def generations_of(
    db: sqlite3.Connection, encoder: str, shape: tuple[int, ...], pictures: str
) -> list[tuple[int, str]]:
    """Those made from embeddings of this encoder and `shape` [count, dim] of these pictures, newest first."""
    query = (
        "SELECT generation, sha256 FROM generations WHERE encoder = ? AND count = ? AND dim = ? AND "
        "pictures = ? ORDER BY generation DESC"
    )
    return db.execute(query, (encoder, *shape, pictures)).fetchall()


def other_encoders(db: sqlite3.Connection, encoder: str) -> str:
    """The encoders that have an index, if this one has none."""
    known = [str(row[0]) for row in db.execute("SELECT DISTINCT encoder FROM generations ORDER BY encoder")]
    return "" if encoder in known else ", ".join(known)


def next_generation(db: sqlite3.Connection) -> int:
    """The number of the generation to be written."""
    number: int = db.execute("SELECT COALESCE(MAX(generation), 0) + 1 FROM generations").fetchone()[0]
    return number


def commit_generation(
    db: sqlite3.Connection,
    generation: int,
    sha256: str,
    encoder: str,
    shape: tuple[int, ...],
    pictures: str,
    kept: int,
) -> None:
    """Name a written index file, and forget those of this encoder older than the `kept` newest."""
    forget = (
        "DELETE FROM generations WHERE encoder = ? AND generation NOT IN "
        "(SELECT generation FROM generations WHERE encoder = ? ORDER BY generation DESC LIMIT ?)"
    )
    with transaction(db):
        db.execute(
            "INSERT INTO generations VALUES (?, ?, ?, ?, ?, ?)",
            (generation, sha256, encoder, shape[1], shape[0], pictures),
        )
        db.execute(forget, (encoder, encoder, kept))
