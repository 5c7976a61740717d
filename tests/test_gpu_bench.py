"""The scripts for a machine with a GPU, small and on the CPU: every variant that can run here, results, and limits."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fixed_graphs import fixed_graphs, record_of
from PIL import Image

from colorflow_rt.engine_set import EngineManifest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def importable():
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def options(tmp_path, **changes):
    known = {
        "device": "cpu",
        "small": True,
        "page": None,
        "steps": 1,
        "compile": False,
        "engines": [],
        "budget": 100,
        "repeat": 1,
    }
    return SimpleNamespace(**(known | {"reserve": 0, "out": tmp_path / "results" / "gpu"} | changes))


def test_the_script_runs_and_leaves_its_results(tmp_path):
    out = tmp_path / "gpu"
    arguments = ["--small", "--device", "cpu", "--no-compile", "--steps", "1", "--repeat", "1", "--out", str(out)]
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([BENCHMARKS / "gpu.sh", *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout.splitlines()[-1])
    assert record == json.loads(out.with_suffix(".json").read_text())
    assert list(record["variants"]) == ["reference, eager", "ours, eager", "ours, no guidance, eager"]
    for variant in record["variants"].values():
        assert variant["seconds"]["median"] > 0
        assert set(variant["stages"]) == {"vae_encode", "denoise", "vae_decode", "gsrp"}
        assert 0 < variant["share"] < 1.5
    assert set(record["precision"]) == {"vae_encode", "denoise", "vae_decode", "gsrp"}
    for error in record["precision"].values():
        assert error["finite"]
        assert error["relative"] < 0.02
        assert error["cosine"] > 0.999
    with Image.open(out.with_suffix(".png")) as plot:
        assert plot.size[0] == 1100


def test_ours_computes_what_the_reference_does():
    from gpu_networks import Size, stages

    size = Size((32, 32), True)
    modules, inputs = size.networks("cpu"), size.inputs("cpu")
    with torch.inference_mode():
        reference, ours, unguided = (
            stages(modules, name, 1)[1].run(inputs) for name in ("reference", "ours", "unguided")
        )
        p, d = inputs["predictor"][0], inputs["denoiser"][0]
        x = p[0] * inputs["sample"] + p[1] * inputs["x0_prev1"] + p[2] * inputs["x0_prev2"]
        reference = stages(modules, "reference", 1)[1].run(inputs | {"sample": x})
    torch.testing.assert_close(ours[1], d[0] * x + d[1] * reference, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(unguided[1], ours[1], atol=1e-3)


def test_counts_of_the_full_size_are_those_of_the_facts():
    """TFLOP of a 1024x1600 canvas: a guided reference step 36, ours 27, unguided 18; encode 8.1, decode 16.8."""
    from gpu_networks import Size, flops

    counted = {name: flops(Size((512, 800), False), name, 1) for name in ("reference", "ours", "unguided")}
    for name, expected in (("reference", 36), ("ours", 27), ("unguided", 18)):
        assert counted[name]["denoise"] == pytest.approx(expected, rel=0.05)
    assert counted["ours"]["vae_encode"] == pytest.approx(8.1, rel=0.05)
    assert counted["ours"]["vae_decode"] == pytest.approx(16.8, rel=0.05)
    assert counted["reference"]["vae_encode"] == pytest.approx(4 * counted["ours"]["vae_encode"])


def test_engines_of_a_folder_are_measured(tiny_pack, tmp_path, monkeypatch):
    import gpu

    graphs = fixed_graphs(tiny_pack, tmp_path, (64, 96))
    weights = graphs[0].weights
    manifest = EngineManifest(1, "tiny", "0" * 64, "onnx-cpu", "float32", 20, weights, tuple(map(record_of, graphs)))
    (tmp_path / "engines.toml").write_text(manifest.to_toml())
    monkeypatch.setattr(gpu, "variants", lambda *args: {})  # the networks themselves are another test
    monkeypatch.setattr(gpu, "precision", lambda *args: {})
    run = gpu.Run(options(tmp_path, page=(64, 96), engines=[tmp_path]))
    run.all()
    variant = run.record["variants"]["onnx-cpu float32"]
    assert set(variant["stages"]) == {"vae_encode", "denoise", "vae_decode", "gsrp"}
    assert variant["seconds"]["median"] > 0


def test_what_cannot_run_or_has_no_time_is_named_and_the_rest_goes_on(tmp_path, capsys):
    from gpu import Run, _table

    run = Run(options(tmp_path))

    def broken():
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB")

    run.one("too large", broken)
    run.ends = 0
    run.one("too late", lambda: pytest.fail("was begun"))
    record = json.loads((tmp_path / "results" / "gpu.json").read_text())
    assert record["variants"]["too large"] == {
        "skipped": "OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB"
    }
    assert record["variants"]["too late"]["skipped"].endswith("s were left of 100")
    assert "too large" in _table(record)
    assert "not run: OutOfMemoryError" in _table(record)


def test_averaged_weights_travel_in_small_files(tmp_path, monkeypatch):
    import gpu_train
    from colorflow_export.train.loop import checkpoint_path, save

    work, out, again = tmp_path / "work", tmp_path / "out", tmp_path / "again"
    work.mkdir()
    ema = {"weight": torch.randn(300, 100), "running_var": torch.tensor([1e6, 2.0]), "count": torch.tensor(3.0)}
    save(checkpoint_path(work, "unet"), {"model": {}, "ema": ema, "optimizer": {}, "step": 7})
    monkeypatch.setattr(gpu_train, "PART", 25_000)
    for _ in range(2):  # a second chunk takes the place of the first
        parts = gpu_train.give_back(work, out)
    assert [part.name for part in parts] == ["unet.ema.1of3", "unet.ema.2of3", "unet.ema.3of3"]
    assert max(part.stat().st_size for part in parts) <= 25_000
    assert gpu_train.take_up(out, again) == ["unet"]
    state = torch.load(checkpoint_path(again, "unet"), weights_only=True)
    assert (state["optimizer"], state["step"]) == (None, 0)
    torch.testing.assert_close(state["ema"]["weight"], ema["weight"], rtol=1e-3, atol=1e-3)
    assert state["model"]["running_var"].tolist() == [1e6, 2.0]
    assert gpu_train.take_up(out, again) == []  # a checkpoint is left alone
    parts[1].unlink()
    checkpoint_path(again, "unet").unlink()
    with pytest.raises(SystemExit, match="has 2 of 3 parts of unet: copy them all"):
        gpu_train.take_up(out, again)


@pytest.mark.slow
def test_a_chunk_of_training_gives_back_weights(tmp_path):
    """The whole script on one drawn chapter, a step of the VAE."""
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "CHAPTERS": "1", "MINUTES": "1"}
    out = tmp_path / "out"
    done = subprocess.run(
        [BENCHMARKS / "gpu_train.sh", "vae", str(out), "--steps", "1", "--batch", "1"],
        env=environment | {"WORK": str(tmp_path / "work")}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "started from averaged weights: none" in done.stdout
    assert [path.name for path in out.iterdir()] == ["vae.ema.1of1"]
    assert next(out.iterdir()).stat().st_size < 16_000_000
