"""Reference sets that are damaged, on a full disk or in a read-only folder: nothing stored is lost, and it is said."""

import errno
import os
import random
import resource
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from reference_sets import (
    DIM,
    NAMES,
    again,
    campaign,
    filled,
    flip_bit,
    index,
    index_file,
    kinds,
    names,
    refuse_to_embed,
    searches_right,
)
from users import as_ordinary_user

from colorflow_rt.errors import OutputError, ReferencesError
from colorflow_rt.references import ReferenceSet, database

# A full disk, a read-only folder


def test_no_space_for_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refs = filled(tmp_path, 5)
    synced, left = os.fsync, 4  # two pictures: file and folder each

    def full(file: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synced(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"disk is full.*\(2 pictures were added; add again to go on\)"):
        refs.add([(name, campaign.picture(name)) for name in NAMES])
    monkeypatch.undo()
    assert names(refs) == NAMES[:7] and refs.verify() == []
    refs.add([(name, campaign.picture(name)) for name in NAMES])
    assert names(refs) == NAMES


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Any write past `size` bytes of a file fails, in SQLite and hnswlib too: what a full disk is like."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 100, 1000, 3000, 5000, 20_000, 50_000])
def test_writes_that_fail_anywhere(tmp_path: Path, size: int) -> None:
    refs = filled(tmp_path, 6)
    items = [(name, campaign.picture(name)) for name in NAMES]
    writes = (
        lambda: refs.add(items),
        lambda: refs.remove(NAMES[0]),
        lambda: refs.set_tag(NAMES[1], "hero"),
        lambda: ReferenceSet.create("other", tmp_path),
    )
    failed = []
    for write in writes:
        with largest_file(size):
            try:
                write()
            except (OutputError, ReferencesError) as error:
                failed.append(str(error))
    assert len(failed) >= 1 and not any("\n" in message for message in failed)
    assert set(NAMES[1:6]) <= set(names(again(refs)))
    assert {problem.kind for problem in refs.verify()} <= {"orphan"}
    again(refs).add(items)
    assert sorted(names(refs)) == NAMES and searches_right(again(refs))


def test_a_full_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refs = filled(tmp_path, 6)
    connect = sqlite3.connect

    def small(*args, **kwargs) -> sqlite3.Connection:
        db = connect(*args, **kwargs)
        db.execute("PRAGMA max_page_count = 1")  # SQLITE_FULL at the next new page
        return db

    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(
        OutputError, match="the disk is full: free some space and run it again; nothing stored was lost"
    ):
        refs.add([(f"{name}{'x' * 3000}", campaign.picture(name)) for name in NAMES])
    assert len(refs.embeddings("new", DIM, campaign.embed)) == 5 * len(refs.list())
    assert "embeddings were not stored" in refs.notices[-1] and "disk is full" in refs.notices[-1]
    monkeypatch.undo()
    assert names(refs)[:6] == NAMES[:6] and set(kinds(refs)) <= {"orphan"}


def test_no_space_for_the_index(tmp_path: Path) -> None:
    refs = filled(tmp_path, 6)
    index_file(refs).unlink()
    before = set(refs.folder.iterdir())
    opened = again(refs)
    with largest_file(1000):
        assert searches_right(opened)
    assert "cannot be read" in opened.notices[0] and "the index was not stored" in opened.notices[-1]
    assert {path for path in refs.folder.iterdir() if not path.name.startswith("set.sqlite-")} == before
    assert searches_right(again(refs)) and index_file(refs)


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that a plain user may read: root may write anywhere, so tests run by root become another user."""
    folder = Path(tempfile.mkdtemp(prefix="colorflow-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@contextmanager
def as_reader(folder: Path) -> Iterator[None]:
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        with as_ordinary_user():
            yield
    finally:
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_read_only_set_is_read_and_says_so_when_written(read_only: Path) -> None:
    refs = filled(read_only, 6)
    with as_reader(read_only):
        opened = again(refs)
        assert names(opened) == NAMES[:6] and opened.verify() == [] and searches_right(opened)
        assert opened.picture(1).size == (28, 20) and opened.notices == []
        for write in (
            lambda: opened.add([campaign.picture("07.png")]),
            lambda: opened.remove(1),
            lambda: opened.rebuild(),
            lambda: ReferenceSet.create("other", read_only),
            lambda: ReferenceSet.delete("campaign", read_only),
        ):
            with pytest.raises((ReferencesError, OutputError), match=r"cannot be written: .*\(Permission denied\)"):
                write()
        assert opened.embeddings("new", DIM, campaign.embed).shape == (30, DIM)
        assert "embeddings were not stored" in opened.notices[0]
    assert refs.verify() == []


def test_a_read_only_set_with_an_unfinished_log(read_only: Path) -> None:
    """Nobody may finish the log here, so the set cannot be read; guessing without it would show an old state."""
    refs = filled(read_only, 6)
    with database.writing(refs.folder / "set.sqlite") as db:
        with database.transaction(db):
            db.execute("UPDATE pictures SET tag = 'late'")
        log = (refs.folder / "set.sqlite-wal").read_bytes()
    (refs.folder / "set.sqlite-wal").write_bytes(log)
    with as_reader(read_only), pytest.raises(ReferencesError, match=r"cannot be opened or written .*folder's rights"):
        again(refs).list()
    assert {reference.tag for reference in refs.list()} == {"late"}


# A damaged index


def test_a_hundred_flipped_bits_in_the_index(tmp_path: Path) -> None:
    refs, rng = filled(tmp_path, 6), random.Random(0)
    rows = refs.embeddings("campaign", DIM, refuse_to_embed)
    for _ in range(100):
        flipped = index_file(refs)
        flip_bit(flipped, rng)
        opened = again(refs)
        found, _ = opened.index("campaign", DIM, refuse_to_embed).search(rows, 1)
        assert found[:, 0].tolist() == list(range(30))
        assert f"{flipped.name}: damaged index, SHA-256" in opened.notices[0]
        assert index_file(refs) != flipped
    assert len(list(refs.folder.glob("index.*"))) == 2
    assert kinds(refs) == ["index"]  # the last flipped one, kept as the one before
    assert refs.rebuild().problems == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def of_another_set(path: Path) -> None:
    other = filled(path.parent.parent / "elsewhere", 7)
    shutil.copy(index_file(other), path)


@pytest.mark.parametrize("harm", [cut, empty, Path.unlink, of_another_set])
def test_an_index_that_cannot_be_used_is_built_again(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    refs = filled(tmp_path, 6)
    path = index_file(refs)
    harm(path)
    (problem,) = refs.verify()
    assert (problem.kind, problem.subject) == ("index", path.name) and "built again" in problem.message
    opened = again(refs)
    assert searches_right(opened)
    (notice,) = opened.notices
    assert notice.startswith(path.name) and notice.endswith("it must be rebuilt (done, from set.sqlite)")
    assert searches_right(again(refs)) and again(refs).notices == []
    assert refs.rebuild().problems == []


# Damaged pictures


def test_a_damaged_picture_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    refs, rng = filled(tmp_path, 8), random.Random(0)
    paths = [refs.folder / "images" / f"{r.sha256}.png" for r in refs.list()]
    cut(paths[1])
    paths[3].unlink()
    shutil.copy(paths[0], paths[5])  # a good PNG under a wrong name
    while True:  # some bits of a PNG mean nothing
        flip_bit(paths[6], rng)
        problems = refs.verify()
        if len(problems) == 4:
            break
    assert [(p.kind, p.subject) for p in problems] == [("picture", f"#{n + 1} {NAMES[n]}") for n in (1, 3, 5, 6)]
    assert all(p.message.startswith(p.subject) for p in problems)
    assert all("add the original again, or `colorflow refs remove campaign" in p.message for p in problems)
    assert refs.embeddings("campaign", DIM, refuse_to_embed).shape == (40, DIM)
    assert len(refs.search(np.eye(1, DIM, dtype=np.float32), 40, "campaign", DIM, refuse_to_embed)[0]) == 40
    unstored = (
        "#2 '01.png', #4 '03.png', #6 '05.png', #7 '06.png' are missing or damaged.* refs remove campaign 2 4 6 7"
    )
    with pytest.raises(ReferencesError, match=unstored):
        refs.embeddings("new", DIM, campaign.embed)
    assert len(refs.rebuild().problems) == 4  # only the originals can help
    report = refs.add([(name, campaign.picture(name)) for name in NAMES[:8]])
    assert [r.id for r in report.repaired] == [2, 4, 6, 7] and len(report.duplicates) == 8
    assert refs.verify() == []


def test_damaged_embeddings_are_computed_again(tmp_path: Path) -> None:
    refs = filled(tmp_path, 6)
    rows = refs.embeddings("campaign", DIM, refuse_to_embed)
    with database.writing(refs.folder / "set.sqlite") as db, database.transaction(db):
        db.execute("UPDATE embeddings SET vectors = zeroblob(240) WHERE rowid = 2")
        db.execute("UPDATE embeddings SET encoder = 'campaigm' WHERE rowid = 3")
        db.execute("UPDATE embeddings SET vectors = 'text' WHERE rowid = 4")
    assert kinds(refs) == ["embedding"] * 3
    seen: list[int] = []

    def embed(pictures):
        seen.append(len(pictures))
        return campaign.embed(pictures)

    opened = again(refs)
    assert np.array_equal(opened.embeddings("campaign", DIM, embed), rows) and seen == [3]
    assert opened.notices == ["embeddings of 2 pictures were damaged in set.sqlite: computed again"]
    assert refs.rebuild().problems == [] and kinds(refs) == []


# A damaged database


def no_database(data: bytes) -> bytes:
    return b"no database at all" * 50


def cut_short(data: bytes) -> bytes:
    return data[: len(data) // 3]


def nothing(data: bytes) -> bytes:
    return b""


def header_gone(data: bytes) -> bytes:
    return bytes(4096) + data[4096:]


def schema_gone(data: bytes) -> bytes:
    return data[:100] + bytes(3996) + data[4096:]


def schema_not_utf8(data: bytes) -> bytes:
    """SQLite's own message about it is not UTF-8 then."""
    return data.replace(b"CREATE TABLE pictures", b"CREATE \xeeABLE pictures")


@pytest.mark.parametrize("harm", [no_database, cut_short, nothing, header_gone, schema_gone, schema_not_utf8])
def test_a_lost_database_is_made_anew_from_the_pictures(tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    refs = filled(tmp_path, 6)
    path = refs.folder / "set.sqlite"
    damaged = harm(path.read_bytes())
    path.write_bytes(damaged)
    assert ReferenceSet.names(tmp_path) == ["campaign"]
    for use in (refs.list, lambda: index(refs), lambda: refs.add([campaign.picture(NAMES[0])]), lambda: refs.remove(1)):
        with pytest.raises(ReferencesError, match=r"set.sqlite is damaged .*run `colorflow refs rebuild campaign`"):
            use()
    (problem,) = refs.verify()
    assert problem.kind == "database" and "colorflow refs rebuild campaign" in problem.message
    report = refs.rebuild()
    assert report.problems == [] and len(report.recovered) == 6
    assert report.kept_aside is not None and report.kept_aside.read_bytes() == damaged
    assert report.kept_aside.name.startswith("set.sqlite.damaged-")
    assert searches_right(again(refs)) and refs.verify() == []
    refs.add([(name, campaign.picture(name)) for name in NAMES])
    assert sorted(names(refs)) == NAMES  # adding again gives the names back
    assert refs.rebuild().kept_aside is None


def test_an_index_row_without_an_encoder_is_no_matter(tmp_path: Path) -> None:
    refs = filled(tmp_path, 6)
    with database.writing(refs.folder / "set.sqlite") as db, database.transaction(db):
        db.execute("UPDATE generations SET encoder = x'00'")
    assert searches_right(again(refs))


def test_a_missing_database_is_made_anew(tmp_path: Path) -> None:
    refs = filled(tmp_path, 6)
    (refs.folder / "set.sqlite").unlink()
    with pytest.raises(ReferencesError, match=r"set.sqlite is damaged .it is missing"):
        refs.list()
    report = refs.rebuild()
    assert len(report.recovered) == 6 and report.kept_aside is None and report.problems == []


def test_pages_lost_at_random_places(tmp_path: Path) -> None:
    """Whatever part of the file is lost: no operation fails but by an error of ours, and rebuild makes a whole set."""
    made, rng = filled(tmp_path / "made"), random.Random(0)
    made.set_tag(NAMES[:6], "Mia")
    salvaged = 0
    for number in range(15):
        shutil.copytree(tmp_path / "made", tmp_path / f"{number}")
        refs = campaign.open_set(tmp_path / f"{number}")
        path = refs.folder / "set.sqlite"
        data = bytearray(path.read_bytes())
        for _ in range(rng.choice((1, 2, 4))):
            start = rng.randrange(0, len(data), 512)
            data[start : start + 512] = rng.randbytes(len(data[start : start + 512]))
        path.write_bytes(data)
        for use in (refs.list, lambda: index(refs), refs.verify):  # noqa: B023
            with suppress(ReferencesError):
                use()
        report = refs.rebuild()
        assert report.problems == []
        assert sorted(r.sha256 for r in refs.list()) == sorted(r.sha256 for r in made.list())
        assert searches_right(again(refs))
        salvaged += sum(reference.tag == "Mia" for reference in refs.list())
    assert salvaged >= 15  # where rows can still be read, they are


def test_what_can_be_read_of_a_damaged_database_is_kept(tmp_path: Path) -> None:
    refs = filled(tmp_path)
    refs.set_state(NAMES[2], "pinned")
    before = refs.list()
    with database.writing(refs.folder / "set.sqlite") as db:
        page = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'generations'").fetchone()[0]
        size = db.execute("PRAGMA page_size").fetchone()[0]
    path = refs.folder / "set.sqlite"
    data = bytearray(path.read_bytes())
    data[(page - 1) * size : page * size] = b"\xff" * size
    path.write_bytes(data)
    assert kinds(refs) == ["database"]
    report = refs.rebuild()
    assert refs.list() == before == report.recovered and report.problems == []
    assert refs.embeddings("campaign", DIM, refuse_to_embed).shape == (60, DIM)


def test_a_set_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    refs = filled(tmp_path, 2)
    db = sqlite3.connect(refs.folder / "set.sqlite")
    db.execute("PRAGMA user_version = 2")
    db.close()
    before = sorted(refs.folder.rglob("*"))
    for use in (refs.list, refs.verify, refs.rebuild, lambda: refs.remove(1)):
        with pytest.raises(
            ReferencesError, match=r"'campaign' was written by a newer ColorFlow RT \(schema 2, expected 1"
        ):
            use()
    assert sorted(refs.folder.rglob("*")) == before
