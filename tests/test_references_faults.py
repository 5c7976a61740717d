"""Reference sets that are killed, damaged, locked, full or read-only: nothing stored is lost, and it is said so."""

import errno
import importlib.util
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from colorflow_rt.errors import ColorflowError, OutputError, ReferencesError
from colorflow_rt.references import ReferenceSet, database, vectors
from colorflow_rt.references.lock import WriterLock

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "reliability_refs.py"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reliability_refs", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


campaign = load_script()
NAMES, DIM = campaign.NAMES, campaign.DIM


def filled(root: Path, count: int = 12) -> ReferenceSet:
    """A set of `count` pictures with embeddings and an index file."""
    refs = campaign.open_set(root)
    refs.add([(name, campaign.picture(name)) for name in NAMES[:count]])
    index(refs)
    return refs


def again(refs: ReferenceSet) -> ReferenceSet:
    return campaign.open_set(refs.folder.parent)


def index(refs: ReferenceSet):
    return refs.index("campaign", DIM, campaign.embed)


def refuse_to_embed(pictures):
    raise AssertionError("embeddings are stored and must not be computed")


def names(refs: ReferenceSet) -> list[str]:
    return [reference.name for reference in refs.list()]


def kinds(refs: ReferenceSet) -> list[str]:
    return [problem.kind for problem in refs.verify()]


def index_file(refs: ReferenceSet) -> Path:
    return max(refs.folder.glob("index.*"), key=lambda path: int(path.name.split(".")[1]))


def searches_right(refs: ReferenceSet) -> bool:
    """Whether every stored patch finds itself."""
    rows = refs.embeddings("campaign", DIM, campaign.embed)
    found, scores = index(refs).search(rows, 1)
    return found[:, 0].tolist() == list(range(len(rows))) and bool((scores > 0.999).all())


# Kills


def test_ten_kills_at_random_moments(tmp_path: Path) -> None:
    totals = campaign.campaign(7, tmp_path / "kills.json", seed=1)
    assert (totals["kills"], totals["violations"]) == (7, [])
    totals = campaign.campaign(10, tmp_path / "kills.json", seed=1)  # goes on counting
    assert (totals["kills"], totals["violations"], len(totals["recovery_seconds"])) == (10, [], 10)
    assert sum(totals["phases"].values()) == 10


