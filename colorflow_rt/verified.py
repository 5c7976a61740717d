"""Files that nobody uses before they were compared with what a manifest says of them."""

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from colorflow_rt.errors import ColorflowError, EngineError, PackError
from colorflow_rt.files import file_sha256
from colorflow_rt.records import read_toml


class _Manifest(Protocol):
    @property
    def schema(self) -> int: ...


Manifest = TypeVar("Manifest", bound=_Manifest)


def read_manifest(cls: type[Manifest], path: Path, schema: int, again: str) -> Manifest:
    """The record of a manifest of engines. EngineError where it cannot be read or has another schema.

    again: what to do then, the end of the message.
    """
    try:
        found = read_toml(cls, path.read_text(encoding="utf-8"))
    except (PackError, OSError, UnicodeDecodeError) as error:
        raise EngineError(f"{path} cannot be read ({error}): {again}") from error
    if found.schema != schema:
        raise EngineError(f"{path} has schema {found.schema}, expected {schema}: {again}")
    return found


class Verified:
    """Files of a folder, each compared with its SHA-256 before its first use. Safe for several threads.

    digests: hexadecimal, by name. A file that cannot be read raises `unreadable`, one that differs `damaged`; both
    messages end with `again`: what to do then.
    """

    def __init__(
        self,
        folder: Path,
        digests: Mapping[str, str],
        again: str,
        *,
        unreadable: type[ColorflowError],
        damaged: type[ColorflowError],
    ) -> None:
        self._folder, self._digests, self._again = folder, digests, again
        self._unreadable, self._damaged = unreadable, damaged
        self._done: set[str] = set()
        self._lock = threading.Lock()

    def check(self, names: Iterable[str]) -> None:
        """Compare those of the files that were not compared yet."""
        with self._lock:
            for name in names:
                if name not in self._done:
                    self._compare(name)
                    self._done.add(name)

    def check_all(self) -> None:
        """Compare every file, also those that were compared before."""
        with self._lock:
            self._done.clear()
        self.check(self._digests)

    def _compare(self, name: str) -> None:
        path, expected = self._folder / name, self._digests[name]
        try:
            found = file_sha256(path)
        except OSError as error:
            raise self._unreadable(f"{path} cannot be read ({error.strerror}): {self._again}") from error
        if found != expected:
            raise self._damaged(f"{path} is damaged: its SHA-256 is {found}, not {expected}: {self._again}")
