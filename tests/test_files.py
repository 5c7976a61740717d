"""Files are whole or not there, whatever fails."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from colorflow_rt.errors import OutputError
from colorflow_rt.files import TEMPORARY, atomic_path, atomic_write, file_sha256, temporary_in


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "the disk is read-only"),
        (errno.EACCES, "the folder is read-only"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_failed_write_keeps_the_old_file_and_removes_the_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    atomic_write(tmp_path / "kept", b"old")

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match=words) as caught:
        atomic_write(tmp_path / "kept", b"new")
    assert str(caught.value).startswith(f"{tmp_path}/kept: cannot be written, ")
    assert (tmp_path / "kept").read_bytes() == b"old"
    assert leftovers(tmp_path) == ["kept"]


def test_a_really_full_file_system_is_an_output_error(tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys; from colorflow_rt.files import atomic_write\n"
        "from colorflow_rt.errors import OutputError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: atomic_write(sys.argv[1], bytes(5000))\n"
        "except OutputError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "page.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert "page.png: cannot be written, File too large" in done.stdout
    assert leftovers(tmp_path) == []


def test_no_folder_a_file_as_folder_and_a_folder_as_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="its folder does not exist; make it first"):
        atomic_write(tmp_path / "none" / "page.png", b"x")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="is not a folder"):
        atomic_write(tmp_path / "file" / "page.png", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="a folder of that name is there"):
        atomic_write(tmp_path / "folder", b"x")
    assert leftovers(tmp_path) == ["file", "folder"]


def test_atomic_path_removes_its_file_on_any_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "page") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert leftovers(tmp_path) == []


def test_what_killed_writers_leave_is_found_by_its_name(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "page") as temporary:
        assert temporary in set(tmp_path.glob(TEMPORARY)) and temporary.read_bytes() == b""
    assert list(tmp_path.glob(TEMPORARY)) == []
    assert temporary_in(tmp_path) != temporary_in(tmp_path)


def test_the_sha256_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert file_sha256(tmp_path / "abc") == known
    with pytest.raises(FileNotFoundError):
        file_sha256(tmp_path / "none")
