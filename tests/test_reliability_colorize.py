"""Ten kills of a real `colorflow colorize`; `make reliability` does 200. And: would the campaign notice?"""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "reliability_colorize.py"
FINDINGS = ("wrong_files", "damaged_records", "pages_missing", "leftovers", "failed_runs")


def test_ten_kills_leave_no_wrong_file_and_every_job_is_finished(tmp_path):
    path = tmp_path / "report.json"
    command = [sys.executable, str(SCRIPT), "--json", str(path), "--kills"]
    for kills in ("4", "10"):  # the second call goes on where the first stopped
        done = subprocess.run([*command, kills], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(path.read_text()) == json.loads(done.stdout)
    report = json.loads(path.read_text())
    assert report["kills"] == 10
    assert report["finished_runs"] >= 2
    assert [report[name] for name in FINDINGS] == [0] * 5, report["problems"]


@pytest.mark.parametrize(
    ("file", "content", "finding"),
    [
        ("1.png", b"half a fi", "wrong_files"),
        ("stranger.png", b"whole", "wrong_files"),
        (".colorflow/pages/1.json", b'{"state"', "damaged_records"),
        (".colorflow-77.tmp", b"", "leftovers"),
    ],
)
def test_the_campaign_notices_what_should_not_be(tmp_path, file, content, finding):
    campaign = runpy.run_path(str(SCRIPT))
    (tmp_path / ".colorflow" / "pages").mkdir(parents=True)
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"whole")
    expected = campaign["files"](tmp_path)
    report = campaign["load"](tmp_path / "none.json")
    campaign["look"](tmp_path, expected, report, complete=True)
    assert report["problems"] == []
    (tmp_path / file).write_bytes(content)
    campaign["look"](tmp_path, {**expected, "3.png": b"whole"}, report, complete=True)
    assert {name: report[name] for name in FINDINGS} == {**dict.fromkeys(FINDINGS, 0), finding: 1, "pages_missing": 1}
