"""Ten kills of a real `colorflow refs add`; `make reliability` does 200. And: would the campaign notice?"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from reference_sets import NAMES, ROOT, campaign, filled, load_script

from colorflow_rt.references import ReferenceSet
from colorflow_rt.references.images import store

SCRIPT = ROOT / "benchmarks" / "reliability_refs_add.py"
command = load_script(SCRIPT)


def test_ten_kills_leave_a_usable_set_that_the_same_command_completes(tmp_path: Path) -> None:
    path = tmp_path / "totals.json"
    for kills in ("4", "10"):  # the second call goes on where the first stopped
        call = [sys.executable, str(SCRIPT), "--json", str(path), "--kills", kills]
        done = subprocess.run(call, env=campaign.environment(), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(path.read_text()) == json.loads(done.stdout.splitlines()[-1])
    totals = json.loads(path.read_text())
    assert (totals["kills"], totals["violations"], len(totals["recovery_seconds"])) == (10, [], 10)
    assert totals["finished_runs"] >= 2
    assert sum(totals["killed_while"].values()) == 10


def lose_a_picture(refs: ReferenceSet) -> None:
    refs.remove(NAMES[0])


def swap_a_picture(refs: ReferenceSet) -> None:
    refs.remove(NAMES[0])
    refs.add([(NAMES[0], campaign.picture("99.png"))])


def damage_a_picture(refs: ReferenceSet) -> None:
    store(refs.folder / "images", refs.list()[0].sha256, refs.picture(NAMES[1]))


def lose_the_set(refs: ReferenceSet) -> None:
    ReferenceSet.delete(refs.name, refs.folder.parent)


@pytest.mark.parametrize(
    ("harm", "finding"),
    [
        (lose_a_picture, "00.png was added and is lost"),
        (swap_a_picture, "00.png shows another picture"),
        (damage_a_picture, "is damaged"),
        (lose_the_set, "the set is gone"),
    ],
)
def test_the_campaign_sees_harm(tmp_path: Path, harm: Callable[[ReferenceSet], None], finding: str) -> None:
    refs = filled(tmp_path)
    assert command.inspect(tmp_path, set(NAMES))[0] == []
    harm(refs)
    assert any(finding in wrong for wrong in command.inspect(tmp_path, set(NAMES))[0])


@pytest.mark.parametrize(
    "said",
    [
        (1, "campaign: 18 added, 12 already there, 0 refused\n", ""),
        (0, "campaign: 30 added, 0 already there, 0 refused\n", ""),
        (0, "campaign: 18 added, 12 already there, 0 refused\n", "note: the index was damaged\n"),
    ],
)
def test_the_campaign_reads_what_a_finished_run_says(tmp_path: Path, said: tuple[int, str, str]) -> None:
    refs = filled(tmp_path / "sets")
    refs.add([(name, campaign.picture(name)) for name in command.NAMES])
    right = command.Said(0, "00.png: already there\ncampaign: 18 added, 12 already there, 0 refused\n", "", 0.0)
    assert command.check_end(tmp_path, set(NAMES), right) == []
    assert len(command.check_end(tmp_path, set(NAMES), command.Said(*said, 0.0))) == 1
    refs.remove(NAMES[0])
    assert any("lost" in wrong for wrong in command.check_end(tmp_path, set(NAMES), right))
