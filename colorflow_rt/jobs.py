"""A folder of coloured pages as a job that can be stopped at any moment and run again.

    out/001.png, out/chroma/001.png    results, each written atomically
    out/.colorflow/pages/001.json      one record per page: which input it belongs to, and how it was made
    out/.colorflow/writer.lock         held (flock) by the one process that writes

A page's record says "started" before its first file is written and "done" after its last. So whatever was
being made when the process was killed is made again, and a file without a record is not ours and never
replaced unasked.
"""

import hashlib
import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from colorflow_rt.errors import ColorflowError, OptionError, OutputError
from colorflow_rt.files import TEMPORARY, atomic_write, file_sha256
from colorflow_rt.lock import WriterLock
from colorflow_rt.pixels import Limits, read_picture

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
RECORDS = ".colorflow"
CHROMA = "chroma"
VERSION = 1
RESERVED = "contact_sheet"  # the sheets' own name: a page called so gets a longer one


def list_pages(inputs: Iterable[Path]) -> list[Path]:
    """All pages of files and folders, each once, in natural order of their paths (page2 before page10).

    A file that is named is a page whatever its suffix; of a folder, see `pictures_in`. OptionError if an
    input does not exist or a folder holds no picture.
    """
    pages: dict[Path, Path] = {}
    for given in inputs:
        if not given.exists():
            raise OptionError(f"no file or folder {given}: give pages, or a folder of pages")
        found = pictures_in(given) if given.is_dir() else [given]
        if not found:
            raise OptionError(f"no pictures in {given} (subfolders are not searched): give a folder of pages")
        for page in found:
            pages.setdefault(page.resolve(), page)
    return sorted(pages.values(), key=natural_key)


def pictures_in(folder: Path) -> list[Path]:
    """The files directly in `folder` that are called like pictures, in natural order; hidden ones are left out.

    OptionError if it is no folder or cannot be listed.
    """
    try:
        files = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
    except OSError as error:
        raise OptionError(f"{folder} cannot be listed ({error.strerror}): give a folder of pictures") from error
    return sorted((path for path in files if path.name[0] != "."), key=natural_key)


