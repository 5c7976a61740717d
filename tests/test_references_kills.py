"""Reference sets under `kill -9`, and several processes at one set: nothing acknowledged is lost."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from reference_sets import (
    DIM,
    NAMES,
    SCRIPT,
    again,
    campaign,
    filled,
    flip_bit,
    index,
    index_file,
    kinds,
    names,
    refuse_to_embed,
)

from colorflow_rt.errors import ColorflowError, ReferencesError
from colorflow_rt.lock import WriterLock
from colorflow_rt.references import ReferenceSet, database, vectors

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
from colorflow_rt.lock import WriterLock
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


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    refs = filled(tmp_path, 1)
    with another_writer(refs) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        refs.wait_s = 0
        assert refs.set_tag(1, "free") == 1
