"""What an evaluation has measured so far: a line of JSON for each page, added as pages are done.

A killed run loses the page it was at. A line cut short by a full disk or a power cut is passed over, and its page is
measured again. Rows of other settings or pictures stay in the file; their fingerprints differ.
"""

import json
import os
from pathlib import Path
from typing import Any

from colorflow_rt.errors import OutputError

Row = dict[str, Any]


class Rows:
    """The file, read whole. OutputError where it cannot be read or written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            text = path.read_bytes().decode("utf-8", "replace") if path.exists() else ""
        except OSError as error:
            raise OutputError(f"{path}: cannot be read ({error.strerror}); choose another --json") from error
        self._torn = bool(text) and not text.endswith("\n")
        self._rows = {row["fingerprint"]: row for line in text.splitlines() if (row := _row(line))}

    def get(self, fingerprint: str) -> Row | None:
        return self._rows.get(fingerprint)

    def add(self, row: Row) -> None:
        """Keep a row, under row["fingerprint"]; it is on the disk when this returns."""
        line = ("\n" if self._torn else "") + json.dumps(row) + "\n"
        try:
            with self._path.open("ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written ({error.strerror}); choose another --json") from error
        self._torn = False
        self._rows[row["fingerprint"]] = row


def _row(line: str) -> Row | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "fingerprint" in found else None
