"""`colorflow bench` on the fake pack: the record, the table, and what is left out without torch."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from colorflow_rt import bench
from colorflow_rt.bench import BenchOptions
from colorflow_rt.cli.commands import colorflow
from colorflow_rt.errors import OptionError

KEYS = {
    "seconds_per_page", "reference_seconds_per_page", "ratio", "psnr_to_reference_db",
    "peak_rss_mb", "stages", "hardware",
}  # fmt: skip


def test_last_line_is_the_record_and_equals_the_file(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    arguments = ["bench", "--pack", "fake", "--size", "96x128", "--repeat", "2", "--no-reference", "--json", str(file)]
    done = CliRunner().invoke(colorflow, arguments)
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout.splitlines()[-1])
    assert record == json.loads(file.read_text())
    assert record.keys() >= KEYS


def test_without_torch_the_reference_keys_are_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    record = bench.bench(BenchOptions(pack="fake", size=(96, 128), repeat=1))
    assert record["reference_seconds_per_page"] is None
    assert record["ratio"] is None
    assert record["psnr_to_reference_db"] is None


def test_a_page_takes_as_long_as_its_stages() -> None:
    record = bench.bench(BenchOptions(pack="fake", size=(96, 128), repeat=1, reference=False))
    stages = sum(stage["median"] for stage in record["stages"].values())
    assert record["seconds_per_page"] == pytest.approx(stages)
    assert record["peak_rss_mb"] > 10
    assert {"denoise", "vae_encode", "gsrp"} <= record["stages"].keys()


def test_repeat_must_be_positive() -> None:
    with pytest.raises(OptionError, match="repeat is 0"):
        BenchOptions(repeat=0)
