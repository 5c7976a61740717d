"""`ReferenceSet`: a named, persistent set of reference pictures (docs/pack.md, Where things live).

set.sqlite is the truth. Embeddings in it and the hnswlib file beside it are derived: made when they are first
needed, made again when they are damaged, and a set can be used while they cannot be stored.
"""

from collections.abc import Callable, Iterable
from operator import length_hint
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.errors import OutputError, ReferencesError, check_choice
from colorflow_rt.lock import WAIT_S
from colorflow_rt.pixels import DEFAULT_LIMITS, Limits, Picture
from colorflow_rt.references import checks, database, images, repair
from colorflow_rt.references.adding import Adding, Item
from colorflow_rt.references.layout import Layout, create_set, delete_set, find_set, set_names, sets_root
from colorflow_rt.references.records import (
    SOURCES,
    STATES,
    AddReport,
    Hit,
    Problem,
    Progress,
    RebuildReport,
    Reference,
    Source,
    State,
    clean_text,
)
from colorflow_rt.references.vectors import Embed, Encoder, Vectors, nearest_patches
from colorflow_rt.references.writing import unlink_removed, writing
from colorflow_rt.retrieval import EXACT_LIMIT, PatchIndex

F32 = NDArray[np.float32]
Selector = int | str | Reference
References = list[Reference]  # the class has a method `list`, so inside it the type needs other names
Problems = list[Problem]
Names = list[str]
Hits = list[list[Hit]]


