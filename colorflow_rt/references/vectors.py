"""What is derived from the pictures of a set: embeddings in set.sqlite, and above a size an hnswlib file.

A generation of the index is written as `index.<generation>.<sha256>.bin` (temporary name, fsync, rename,
fsync of the folder) and then named by one row, the commit point: facts/serving.md, Stores. hnswlib's files
carry no checksum and a single flipped bit can crash the process that loads them, so no file is loaded whose
SHA-256 is not its row's.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from sqlite3 import Connection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.errors import ColorflowError, ImageError, ReferencesError
from colorflow_rt.files import file_sha256, sync, temporary_in
from colorflow_rt.references import database
from colorflow_rt.references.images import load
from colorflow_rt.references.layout import Layout
from colorflow_rt.references.records import PATCHES, Hit, Progress, Reference
from colorflow_rt.references.writing import writing
from colorflow_rt.retrieval import PatchIndex

F32 = NDArray[np.float32]
BATCH = 8  # pictures embedded between two commits
KEPT = 2  # generations kept for an encoder: the newest, and the one that a slow reader may be about to open
_WAIT_S = 1.0  # for the lock: nothing is lost if derived data are not stored now


Embed = Callable[[list[NDArray[np.uint8]]], F32]


class Encoder(NamedTuple):
    """key: names it and all that its numbers depend on. embed: n pictures u8[H,W,3] -> f32[5n,dim]."""

    key: str
    dim: int
    embed: Embed


class Vectors:
    """Embeddings and index of one set, by encoder key. `notice` hears what was damaged or not stored."""

    def __init__(self, layout: Layout, notice: Callable[[str], None]) -> None:
        self._layout, self._notice = layout, notice
        self._cached: tuple[tuple[str, int, str], PatchIndex] | None = None

    def embeddings(self, encoder: Encoder, on_progress: Progress | None = None) -> tuple[list[Reference], F32]:
        """All pictures and f32[5N,dim] in their order; what is missing is computed, and stored."""
        while True:
            references, known = self._stored(encoder)
            missing = [reference for reference in references if reference.sha256 not in known]
            unreadable = self._compute(missing, known, encoder, on_progress)
            if not unreadable:
                return references, as_matrix(references, known, encoder.dim)
            self._refuse_if_listed(unreadable)  # else it was removed meanwhile: look again

    def _stored(self, encoder: Encoder) -> tuple[list[Reference], dict[str, F32]]:
        with database.reading(self._layout.database) as db:
            references = database.references(db)
            known, damaged = database.stored_embeddings(db, encoder.key, encoder.dim)
        if damaged:
            self._notice(f"embeddings of {len(damaged)} pictures were damaged in set.sqlite: computed again")
        return references, known

    def _compute(
        self, missing: Sequence[Reference], known: dict[str, F32], encoder: Encoder, on_progress: Progress | None
    ) -> list[Reference]:
        """Add the missing rows to `known` and to the database; the pictures that cannot be read."""
        unreadable: list[Reference] = []
        storing = True
        for start in range(0, len(missing), BATCH):
            batch, images = self._read(missing[start : start + BATCH], unreadable)
            if batch:
                rows = _checked(encoder.embed(images), len(batch), encoder)
                fresh = {reference.sha256: row for reference, row in zip(batch, rows, strict=True)}
                known |= fresh
                storing = storing and self._store(encoder.key, fresh)
            if on_progress:
                on_progress(min(start + BATCH, len(missing)), len(missing))
        return unreadable

    def _read(
        self, batch: Sequence[Reference], unreadable: list[Reference]
    ) -> tuple[list[Reference], list[NDArray[np.uint8]]]:
        good, images = [], []
        for reference in batch:
            try:
                images.append(load(self._layout.images, reference.sha256).rgb)
                good.append(reference)
            except ImageError:
                unreadable.append(reference)
        return good, images

    def _store(self, encoder: str, fresh: dict[str, F32]) -> bool:
        try:
            with writing(self._layout, _WAIT_S) as db:
                database.store_embeddings(db, encoder, fresh)
        except ColorflowError as error:
            self._notice(f"embeddings were not stored and will be computed again: {error}")
            return False
        return True

    def _refuse_if_listed(self, unreadable: list[Reference]) -> None:
        with database.reading(self._layout.database) as db:
            there = {reference.id for reference in database.references(db)}
        if listed := [reference for reference in unreadable if reference.id in there]:
            name = self._layout.name
            which = ", ".join(f"#{reference.id} {reference.name!r}" for reference in listed)
            ids = " ".join(f"{reference.id}" for reference in listed)
            raise ReferencesError(
                f"reference set {name!r}: files of {which} are missing or damaged: add the originals "
                f"again, or `colorflow refs remove {name} {ids}`"
            )

    def index(
        self, encoder: Encoder, exact_limit: int, on_progress: Progress | None = None
    ) -> tuple[list[Reference], PatchIndex]:
        """All pictures and the index of their patches: exact up to `exact_limit`, else from hnswlib's file."""
        with database.reading(self._layout.database) as db:
            references = database.references(db)
        cached = self._cached
        if cached and cached[0] == (encoder.key, encoder.dim, database.fingerprint(references)):
            return references, cached[1]
        references, matrix = self.embeddings(encoder, on_progress)
        if not references:
            name = self._layout.name
            raise ReferencesError(
                f"reference set {name!r} is empty: add pictures by `colorflow refs add {name} FILE...`"
            )
        fingerprint = database.fingerprint(references)
        if len(matrix) <= exact_limit:
            index = PatchIndex(matrix, exact_limit=exact_limit)
        else:
            stored = self._load(encoder.key, fingerprint, matrix)
            index = stored or self._build(encoder.key, fingerprint, matrix, exact_limit)
        self._cached = (encoder.key, encoder.dim, fingerprint), index
        return references, index

    def _load(self, encoder: str, fingerprint: str, matrix: F32) -> PatchIndex | None:
        with database.reading(self._layout.database) as db:
            matching = database.generations_of(db, encoder, matrix.shape, fingerprint)
            others = database.other_encoders(db, encoder)
        if not matching and others:
            self._notice(f"the index is of another encoder ({others}): built for {encoder} from set.sqlite")
        for generation, sha256 in matching:
            try:
                return PatchIndex.load(self._layout.index(generation, sha256), matrix, sha256)
            except ReferencesError as error:
                self._notice(f"{error} (done, from set.sqlite)")
        return None

    def _build(self, encoder: str, fingerprint: str, matrix: F32, exact_limit: int) -> PatchIndex:
        """Build an index and store it as the next generation."""
        index = PatchIndex(matrix, exact_limit=exact_limit)
        try:
            with writing(self._layout, _WAIT_S) as db:
                commit_index(db, self._layout, index, encoder, fingerprint, matrix)
        except (ColorflowError, OSError) as error:
            self._notice(f"the index was not stored and will be built again: {error}")
        return index


