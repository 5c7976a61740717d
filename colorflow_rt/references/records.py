"""The records of a reference set: what it holds, and what its operations report."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from colorflow_rt.errors import ReferencesError

Source = Literal["added", "approved"]
State = Literal["normal", "pinned", "banned"]
SOURCES: tuple[Source, ...] = get_args(Source)
STATES: tuple[State, ...] = get_args(State)

Progress = Callable[[int, int], None]  # (done, in all); 0 in all: not known yet

PATCHES = 5  # a reference is embedded as the whole picture and its four crops (facts/colorflow.md section 1)
_SET_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Reference:
    """One picture of a set.

    id: never given twice in a set. sha256: `pixels.content_hash` of the picture, also its file name. name: of
    the file it came from, or as given. tag: a character, a scene, or None. size: (width, height) in pixels.
    added: ISO 8601, UTC. source: "approved" for result pages that were fed back. state: the stored default, a
    job may override.
    """

    id: int
    sha256: str
    name: str
    tag: str | None
    size: tuple[int, int]
    added: str
    source: Source
    state: State


def unnamed(sha256: str, size: tuple[int, int]) -> Reference:
    """A new picture (id 0) of which nothing but its pixels is known."""
    added = datetime.now(UTC).isoformat(timespec="seconds")
    return Reference(0, sha256, f"picture-{sha256[:8]}", None, size, added, "added", "normal")


class Hit(NamedTuple):
    """A patch found by `ReferenceSet.search`: 0 the whole picture, 1 to 4 its crops; score: cosine similarity."""

    reference: Reference
    patch: int
    score: float


@dataclass
class AddReport:
    """What `ReferenceSet.add` did.

    added: the new pictures. duplicates: (name given, the picture of the set with the same pixels). repaired:
    those of them whose file in the set was missing or damaged and was written again. refused: (name, reason).
    """

    added: list[Reference] = field(default_factory=list)
    duplicates: list[tuple[str, Reference]] = field(default_factory=list)
    repaired: list[Reference] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Problem:
    """Something `ReferenceSet.verify` found.

    kind: "database", "picture" (a row without its good file), "embedding", "index", or "orphan" (a file that
    belongs to no row: what a kill may leave behind, harmless). subject: the file or picture. message: what is
    wrong, and what to do.
    """

    kind: Literal["database", "picture", "embedding", "index", "orphan"]
    subject: str
    message: str


@dataclass
class RebuildReport:
    """What `ReferenceSet.rebuild` did.

    recovered: pictures that got a row again: of a damaged set.sqlite, which lies as `kept_aside`, or of a
    killed add. indexes: index files built. removed: left-over files removed. problems: what `verify` still
    finds.
    """

    recovered: list[Reference] = field(default_factory=list)
    kept_aside: Path | None = None
    indexes: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def is_set_name(name: object) -> bool:
    """Whether this may be the name of a set: no name can leave the folder of sets, or hide in it."""
    return isinstance(name, str) and _SET_NAME.fullmatch(name) is not None


def check_set_name(name: str) -> str:
    """The name itself; ReferencesError naming the rule if it is not one."""
    if not is_set_name(name):
        raise ReferencesError(
            f"reference set name {name!r} is invalid: use 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-', "
            "not starting with a dot"
        )
    return name


def clean_text(text: str | None) -> str | None:
    """Text that SQLite can hold: a file name may carry bytes that are no UTF-8."""
    return None if text is None else text.encode("utf-8", "replace").decode()
