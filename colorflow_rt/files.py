"""Files that are whole or not there: written under a temporary name in the same folder, synced, renamed."""

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from colorflow_rt.errors import OutputError

TEMPORARY = ".colorflow-*.tmp*"  # what killed writers leave; behind .tmp stands what SQLite calls its side files


def atomic_write(path: str | Path, data: bytes) -> None:
    """Write `data`; at every moment `path` is either as before or whole.

    Raises OutputError: the folder is read-only, missing or not a folder, or the disk is full.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A new empty file beside `path`, to write to by name: synced and renamed to `path`, or removed.

    An OSError inside becomes OutputError.
    """
    path = Path(path)
    temporary = temporary_in(path.parent)
    try:
        # Not tempfile.mkstemp: its files are private (0600) whatever the umask says.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise OutputError(_why_not_written(path, error)) from error
    finally:
        with suppress(OSError):  # renamed, never made, or on a disk that is gone
            temporary.unlink()


def temporary_in(folder: Path) -> Path:
    """A new name for a file under way; only a killed process leaves one (TEMPORARY)."""
    return folder / f".colorflow-{secrets.token_hex(8)}.tmp"


def sync(path: Path) -> None:
    """Put the bytes of a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal. OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_WRITE_ERRORS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.EACCES: "the folder is read-only for this user; change its rights or choose another",
    errno.EPERM: "the folder is read-only for this user; change its rights or choose another",
    errno.ENOENT: "its folder does not exist; make it first",
    errno.ENOTDIR: "what should be its folder is not a folder; choose another",
    errno.EISDIR: "a folder of that name is there; choose another name",
}


def _why_not_written(path: Path, error: OSError) -> str:
    return f"{path}: cannot be written, {_WRITE_ERRORS.get(error.errno or 0) or error.strerror or error}"
