"""One writer at a time, of a reference set or of a folder of results: an advisory lock (flock) on a file that names
its holder.
"""

import contextlib
import fcntl
import os
import sys
import time
from pathlib import Path
from types import TracebackType

from colorflow_rt.errors import ColorflowError, ReferencesError

WAIT_S = 10.0
_POLL_S = 0.05


class WriterLock:
    """Context manager that holds `path` locked; the kernel frees it when the process ends, however it ends.

    what: names the thing locked in messages. wait_s: how long to wait for another holder before `error` is
    raised, as it is when the lock cannot be had at all. A holder excludes every other one, also of the same process.
    """

    def __init__(
        self, path: Path, what: str, wait_s: float = WAIT_S, error: type[ColorflowError] = ReferencesError
    ) -> None:
        self._path, self._what, self._wait_s, self._error = path, what, wait_s, error
        self._file = -1

    def __enter__(self) -> "WriterLock":
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self._error(f"{self._what} cannot be written: {self._path.parent} {_reason(error)}") from error
        try:
            self._acquire()
            self._still_there()
        except BaseException:
            os.close(self._file)
            raise
        self._sign(f"pid {os.getpid()} ({' '.join(sys.argv)[:200]})")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._sign("")
        os.close(self._file)  # frees the lock

    def _acquire(self) -> None:
        deadline = time.monotonic() + self._wait_s
        while True:
            try:
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise self._error(self._busy()) from None
                time.sleep(_POLL_S)
            except OSError as error:
                raise self._error(f"{self._what} cannot be locked: {self._path} {_reason(error)}") from error

    def _busy(self) -> str:
        return (
            f"{self._what} is being written by {_holder(self._file)} (waited {self._wait_s:g} s): "
            "try again when that has finished"
        )

    def _still_there(self) -> None:
        """The folder may have been deleted while this process waited: the lock would be on nothing."""
        try:
            same = os.path.samestat(os.fstat(self._file), self._path.stat())
        except OSError:
            same = False
        if not same:
            raise self._error(f"{self._what} was deleted by another process meanwhile")

    def _sign(self, holder: str) -> None:
        with contextlib.suppress(OSError):  # a courtesy to those who wait; the disk may be full
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, holder.encode("utf-8", "replace"), 0)


def is_held(path: Path) -> bool:
    """Whether some process writes now. Takes a shared lock for an instant; False if there is no lock file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(file)


def _holder(file: int) -> str:
    return os.pread(file, 400, 0).decode("utf-8", "replace").strip() or "another process"


def _reason(error: OSError) -> str:
    return f"({error.strerror or error})"
