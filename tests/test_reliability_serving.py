"""Small versions of the campaigns on scheduler and server (docs/reliability.md); `make reliability` runs them whole."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(script, report, *arguments):
    """A campaign's report; its exit code says whether a promise was broken."""
    command = [sys.executable, str(BENCHMARKS / script), *arguments, "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[0])


@pytest.fixture
def benchmarks(monkeypatch):
    """Modules of benchmarks/, as functions by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return lambda script: runpy.run_path(str(BENCHMARKS / script))


def test_cancels_leave_nothing_and_stop_within_a_step(tmp_path):
    for cancels in (20, 80):  # the second call goes on
        found = run("reliability_cancels.py", tmp_path / "cancels.json", "--cancels", str(cancels))
    assert found["cancels"] == 80 and found["cancelled"] > 10
    assert found["late_steps_most"] <= 1 and found["steps_seen"] > 5
    assert found["slots_held"] == found["pages_held"] == found["never_ended"] == 0


def test_sigterm_under_load_loses_no_page(tmp_path):
    found = run("reliability_serving.py", tmp_path / "drain.json", "drain", "--rounds", "1")
    assert found["admitted"] > 0 and found["refused"] > 0
    assert [found[name] for name in ("lost", "bad_exits", "orphans")] == [0, 0, 0]


def test_kills_lose_no_reference_that_was_confirmed(tmp_path):
    for rounds in ("1", "2"):
        found = run("reliability_serving.py", tmp_path / "kill.json", "kill", "--rounds", rounds)
    assert found["rounds"] == 2
    assert [found[name] for name in ("missing", "unreadable", "not_serving")] == [0, 0, 0]


def test_damaged_requests_crash_nothing(tmp_path):
    arguments = ("fuzz", "--rounds", "120", "--fuzz-round", "120")
    found = run("reliability_serving.py", tmp_path / "fuzz.json", *arguments)
    assert found["rounds"] == 120 and found["crashes"] == found["wrong_status"] == 0
    assert found["codes"]["INVALID_ARGUMENT"] > 60


def test_stalled_clients_cost_little_and_dead_ones_are_noticed(tmp_path):
    found = run("reliability_clients.py", tmp_path / "clients.json", "--clients", "5", "--keepalive-s", "1")
    assert found["open"] == 5 and found["dead_noticed_s"] > 0.5


def test_damaged_files_of_a_set_give_no_wrong_answer(tmp_path):
    for rounds in ("30", "120"):
        found = run("reliability_damage.py", tmp_path / "damage.json", "--rounds", rounds)
    outcomes = found["outcomes"]
    assert sum(sum(counts.values()) for counts in outcomes.values()) == 120
    assert all(set(counts) <= {"noticed", "harmless"} for counts in outcomes.values())
    assert {how.partition(",")[0] for how in outcomes} == {"index", "picture", "database"}


def test_overload_with_bad_clients_is_counted_the_same_on_both_sides(benchmarks, tmp_path):
    process = benchmarks("serverprocess.py")["ServerProcess"]
    flags = ("--max-queue", "2", "--sets", str(tmp_path / "sets"))
    with process(tmp_path / "log", "fake", {"FAKE_STEP_MS": "50"}, *flags) as server:
        url = f"http://{server.address.split(':')[0]}:{server.metrics_port}/metrics"
        load = ["--server", server.address, "--metrics", url, "--seconds", "2.5", "--together", "2"]
        bad = ["--cancel", "0.2", "--garbage", "0.1", "--vanish", "0.05"]
        picture = tmp_path / "load.png"
        found = run("load.py", tmp_path / "load.json", *load, *bad, "--overload", "--picture", str(picture))
    assert found["metrics"]["different"] == {}
    assert found["loads"]["4"]["refused"] > 0 and found["loads"]["4"]["refusals_without_retry_info"] == 0
    assert found["loads"]["4"]["finished"] > 0
    assert picture.stat().st_size > 1000


def test_the_soak_sees_a_leak_and_nothing_where_there_is_none(benchmarks):
    slope = benchmarks("reliability_soak.py")["slope"]
    chance, pages = np.random.default_rng(0), np.arange(1800.0)
    noise = chance.normal(0, 200, 1800).cumsum() * 0.05 + chance.normal(0, 300, 1800)
    steady = slope(list(zip(pages, 1e5 + noise, strict=True)))
    leaking = slope(list(zip(pages, 1e5 + noise + 64 * pages, strict=True)))
    assert leaking["lower_kib"] > 50 and abs(leaking["slope_kib"] - 64) < 2
    assert steady["upper_kib"] < 0.1 * leaking["slope_kib"]


def test_the_campaign_notices_what_should_not_be(benchmarks):
    serving = benchmarks("reliability_serving.py")
    report = {"rounds": 1, "lost": 0, "not_serving_s": [0.1], "peak_rss_mb": 5.0}
    serving["add"](report, {"rounds": 1, "lost": 2, "not_serving_s": [0.2], "peak_rss_mb": 4.0, "error": "x"})
    assert report == {"rounds": 2, "lost": 2, "not_serving_s": [0.1, 0.2], "peak_rss_mb": 5.0, "errors": ["x"]}
    mismatches = benchmarks("load.py")["mismatches"]
    call = benchmarks("loadgen.py")["Call"]("id", "good", 4, 0.0, code="OK")
    sample = 'colorflow_requests_total{code="OK",method="Colorize"}'
    assert mismatches({sample: 3.0}, {sample: 4.0}, [call])["different"] == {}
    assert mismatches({sample: 3.0}, {sample: 5.0}, [call])["different"] == {"more than calls": 1}
    assert mismatches({sample: 3.0}, {sample: 3.0}, [call])["different"] == {"OK": -1}


def test_policies_simulated(benchmarks, tmp_path):
    scheduling = benchmarks("scheduling.py")
    rows = scheduling["compare"](300, 1, (0.8,))
    assert len(rows) == 18
    found = {(row["curve"], row["mix"][:5], row["policy"]): row for row in rows}
    for curve in ("no gain", "10 % gain", "2x gain"):
        ours, whole, fifo = (found[curve, "mixed", policy] for policy in ("continuous", "whole", "fifo"))
        for figure in ("short_p95", "preview_p95"):
            assert ours[figure] < whole[figure] and ours[figure] < fifo[figure]
        assert ours["throughput"] > 0.99 * max(whole["throughput"], fifo["throughput"])
    assert found["no gain", "equal", "fifo"]["page_p95"] < found["no gain", "equal", "continuous"]["page_p95"]
    scheduling["picture"](rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
