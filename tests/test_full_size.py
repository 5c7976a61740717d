"""The script that takes the full-size model from released folders to pages: the golden networks' way through it."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
LINE = ["released", "convert", "fp16", "fp32", "page-7.5", "engines-7.5", "reference-7.5", "outputs", "half"]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    import full_size

    yield full_size
    sys.path.remove(str(BENCHMARKS))


def begun(script: ModuleType, work: Path, *done: str, graphs: tuple[str, ...] = ()) -> list[str]:
    """Arguments that go on with a small run in which these stages were done."""
    work.mkdir(exist_ok=True)
    state = script.State(work, script.Settings(True, (64, 96), 2, (7.5,), graphs))
    for name in done:
        state.add(name, script.Done(1.0, 1.0, 1.0, 1.0))
    chosen = [word for graph in graphs for word in ("--graph", graph)]
    return ["--work", str(work), "--small", "--guidance", "7.5", *chosen]


def test_the_line_goes_on_with_the_pack_to_the_end(
    script: ModuleType,
    converted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The pack is there already, as after a run that was cut short; what was done is not done again.

    Engines of two graphs only: making the others takes a minute.
    """
    arguments = begun(script, tmp_path, "released", "convert", graphs=("clip_encoder", "vae_encoder"))
    shutil.copytree(converted, tmp_path / "pack")
    (tmp_path / ".pack.killed").mkdir()
    code, out = script.main(arguments), capsys.readouterr()
    record = json.loads(out.out.splitlines()[-1])
    assert (code, record["problems"]) == (0, []), out.err
    assert list(record["stages"]) == [name for name in LINE if name != "engines-7.5"]
    assert not (tmp_path / ".pack.killed").exists()
    fp16, reference, half = (record["stages"][name] for name in ("fp16", "reference-7.5", "half"))
    assert 0 < fp16["disk_gb"] < 0.5
    assert 0.1 < fp16["private_gb"] <= fp16["peak_gb"] < 4
    assert fp16["processor_seconds"] > 1
    assert reference["found"]["psnr_db"]["page"] >= script.PAGE_DB
    assert list(half["found"]["relative"]) == ["clip_encoder image_embeds", "vae_encoder.64x96x1 latents"]
    monkeypatch.setattr(script, "measure", None)
    assert script.main(arguments) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["stages"] == record["stages"]


def test_the_first_stages_are_those_of_the_size(script: ModuleType, tmp_path: Path) -> None:
    full = dict(script.commands(tmp_path, script.Settings(False, (256, 256), 2, (7.5, 1.0))))
    assert list(full) == [*LINE[:4], "page-7.5", *LINE[5:7], "page-1", "engines-1", "reference-1", *LINE[7:]]
    assert "--text" not in full["convert"]
    assert full["convert"][-2:] == ["--size", "256x256"]
    assert [full["fp32"][i + 1] for i, word in enumerate(full["fp32"]) if word == "--guidance"] == ["guided", "prompt"]
    small = dict(script.commands(tmp_path, script.Settings(True, (64, 96), 2, (0.0,))))
    assert small["released"][-1] == "small"
    assert "--text" in small["convert"]
    assert "empty" in small["fp16"]


def test_a_stage_that_takes_too_much_memory_is_ended(script: ModuleType, tmp_path: Path) -> None:
    hungry = [sys.executable, "-c", "import time; taken = bytearray(300_000_000); time.sleep(60)"]
    with pytest.raises(script.StageError, match=r"convert took more than 0.2 GB of memory and was ended: allow more"):
        script.measure("convert", hungry, tmp_path / "log", 0.2)


def test_a_stage_that_fails_names_its_output(script: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "log"
    failing = [sys.executable, "-c", "import sys; print('why'); sys.exit(3)"]
    with pytest.raises(script.StageError, match=r"convert ended with exit code 3: see .*log"):
        script.measure("convert", failing, log, 1)
    assert log.read_text() == "why\n"
    assert script.measure("fp16", failing, log, 1).found == {}  # the checked graphs are there, TensorRT is not
    found = [sys.executable, "-c", "print('{\"a\": 1}')"]
    assert script.measure("half", found, log, 1).found == {"a": 1}


def test_a_failure_keeps_what_was_done(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = begun(script, tmp_path, "released")
    monkeypatch.setattr(script, "commands", lambda work, settings: iter([("convert", [sys.executable, "-c", "1 / 0"])]))
    assert script.main(arguments) == 1
    out = capsys.readouterr()
    assert "error: convert ended with exit code 1" in out.err
    assert list(json.loads(out.out.splitlines()[-1])["stages"]) == ["released"]


def test_other_settings_and_a_small_disk_are_refused(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = begun(script, tmp_path, "released")
    assert script.main([*arguments, "--steps", "3"]) == 2
    assert "was begun with" in capsys.readouterr().err
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=20e9))
    assert script.main(["--work", str(tmp_path / "full")]) == 2
    assert "needs 35.2 GB and its disk has 20.0 GB free: choose another --work" in capsys.readouterr().err


def test_what_is_over_its_limit_is_said(script: ModuleType, tmp_path: Path) -> None:
    state = script.State(tmp_path, script.Settings(True, (64, 96), 2, (7.5,)))
    state.add("reference-1", script.Done(1, 1, 1, 1, found={"psnr_db": {"page": 49.0, "engines": 51.0}}))
    state.add("half", script.Done(1, 1, 1, 1, found={"relative": {"gsrp image": 0.03, "clip": 0.01}}))
    assert script.misses(state) == [
        "page is 49.0 dB from reference-1, expected 50",
        "gsrp image: relative error 3.00e-02 in half, limit 0.02",
    ]