def test_a_kill_at_every_50th_write(tmp_path: Path) -> None:
    """Forks, so it runs in a process of its own that has one thread. `make reliability` kills at every write."""
    command = [sys.executable, str(SCRIPT), "--sweep", "--every", "50", "--json", str(tmp_path / "sweep.json")]
    done = subprocess.run(command, env=campaign.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    totals = json.loads((tmp_path / "sweep.json").read_text())
    assert totals["violations"] == [] and min(totals["histories"].values()) >= 4
    assert json.loads(done.stdout.splitlines()[-1]) == totals


def lose_a_row(refs: ReferenceSet) -> None:
    refs.remove(NAMES[0])


def bring_back_a_row(refs: ReferenceSet) -> None:
    refs.add([("11.png", campaign.picture("11.png"))])


def cut_a_picture(refs: ReferenceSet) -> None:
    path = next((refs.folder / "images").iterdir())
    path.write_bytes(path.read_bytes()[:-50])


def leave_a_partial_picture(refs: ReferenceSet) -> None:
    (refs.folder / "images" / f"{'a' * 64}.png").write_bytes(b"\x89PNG")


def flip_the_index(refs: ReferenceSet) -> None:
    flip_bit(index_file(refs), random.Random(0))


@pytest.mark.parametrize("harm", [lose_a_row, bring_back_a_row, cut_a_picture, leave_a_partial_picture, flip_the_index])
def test_the_campaign_sees_harm(tmp_path: Path, harm: Callable[[ReferenceSet], None]) -> None:
    """The control: a campaign that cannot fail would prove nothing."""
    refs = filled(tmp_path, 11)
    expected = campaign.Expected(sure=set(NAMES[:11]))
    harm(refs)
    wrong, _ = campaign.check(tmp_path, expected)
    assert wrong


def test_files_are_on_the_disk_before_the_row_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill cannot show this, a loss of power would: order of fsync, rename and commit."""
    refs = campaign.open_set(tmp_path)
    events: list[str] = []
    names_of: dict[int, str] = {}
    opened, synced, renamed = os.open, os.fsync, os.replace
    transaction = database.transaction

    def open_(path, *args, **kwargs) -> int:
        file = opened(path, *args, **kwargs)
        names_of[file] = Path(os.fsdecode(path)).name
        return file

    def fsync(file) -> None:
        events.append(f"fsync {'temporary' if names_of[file].endswith('.tmp') else names_of[file]}")
        synced(file)

    def replace(old, new, **kwargs) -> None:
        events.append(f"rename {Path(new).name.split('.')[-1]}")
        renamed(old, new, **kwargs)

    @contextmanager
    def commit(db) -> Iterator[None]:
        with transaction(db):
            yield
        events.append("commit")

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(database, "transaction", commit)
    refs.add([campaign.picture(name) for name in NAMES[:5]])
    assert events == 5 * ["fsync temporary", "rename png", "fsync images", "commit"]
    events.clear()
    index(refs)
    saved = ["fsync temporary", "rename tmp", "fsync campaign"]
    assert events == ["commit", *saved, "rename bin", "fsync campaign", "commit"]


def test_the_database_is_in_wal_mode_and_syncs_every_commit(tmp_path: Path) -> None:
    refs = campaign.open_set(tmp_path)
    with database.writing(refs.folder / "set.sqlite") as db:
        pragma = lambda name: db.execute(f"PRAGMA {name}").fetchone()[0]  # noqa: E731
        assert [pragma("journal_mode"), pragma("synchronous"), pragma("user_version")] == ["wal", 2, 1]


def test_rebuild_takes_up_what_a_killed_add_left(tmp_path: Path) -> None:
    refs = filled(tmp_path, 6)
    orphan = campaign.picture("07.png")
    sha256 = ReferenceSet.create("other", tmp_path).add([orphan]).added[0].sha256
    shutil.copy(tmp_path / "other" / "images" / f"{sha256}.png", refs.folder / "images")
    (refs.folder / "images" / ".colorflow-0123456789abcdef.tmp").write_bytes(b"half")
    (refs.folder / f"index.9.{'0' * 64}.bin").write_bytes(b"no row names it")
    assert kinds(refs) == ["orphan"] * 3
    report = refs.rebuild()
    assert [r.name for r in report.recovered] == [f"picture-{sha256[:8]}"]
    assert sorted(report.removed) == [".colorflow-0123456789abcdef.tmp", f"index.9.{'0' * 64}.bin"]
    assert (report.problems, report.kept_aside) == ([], None)
    assert refs.add([("07.png", orphan)]).duplicates[0][1].name == "07.png"
    assert names(refs)[-1] == "07.png"  # adding it again gives it its name


def test_a_removal_that_was_killed_is_finished_by_the_next_writer(tmp_path: Path, monkeypatch) -> None:
    refs = filled(tmp_path, 3)
    (first, *_) = refs.list()
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EIO, "no")))
    refs.remove(first)
    monkeypatch.undo()
    assert names(refs) == NAMES[1:3] and kinds(refs) == ["orphan"]
    refs.set_tag(NAMES[1], "hero")
    assert kinds(refs) == [] and len(list((refs.folder / "images").iterdir())) == 2


def test_half_made_and_half_deleted_sets_are_swept(tmp_path: Path) -> None:
    for left in (".new-1/a/images", ".deleted-2/images"):
        (tmp_path / left).mkdir(parents=True)
    assert ReferenceSet.names(tmp_path) == []
    ReferenceSet.create("a", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "a"]


# Several processes

HOLD = """
import sys
from pathlib import Path
from colorflow_rt.references.lock import WriterLock
with WriterLock(Path(sys.argv[1]), "x"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def another_writer(refs: ReferenceSet) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(refs.folder / "writer.lock"), "--its-command"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=campaign.environment()) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_writer_waits_and_names_the_first(tmp_path: Path) -> None:
    refs = filled(tmp_path, 5)
    refs.wait_s = 0.2
    with another_writer(refs) as holder:
        busy = rf"'campaign' is being written by pid {holder.pid} \(-c .*--its-command\) \(waited 0.2 s\): try again"
        for write in (
            lambda: refs.add([campaign.picture(NAMES[0])]),
            lambda: refs.remove(1),
            lambda: refs.set_state(1, "banned"),
            lambda: refs.rebuild(),
            lambda: ReferenceSet.delete("campaign", tmp_path, wait_s=0.2),
        ):
            with pytest.raises(ReferencesError, match=busy):
                write()
        assert len(names(refs)) == 5 and refs.verify() == []  # readers need no lock
        refs.wait_s = 10
        threading.Timer(0.3, holder.kill).start()
        assert refs.remove(1) == 1  # a lock ends with its holder


def test_a_job_goes_on_while_another_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is derived is computed and used; it is stored another time."""
    refs = filled(tmp_path, 5)
    monkeypatch.setattr(vectors, "_WAIT_S", 0.05)
    with another_writer(refs):
        rows = refs.embeddings("new", DIM, campaign.embed)
        assert np.array_equal(rows, refs.embeddings("campaign", DIM, refuse_to_embed))
        assert refs.index("new", DIM, campaign.embed).search(rows, 1)[0][7, 0] == 7
    assert len(refs.notices) == 3 and "embeddings were not stored" in refs.notices[0]
    assert "the index was not stored" in refs.notices[2]
    stored = again(refs)
    stored.embeddings("new", DIM, campaign.embed)
    assert np.array_equal(stored.embeddings("new", DIM, refuse_to_embed), rows)


def test_a_reader_sees_whole_states_while_a_writer_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "_WAIT_S", 0.0)
    refs = campaign.open_set(tmp_path)
    command = [sys.executable, str(SCRIPT), "--child", str(tmp_path), "--seed", "3"]
    refs.add([(name, campaign.picture(name)) for name in NAMES])
    seen, deadline = set[int](), time.monotonic() + 30
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=campaign.environment()) as writer:
        assert writer.stdout and writer.stdout.readline()
        while len(seen) < 4 and time.monotonic() < deadline:
            reader = again(refs)
            ids = [reference.id for reference in reader.list()]
            assert ids == sorted(set(ids)) and len(ids) >= 8
            assert [problem for problem in reader.verify() if problem.kind != "orphan"] == []
            assert len(reader.embeddings("campaign", DIM, campaign.embed)) % 5 == 0
            seen.add(len(ids))
        writer.kill()
    assert len(seen) == 4  # the set did change under the reader


def test_a_set_deleted_while_a_writer_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refs = filled(tmp_path, 1)
    waits, sleep, errors = threading.Event(), time.sleep, list[ColorflowError]()

    def add() -> None:
        try:
            refs.add([campaign.picture(NAMES[1])])
        except ColorflowError as error:
            errors.append(error)

    monkeypatch.setattr(time, "sleep", lambda seconds: (waits.set(), sleep(seconds)))
    with WriterLock(refs.folder / "writer.lock", "it"):
        waiting = threading.Thread(target=add)
        waiting.start()
        assert waits.wait(10)
        refs.folder.rename(tmp_path / ".deleted-1")
    waiting.join()
    assert str(errors[0]) == "reference set 'campaign' was deleted by another process meanwhile"


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
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(0)
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


def flip_bit(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


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


@pytest.mark.parametrize("harm", [no_database, cut_short, nothing, header_gone, schema_gone])
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


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    refs = filled(tmp_path, 1)
    with another_writer(refs) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        refs.wait_s = 0
        assert refs.set_tag(1, "free") == 1
