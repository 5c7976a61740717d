"""The compiler on the stand-in: what is built, kept, built again, refused; two builds at once; nothing half written."""

import json
import multiprocessing
import os
import threading
import time

import numpy as np
import pytest
from colorflow_export import to_tensorrt
from colorflow_export.to_tensorrt import LOCK, BuildOptions, build
from cuda_standin import Cuda
from fixed_graphs import fixed_graphs, record_of
from trt_standin import TensorRT

from colorflow_rt.engine.plans import MANIFEST, Manifest
from colorflow_rt.engine.tensorrt import TensorRTRuntime
from colorflow_rt.errors import EngineError, OptionError, OutputError, UnavailableError
from colorflow_rt.files import TEMPORARY, file_sha256
from colorflow_rt.lock import WriterLock

PAGE = (64, 96)


@pytest.fixture
def graphs(tiny_pack, tmp_path):
    return fixed_graphs(tiny_pack, tmp_path, PAGE, ["vae_decoder", "clip_encoder"])


@pytest.fixture
def trt(monkeypatch):
    return TensorRT().install(monkeypatch)


def notes(graphs, **options):
    return [built.note for built in build(graphs, graphs[0].path.parent, BuildOptions(**options))]


@pytest.mark.parametrize("version", ["10.16.1.11", "11.4.0.106"])
def test_one_code_path_for_both_versions(monkeypatch, graphs, version):
    trt = TensorRT(version).install(monkeypatch)
    folder = graphs[0].path.parent
    built = build(graphs, folder)
    assert [each.path.name for each in built] == ["clip_encoder.64x96.plan", "vae_decoder.64x96.plan"]
    assert all(each.path.is_file() and "it was not built yet" in each.note for each in built)
    plans = Manifest.read(folder).plans
    assert set(plans) == {"clip_encoder.64x96.onnx", "vae_decoder.64x96.onnx"}
    plan = plans["vae_decoder.64x96.onnx"]
    assert (plan.origin.tensorrt, plan.origin.compute_capability, plan.gpu) == (version, "9.0", "NVIDIA H200")
    assert plan.origin.weights == {"weights.safetensors": file_sha256(folder / "weights.safetensors")}
    assert plan.origin.profile["latents"] == ((1, 4, 48, 32),) * 3
    assert plans["clip_encoder.64x96.onnx"].origin.profile["pixel_values"][2][0] == 16
    assert plan.sha256 == file_sha256(folder / plan.file)
    assert plan.scratch >= 4096
    assert trt.log.count("build") == 2


def test_an_engine_that_fits_is_kept(trt, graphs):
    notes(graphs)
    del trt.log[:]
    assert all(note.endswith("kept, it fits") for note in notes(graphs))
    assert trt.log == []  # nothing was even read by TensorRT


def test_what_is_stale_foreign_or_damaged_is_named_and_built_again(monkeypatch, trt, graphs):
    """The stand-in fails on any plan that is not of its version, GPU and making."""
    folder, plan = graphs[1].path.parent, graphs[1].path.with_suffix(".plan")
    notes(graphs)
    plan.write_bytes(plan.read_bytes()[:-1] + b"!")
    assert "it is damaged: SHA-256" in notes(graphs)[1]
    plan.unlink()
    assert "its file cannot be read (No such file" in notes(graphs)[1]
    assert "it was built with other settings" in notes(graphs, level=2)[1]
    TensorRT("10.16.1.11").install(monkeypatch)
    assert "it was built by TensorRT 11.4.0.106, here is 10.16.1.11" in notes(graphs, level=2)[1]
    TensorRT("10.16.1.11", Cuda(compute=(8, 6))).install(monkeypatch)
    assert "compute capability 9.0, here is 8.6" in notes(graphs, level=2)[1]
    assert "it was asked for" in notes(graphs, level=2, force=True)[1]
    object.__setattr__(graphs[1], "weights", {"weights.safetensors": "0" * 64})
    assert "its graph or weights have changed" in notes(graphs, level=2)[1]
    assert Manifest.read(folder).plans["vae_decoder.64x96.onnx"].gpu == "NVIDIA H200"


def test_foreign_plans_are_refused_at_run_time_before_tensorrt_sees_them(monkeypatch, trt, graphs):
    build(graphs, graphs[0].path.parent)
    other = TensorRT("11.4.0.106", Cuda(compute=(12, 0))).install(monkeypatch)
    with pytest.raises(
        EngineError, match=r"vae_decoder.64x96.plan cannot be used: .*9\.0, here is 12\.0; build it aga"
    ):
        TensorRTRuntime(graphs[0].path.parent).load(record_of(graphs[1]))
    assert other.log == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"full": ("Conv",)}, r"layers compute in float32 \("),
        ({"reformats": 500}, "500 of .* layers only reorder memory"),
    ],
)
def test_an_engine_that_is_not_what_was_asked_for_is_not_installed(monkeypatch, graphs, fault, message):
    TensorRT(**fault).install(monkeypatch)
    object.__setattr__(graphs[1], "precision", "float16")
    with pytest.raises(
        EngineError, match="the engine of vae_decoder.64x96.onnx is not what was asked for: .*" + message
    ):
        build(graphs[1:], graphs[1].path.parent)
    assert not graphs[1].path.with_suffix(".plan").exists()
    assert Manifest.read(graphs[1].path.parent).plans == {}
    layers = json.loads(graphs[1].path.with_suffix(".layers.json").read_text())["Layers"]
    assert len(layers) > 10  # to look at
    build(graphs[1:], graphs[1].path.parent, BuildOptions(check=False))