def natural_key(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sorting key: numbers by value, letters whatever their case, so that page2 comes before page10."""
    parts = re.split(r"([0-9]+)", _fold(path.as_posix()))
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.as_posix()


def sha256_or_nothing(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex; "" for a file that cannot be read (its page will say why)."""
    try:
        return file_sha256(path)
    except OSError:
        return ""


def fingerprint(**parts: object) -> str:
    """SHA-256 of everything a result depends on; the values are what JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Record:
    """What is known of one output: its input (absolute path, SHA-256), its state and how it was made.

    state: "started" (to be made again) or "done". files: SHA-256 by name relative to the out folder.
    details: for people and contact sheets (style, seconds, references used), and "approved": content hashes
    of the results that were fed back to a reference set.
    """

    output: str
    page: str
    page_sha256: str
    fingerprint: str
    state: str
    files: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


class NotOursError(OutputError):
    """A file is in the way that no run of ours has made."""


class JobFolder:
    """The out folder of `colorflow colorize`: who has which name, what is finished, and the records."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._pages = out / RECORDS / "pages"
        self._records = {path.stem: _read_record(path) for path in self._pages.glob("*.json")}

    @classmethod
    @contextmanager
    def open(cls, out: Path) -> Iterator["JobFolder"]:
        """Make the folder where needed, hold its lock, remove what killed writers left, read the records.

        OutputError if it cannot be made, or another process writes to it.
        """
        if out.exists() and not out.is_dir():
            raise OutputError(f"--out {out} is a file: give a folder")
        folders = (out, out / RECORDS / "pages", out / CHROMA)
        try:
            folders[1].mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"--out {out} cannot be made ({error.strerror}): give another folder") from error
        with WriterLock(out / RECORDS / "writer.lock", f"the folder {out}", wait_s=0, error=OutputError):
            for left in (path for folder in folders for path in folder.glob(TEMPORARY)):
                with suppress(OSError):
                    left.unlink()
            yield cls(out)

    def assign(self, pages: Sequence[Path], hashes: Mapping[Path, str]) -> dict[Path, str]:
        """The name of each page's output: its stem, or for a later page of the same stem `<stem>-<8 hex>`.

        The digits are of the SHA-256 of the page's absolute path. A name stays with its page in later runs:
        with the same path, else with the same content under the same stem (a chapter that was moved). No two
        names differ by letter case alone.
        """
        owned = {record.page: name for name, record in self._known()}
        names = {page: owned[_path(page)] for page in pages if _path(page) in owned}
        taken = {_fold(name) for name in names.values()}
        for page in pages:
            if page not in names:
                names[page] = self._moved(page, hashes[page], taken) or self._new_name(page, taken)
                taken.add(_fold(names[page]))
        return names

    def _known(self) -> Iterator[tuple[str, Record]]:
        return ((name, record) for name, record in self._records.items() if record)

    def _moved(self, page: Path, page_sha256: str, taken: set[str]) -> str | None:
        for name, record in self._known():
            same = record.page_sha256 == page_sha256 and Path(record.page).stem == page.stem
            if page_sha256 and same and _fold(name) not in taken:
                return name
        return None

    def _new_name(self, page: Path, taken: set[str]) -> str:
        taken = taken | {_fold(name) for name, _ in self._known()}
        digest = hashlib.sha256(os.fsencode(page.resolve())).hexdigest()
        plain = [] if _fold(page.stem).startswith(RESERVED) else [page.stem]
        longer = [f"{page.stem}-{digest[:digits]}" for digits in range(8, 65)]
        return next(name for name in (*plain, *longer) if _fold(name) not in taken)

    def finished(self, name: str, print_now: str) -> Record | None:
        """The record of an output that need not be made again, else None.

        A file that was changed since, and still is a picture, counts as finished: somebody has retouched it.
        """
        record = self._records.get(name)
        if record is None or record.state != "done" or record.fingerprint != print_now:
            return None
        return record if all(self._usable(*item) for item in record.files.items()) else None

    def _usable(self, file: str, sha256: str) -> bool:
        path = self.out / file
        return path.is_file() and (sha256_or_nothing(path) == sha256 or _is_picture(path))

    def check_free(self, name: str, files: Iterable[str]) -> None:
        """NotOursError if one of the files (relative to the folder) is there and no run of ours has made it."""
        record = self._records.get(name)
        if name in self._records and record is None:
            return  # damaged: ours, but nobody knows what it listed
        for path in (self.out / file for file in files if record is None or file not in record.files):
            if path.exists():
                raise NotOursError(f"{path} exists and was not made by colorflow: move it away, or give --force")

    def record(self, name: str) -> Record | None:
        """What is known of an output; None if nothing is, or its record is damaged."""
        return self._records.get(name)

    def write(self, record: Record) -> None:
        """Write a record down: "started" before the first file of a page is replaced, "done" after the last.

        A started record lists the files that may be there, those of the run before and those to come.
        """
        text = json.dumps({"version": VERSION, **asdict(record)}, indent=1)
        atomic_write(self._pages / f"{record.output}.json", text.encode())
        self._records[record.output] = record

    def approved(self) -> set[str]:
        """Content hashes of the results that this job has fed back to a reference set."""
        return {sha256 for _, record in self._known() for sha256 in record.details.get("approved", ())}


def check_targets(out: Path, pages: Iterable[Path], names: Iterable[str]) -> None:
    """OptionError if a result would replace a page, whatever links or letter cases are in between."""
    inputs = {_identity(page) for page in pages}
    for target in (out / f"{name}.png" for name in names):
        if target.exists() and _identity(target) in inputs:
            raise OptionError(f"--out {out} would overwrite the page {target}: choose another folder for results")


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def _read_record(path: Path) -> Record | None:
    """None for a record that is damaged or of another version: its name is ours, its page unknown."""
    try:
        data = json.loads(path.read_bytes())
        record = Record(**{f.name: data[f.name] for f in fields(Record)})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = isinstance(record.files, dict) and isinstance(record.details, dict) and record.output == path.stem
    return record if whole and data.get("version") == VERSION else None


def _is_picture(path: Path) -> bool:
    try:
        read_picture(path, Limits(max_pixels=sys.maxsize))
    except ColorflowError:
        return False
    return True


def _path(page: Path) -> str:
    return str(page.resolve())


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
