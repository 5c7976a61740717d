"""Where a reference set keeps its files (docs/pack.md), and how sets come and go as whole folders."""

import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from colorflow_rt.errors import OutputError, ReferencesError
from colorflow_rt.files import TEMPORARY, sync
from colorflow_rt.lock import WriterLock
from colorflow_rt.references import database
from colorflow_rt.references.records import check_set_name, is_set_name

_INDEX = re.compile(r"index\.[0-9]+\.[0-9a-f]{64}\.bin")
_UNFINISHED = (".new-", ".deleted-")  # a set being made or deleted: set names never start with a dot


@dataclass(frozen=True)
class Layout:
    """The files of the set in `folder`."""

    folder: Path

    @property
    def name(self) -> str:
        """The set's name, as messages give it."""
        return self.folder.name

    @property
    def database(self) -> Path:
        """The truth."""
        return self.folder / "set.sqlite"

    @property
    def images(self) -> Path:
        """One PNG per picture."""
        return self.folder / "images"

    @property
    def lock(self) -> Path:
        """Held by the one process that writes."""
        return self.folder / "writer.lock"

    def index(self, generation: int, sha256: str) -> Path:
        """The file of an index generation."""
        return self.folder / f"index.{generation}.{sha256}.bin"

    def index_files(self) -> list[Path]:
        """All files named like an index generation."""
        return sorted(path for path in self.folder.iterdir() if _INDEX.fullmatch(path.name))

    def temporary_files(self) -> list[Path]:
        """What killed processes left behind; files of running writers look the same."""
        return sorted(path for folder in (self.folder, self.images) for path in folder.glob(TEMPORARY))

    def locked(self, wait_s: float) -> WriterLock:
        """The lock of the one process that writes."""
        return WriterLock(self.lock, f"reference set {self.name!r}", wait_s)

    def exists(self) -> bool:
        """Whether there is a set here, be it damaged."""
        return self.database.is_file() or self.images.is_dir()


def sets_root(root: str | Path | None) -> Path:
    """The folder that holds the sets; None: COLORFLOW_HOME/sets."""
    if root is not None:
        return Path(root)
    from colorflow_rt.pack import home  # here, so that sets with a root of their own need no packs

    return home() / "sets"


def set_names(root: Path) -> list[str]:
    """The names of the sets in `root`, sorted; none if it does not exist."""
    if not root.is_dir():
        return []
    return sorted(path.name for path in root.iterdir() if is_set_name(path.name) and Layout(path).exists())


def find_set(name: str, root: Path) -> Layout:
    """ReferencesError if there is no such set; names those there are."""
    layout = Layout(root / check_set_name(name))
    if not layout.exists():
        there = ", ".join(set_names(root)) or "none yet"
        raise ReferencesError(
            f"no reference set {name!r} in {root} (there: {there}): make it with `colorflow refs add {name} FILE...`"
        )
    return layout


def create_set(name: str, root: Path) -> Layout:
    """Make an empty set; it appears whole or not at all. ReferencesError if the name is taken."""
    layout = Layout(root / check_set_name(name))
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _changing(root):
            if layout.folder.exists():
                raise ReferencesError(
                    f"reference set {name!r} exists already in {root}: open it, or choose another name"
                )
            _make(root / f".new-{secrets.token_hex(8)}" / name, layout.folder)
    except OSError as error:
        raise OutputError(
            f"reference set {name!r} cannot be made in {root} ({error.strerror}): check the folder"
        ) from error
    return layout


def _make(unfinished: Path, final: Path) -> None:
    (unfinished / "images").mkdir(parents=True)
    database.create(unfinished / "set.sqlite")
    sync(unfinished)
    unfinished.rename(final)
    sync(final.parent)
    unfinished.parent.rmdir()


def delete_set(layout: Layout, wait_s: float) -> None:
    """Delete a set with its pictures; it disappears whole. Waits for its writer as any writer does."""
    root = layout.folder.parent
    try:
        with _changing(root), layout.locked(wait_s):
            layout.folder.rename(root / f".deleted-{secrets.token_hex(8)}")
            sync(root)
            _sweep(root)
    except OSError as error:
        raise OutputError(
            f"reference set {layout.name!r} cannot be deleted ({error.strerror}): check {root}"
        ) from error


@contextmanager
def _changing(root: Path) -> Iterator[None]:
    """Whoever makes or deletes a set first clears away what a killed process left half done."""
    with WriterLock(root / ".lock", f"the folder of reference sets {root}"):
        _sweep(root)
        yield


def _sweep(root: Path) -> None:
    for path in root.iterdir():
        if path.name.startswith(_UNFINISHED):
            shutil.rmtree(path, ignore_errors=True)