def test_no_memory_to_build_says_which_option_lowers_it(monkeypatch, graphs):
    TensorRT(fails=True).install(monkeypatch)
    with pytest.raises(
        EngineError, match=r"TensorRT cannot build .*OutOfMemory.*lower --workspace-gb \(now 2\)"
    ) as caught:
        notes(graphs, workspace_gb=2)
    assert "\n" not in str(caught.value)


def test_a_graph_that_tensorrt_cannot_parse_or_that_changed(trt, graphs):
    graphs[1].path.write_bytes(b"not onnx")
    with pytest.raises(EngineError, match="has changed since it was checked: run build-engines again"):
        build(graphs[1:], graphs[1].path.parent)
    object.__setattr__(graphs[1], "sha256", file_sha256(graphs[1].path))
    with pytest.raises(EngineError, match=r"TensorRT cannot parse vae_decoder.64x96.onnx: ") as caught:
        build(graphs[1:], graphs[1].path.parent)
    assert "\n" not in str(caught.value)


def test_the_timing_cache_is_kept_and_a_bad_one_is_no_fault(trt, graphs):
    folder = graphs[0].path.parent
    notes(graphs)
    cache = folder / "timing-11.4.0.106-9.0.cache"
    assert cache.read_bytes() == b"measured"
    cache.write_bytes(b"bad")
    notes(graphs, force=True)
    assert cache.read_bytes() == b"measured"
    cache.unlink()
    notes(graphs, force=True, timing_cache=False)
    assert not cache.exists()


def test_a_full_disk_leaves_the_old_engine(monkeypatch, trt, graphs):
    notes(graphs)
    plan = graphs[1].path.with_suffix(".plan")
    before = plan.read_bytes(), Manifest.read(plan.parent)

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(to_tensorrt.Path, "write_bytes", full)
    with pytest.raises(OutputError, match="the disk is full"):
        notes(graphs, force=True)
    assert (plan.read_bytes(), Manifest.read(plan.parent)) == before
    assert not list(plan.parent.glob(TEMPORARY))


def test_two_builds_at_once(trt, graphs, monkeypatch):
    """The second waits, then names the first; nothing is built meanwhile."""
    folder = graphs[0].path.parent
    monkeypatch.setattr(to_tensorrt, "WriterLock", lambda *args, error: WriterLock(*args, wait_s=0.2, error=error))
    with WriterLock(folder / LOCK, "x"):
        with pytest.raises(OutputError, match=rf"the engines in .* being written by pid {os.getpid()}.*try again when"):
            build(graphs, folder)
        assert trt.log == []
    build(graphs, folder)


def _hold(folder, held, ended):
    with WriterLock(folder / LOCK, "x"):
        held.set()
        ended.wait()


def test_a_build_waits_for_another_process(trt, graphs):
    folder, context = graphs[0].path.parent, multiprocessing.get_context("spawn")
    held, ended = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(folder, held, ended))
    process.start()
    held.wait()
    started = time.monotonic()
    threading.Timer(0.5, ended.set).start()
    build(graphs, folder)
    assert time.monotonic() - started >= 0.4
    process.join()


def test_built_engines_run(trt, graphs):
    folder = graphs[0].path.parent
    build(graphs, folder)
    engine = TensorRTRuntime(folder).load(record_of(graphs[1]))
    assert np.isfinite(engine({"latents": np.zeros((1, 4, 48, 32), np.float32)})["image"]).all()
    assert (folder / MANIFEST).is_file()


def test_without_a_gpu(monkeypatch, graphs):
    TensorRT(cuda=Cuda(devices=0)).install(monkeypatch)
    with pytest.raises(UnavailableError, match="TensorRT needs an NVIDIA GPU"):
        build(graphs, graphs[0].path.parent)
    assert to_tensorrt.missing().startswith("TensorRT needs an NVIDIA GPU")
    assert graphs[0].path.is_file()


@pytest.mark.parametrize("options", [{"level": 6}, {"level": -1}, {"workspace_gb": 0}, {"workspace_gb": float("nan")}])
def test_options_out_of_range(options):
    with pytest.raises(OptionError, match=r"is .*, expected 0"):
        BuildOptions(**options)