def nearest_patches(
    references: Sequence[Reference], index: PatchIndex, queries: F32, k: int, allowed: Callable[[Reference], bool]
) -> list[list[Hit]]:
    """The k nearest patches of `allowed` pictures, best first, for each row of f32[Q,dim]; all if fewer.

    index: of the patches of `references`, PATCHES of each in their order. ReferencesError: no picture is allowed.
    """
    mask = np.repeat([allowed(reference) for reference in references], PATCHES)
    return [
        [Hit(references[i // PATCHES], int(i % PATCHES), float(score)) for i, score in zip(*row, strict=True)]
        for row in zip(*index.search(queries, k, mask), strict=True)
    ]


def as_matrix(references: Sequence[Reference], known: dict[str, F32], dim: int) -> F32:
    """f32[5N,dim] in the order of `references`."""
    return np.concatenate([np.empty((0, dim), np.float32), *(known[reference.sha256] for reference in references)])


def _checked(rows: F32, pictures: int, encoder: Encoder) -> F32:
    """f32[n,5,dim]"""
    expected = (PATCHES * pictures, encoder.dim)
    if rows.shape != expected or not np.isfinite(rows).all():
        raise ReferencesError(
            f"encoder {encoder.key} gave {list(rows.shape)} numbers for {pictures} pictures, expected finite ones of "
            f"{list(expected)}: check the pack with `colorflow doctor`"
        )
    return np.ascontiguousarray(rows, np.float32).reshape(pictures, PATCHES, encoder.dim)


def commit_index(
    db: Connection, layout: Layout, index: PatchIndex, encoder: str, fingerprint: str, matrix: F32
) -> Path:
    """Write a generation and then its row; clear away those past the kept ones. The set's lock is held."""
    temporary = temporary_in(layout.folder)
    try:
        index.save(temporary)
        sha256 = file_sha256(temporary)
        generation = database.next_generation(db)
        path = layout.index(generation, sha256)
        temporary.replace(path)
        sync(layout.folder)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    database.commit_generation(db, generation, sha256, encoder, matrix.shape, fingerprint, KEPT)
    remove_unnamed(db, layout)
    return path


def remove_unnamed(db: Connection, layout: Layout) -> list[Path]:
    """Unlink index files that no row names. The set's lock is held, so none of them is about to be named."""
    named = {layout.index(generation, sha256) for generation, sha256 in database.generations(db)}
    unnamed = [path for path in layout.index_files() if path not in named]
    for path in unnamed:
        with suppress(OSError):
            path.unlink()
    return unnamed


def index_problem(path: Path, sha256: str) -> str | None:
    """Why an index file must not be loaded, None if it may."""
    try:
        found = file_sha256(path)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if found == sha256 else f"is damaged (its SHA-256 is {found[:12]}...)"