class ReferenceSet:
    """One set. Any number of processes and threads may read it, one process at a time may write it.

    wait_s: seconds that a writer waits for another one. exact_limit: number of patches up to which search is
    exact and no index file is kept. notices: a line for everything that was damaged and made again, or not
    stored.
    """

    def __init__(self, layout: Layout) -> None:
        """Use `create`, `open` or `open_or_create`; this looks at no file."""
        self._layout = layout
        self.wait_s = WAIT_S
        self.exact_limit = EXACT_LIMIT
        self.notices: list[str] = []
        self._vectors = Vectors(layout, self._notice)

    @property
    def name(self) -> str:
        """The set's name."""
        return self._layout.name

    @property
    def folder(self) -> Path:
        """Where the set lies."""
        return self._layout.folder

    def _notice(self, message: str) -> None:
        if message not in self.notices:  # a long-lived reader of a read-only set would collect them without end
            self.notices.append(message)

    # Sets as a whole. `root` is the folder of sets, None: COLORFLOW_HOME/sets.

    @classmethod
    def create(cls, name: str, root: str | Path | None = None) -> "ReferenceSet":
        """Make an empty set. ReferencesError: the name breaks the rule or is taken; OutputError: no place."""
        return cls(create_set(name, sets_root(root)))

    @classmethod
    def open(cls, name: str, root: str | Path | None = None) -> "ReferenceSet":
        """Open a set, be it damaged (`rebuild` repairs it). ReferencesError names the sets there are."""
        return cls(find_set(name, sets_root(root)))

    @classmethod
    def open_or_create(cls, name: str, root: str | Path | None = None) -> "ReferenceSet":
        """Open a set, or make it if there is none."""
        if name not in cls.names(root):
            try:
                return cls.create(name, root)
            except ReferencesError:
                if name not in cls.names(root):  # else another process was faster
                    raise
        return cls.open(name, root)

    @staticmethod
    def names(root: str | Path | None = None) -> Names:
        """The names of all sets, sorted."""
        return set_names(sets_root(root))

    @classmethod
    def delete(cls, name: str, root: str | Path | None = None, wait_s: float = WAIT_S) -> None:
        """Delete a set with its pictures; it disappears whole."""
        delete_set(find_set(name, sets_root(root)), wait_s)

    # Pictures

    def add(
        self,
        items: Iterable[Item],
        *,
        tag: str | None = None,
        source: Source = "added",
        limits: Limits = DEFAULT_LIMITS,
        on_progress: Progress | None = None,
    ) -> AddReport:
        """Add pictures, each committed on its own: a kill loses at most the one in flight, and adding again
        goes on.

        An item is anything `read_picture` takes, or (name, that); a file's own name is its name otherwise. A
        picture that cannot be read is reported and the others go on. OutputError (full disk) and
        ReferencesError (locked, read-only) end the call; what was added before stays.
        """
        check_choice("source", source, SOURCES, ReferencesError)
        total = length_hint(items)
        with writing(self._layout, self.wait_s) as db:
            adding = Adding(db, self._layout.images, tag, source, limits)
            for done, item in enumerate(items, 1):
                try:
                    adding.add(item, done)
                except OutputError as error:
                    added = len(adding.report.added)
                    raise OutputError(f"{error} ({added} pictures were added; add again to go on)") from error
                if on_progress:
                    on_progress(done, total)
        return adding.report

    def list(self) -> References:
        """All pictures, in the order they were added."""
        with database.reading(self._layout.database) as db:
            return database.references(db)

    def picture(self, which: Selector) -> Picture:
        """The pixels of a picture, proven against its hash. ImageError: its file is missing or damaged."""
        if not isinstance(which, Reference):
            (which,) = select(self.list(), which, self.name)
        return images.load(self._layout.images, which.sha256)

    def remove(self, which: Selector | Iterable[Selector]) -> int:
        """Remove pictures by id, name or record; how many. None is removed if one is unknown (ReferencesError)."""
        with writing(self._layout, self.wait_s) as db:
            gone = select(database.references(db), which, self.name)
            database.remove(db, gone)
            unlink_removed(db, self._layout)
        return len(gone)

    def set_state(self, which: Selector | Iterable[Selector], state: State) -> int:
        """Make pictures "normal", "pinned" or "banned", as the default of jobs; how many."""
        check_choice("state", state, STATES, ReferencesError)
        return self._update("state", state, which)

    def set_tag(self, which: Selector | Iterable[Selector], tag: str | None) -> int:
        """Say what pictures show (a character, a scene), None: nothing; how many."""
        return self._update("tag", clean_text(tag), which)

    def _update(self, column: str, value: str | None, which: Selector | Iterable[Selector]) -> int:
        with writing(self._layout, self.wait_s) as db:
            chosen = select(database.references(db), which, self.name)
            database.update(db, column, value, chosen)
        return len(chosen)

    # Patches

    def embeddings(self, encoder: str, dim: int, embed: Embed, on_progress: Progress | None = None) -> F32:
        """f32[5N,dim]: five rows a picture, in the order of `list`.

        encoder: names the encoder and everything else that the numbers depend on (page size, fitting);
        computed once per encoder by `embed` (n pictures u8[H,W,3] -> f32[5n,dim]) and stored. Pictures whose
        file is damaged are served from what is stored; ReferencesError names those of which nothing is.
        """
        return self._vectors.embeddings(Encoder(encoder, dim, embed), on_progress)[1]

    def index(self, encoder: str, dim: int, embed: Embed, on_progress: Progress | None = None) -> PatchIndex:
        """The index over `embeddings`: row i is patch i % 5 of picture i // 5. ReferencesError: the set is empty."""
        return self._vectors.index(Encoder(encoder, dim, embed), self.exact_limit, on_progress)[1]

    def search(
        self,
        queries: F32,
        k: int,
        encoder: str,
        dim: int,
        embed: Embed,
        allowed: Callable[[Reference], bool] = lambda reference: reference.state != "banned",
    ) -> Hits:
        """The k nearest patches of `allowed` pictures, best first, for each row of f32[Q,dim]; all if fewer.

        ReferencesError: no picture is allowed.
        """
        references, index = self._vectors.index(Encoder(encoder, dim, embed), self.exact_limit)
        return nearest_patches(references, index, queries, k, allowed)

    # Health

    def verify(self, on_progress: Progress | None = None) -> Problems:
        """Everything that is wrong with the set, found without changing it; empty: nothing."""
        return checks.verify(self._layout, on_progress)

    def rebuild(self) -> RebuildReport:
        """Make a damaged set.sqlite anew from the pictures, index files from it, and remove left-overs."""
        return repair.rebuild(self._layout, self.wait_s, self.exact_limit)


def select(references: References, which: Selector | Iterable[Selector], set_name: str) -> References:
    """The pictures meant: each by its id (7, "7" or "#7"), its record, or its name if only one has it."""
    given = [which] if isinstance(which, int | str | Reference) else list(which)
    chosen = {reference.id: reference for one in given for reference in [_select(references, one, set_name)]}
    return list(chosen.values())


def _select(references: References, which: Selector, set_name: str) -> Reference:
    identifier = which.id if isinstance(which, Reference) else which
    named = [reference for reference in references if reference.name == identifier]
    if isinstance(identifier, str) and not named and identifier.removeprefix("#").isdecimal():
        identifier = int(identifier.removeprefix("#"))
    found = named or [reference for reference in references if reference.id == identifier]
    if len(found) > 1:
        ids = ", ".join(f"#{reference.id}" for reference in found)
        raise ReferencesError(
            f"reference set {set_name!r} has {len(found)} pictures named {which!r} ({ids}): give an id"
        )
    if not found:
        shown = f"#{identifier}" if isinstance(identifier, int) else repr(which)
        raise ReferencesError(
            f"reference set {set_name!r} has no picture {shown}: `colorflow refs list {set_name}` shows its "
            f"{len(references)} pictures"
        )
    return found[0]
