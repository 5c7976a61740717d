"""ONNX Runtime with bound tensors: on the CPU what it will do on a GPU, and what it says where there is none."""

import numpy as np
import onnxruntime as ort
import pytest
from fixed_graphs import fixed_graphs

from colorflow_rt.denoise import Slot, run
from colorflow_rt.engine import Bindable
from colorflow_rt.engine.onnx_bound import OnnxBoundEngine
from colorflow_rt.errors import EngineError, UnavailableError
from colorflow_rt.pack import open_pack
from colorflow_rt.schedule import Schedule

PAGE = (64, 96)
STATE = ("sample", "x0_prev1", "x0_prev2", "condition")


@pytest.fixture(scope="module")
def graphs(tiny_pack, tmp_path_factory):
    return {graph.graph: graph for graph in fixed_graphs(tiny_pack, tmp_path_factory.mktemp("bound"), PAGE, batch=2)}


def engine_of(graph, device="cpu"):
    return OnnxBoundEngine(graph.path, graph.graph, (graph.inputs, graph.outputs), device=device, threads=1)


def slots_of(pack, steps=5, seed=0):
    config, rng = pack.config, np.random.default_rng(seed)
    schedule = Schedule.create(steps, config.scheduler_config)
    noise = rng.normal(size=(2, 4, 48, 32)).astype(np.float32)
    condition = rng.normal(size=(2, config.model.condition_planes, 48, 32)).astype(np.float32)
    return [Slot(*row, schedule) for row in zip(noise, condition, strict=True)]


@pytest.mark.parametrize("name", ["vae_encoder", "vae_decoder", "clip_encoder"])
def test_calls_give_what_plain_onnx_runtime_gives(graphs, tiny_pack, name):
    engine, expected = engine_of(graphs[name]), open_pack(tiny_pack).engine(name)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        shape = tuple(3 if isinstance(axis, str) else axis for axis in engine.inputs[0].shape)
        feeds = {engine.inputs[0].name: rng.normal(size=shape).astype(np.float32)}
        for key, array in expected(feeds).items():
            np.testing.assert_allclose(engine(feeds)[key], array, rtol=1e-4, atol=1e-4)


def test_results_are_the_caller_s_own(graphs):
    engine = engine_of(graphs["vae_decoder"])
    first = engine({"latents": np.zeros((2, 4, 48, 32), np.float32)})["image"]
    kept = first.copy()
    engine({"latents": np.ones((2, 4, 48, 32), np.float32)})
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_the_loop_gives_what_the_host_loop_gives(graphs, tiny_pack, steps):
    pack, engine = open_pack(tiny_pack), engine_of(graphs["denoise_step"])
    assert isinstance(engine, Bindable)
    seen, wanted = [], []
    expected = run(pack.engine, slots_of(pack, steps), lambda *args: wanted.append(args))
    np.testing.assert_allclose(
        run(lambda graph: engine, slots_of(pack, steps), lambda *args: seen.append(args)), expected, atol=1e-3
    )
    assert [args[:2] for args in seen] == [args[:2] for args in wanted]
    for ours, theirs in zip(seen, wanted, strict=True):
        np.testing.assert_allclose(ours[2], theirs[2], atol=1e-3)


def test_state_stays_where_it_is(graphs, tiny_pack, monkeypatch):
    """Between two steps only the few numbers of the schedule go in, and nothing comes out."""
    pack, engine = open_pack(tiny_pack), engine_of(graphs["denoise_step"])
    feeds = {name: np.stack([slot.feeds()[name] for slot in slots_of(pack)]) for name in slots_of(pack)[0].feeds()}
    with engine.bind(feeds) as loop:
        moved, read = [], []
        update, numpy = ort.OrtValue.update_inplace, ort.OrtValue.numpy
        monkeypatch.setattr(ort.OrtValue, "update_inplace", lambda self, a: (moved.append(a.size), update(self, a)))
        monkeypatch.setattr(ort.OrtValue, "numpy", lambda self: (read.append(1), numpy(self))[1])
        for _ in range(4):
            loop.step(feeds)
        assert max(moved) <= 8
        assert read == []
        loop.x0()
        assert read == [1]


def test_a_page_joins_between_two_steps(graphs, tiny_pack):
    pack, engine = open_pack(tiny_pack), engine_of(graphs["denoise_step"])
    first, late = slots_of(pack, 4, seed=1)[0], slots_of(pack, 4, seed=2)[1]
    wanted = [run(pack.engine, [slots_of(pack, 4, seed=1)[0], slots_of(pack, 4, seed=2)[1]])][0]

    def stacked(*slots):
        return {name: np.stack([slot.feeds()[name] for slot in slots]) for name in slots[0].feeds()}

    with engine.bind(stacked(first, first)) as loop:
        loop.step(stacked(first, first))
        first.step += 1
        loop.join(1, {name: late.feeds()[name] for name in STATE})
        for step in range(4):
            loop.step(stacked(first, late))
            first.step, late.step = min(first.step + 1, 3), late.step + 1
            if step == 2:
                np.testing.assert_allclose(loop.x0()[0], wanted[0], atol=1e-3)
        np.testing.assert_allclose(loop.x0()[1], wanted[1], atol=1e-3)
        with pytest.raises(EngineError, match=r"sample of a row is \[4, 48, 32\], got \[4, 8, 8\]"):
            loop.join(0, {name: np.zeros((4, 8, 8), np.float32) for name in STATE})


def test_there_is_no_fallback_to_the_cpu(graphs):
    for device, provider in (("cuda", "CUDAExecutionProvider"), ("tensorrt", "TensorrtExecutionProvider")):
        if provider not in ort.get_available_providers():
            with pytest.raises(UnavailableError, match=rf"cannot run on {provider}: .*colorflow-rt\[gpu\]") as caught:
                engine_of(graphs["gsrp"], device)
            assert caught.value.exit_code == 3


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_what_a_gpu_session_is_asked_for(graphs, monkeypatch, device):
    """Fixed shapes: CUDA graphs are recorded, no node may go to the CPU. A provider that drops out is told."""
    asked = {}

    class Session:
        def __init__(self, path, options, providers):
            asked.update(providers)
            asked["fallback"] = options.get_session_config_entry("session.disable_cpu_ep_fallback")

        def get_providers(self):
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["TensorrtExecutionProvider", "CUDAExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", Session)
    with pytest.raises(UnavailableError, match=r"did not start \(no GPU, or a driver too old\): use --eng"):
        engine_of(graphs["gsrp"], device)
    assert asked["CUDAExecutionProvider"]["enable_cuda_graph"] == "1"
    assert asked["CUDAExecutionProvider"]["use_tf32"] == "0"
    assert asked["fallback"] == "1"
    assert ("TensorrtExecutionProvider" in asked) == (device == "tensorrt")


def test_open_shapes_cannot_be_bound(graphs, tiny_pack):
    pack = open_pack(tiny_pack)
    config = pack.config.graphs["denoise_step"]
    engine = OnnxBoundEngine(tiny_pack / config.file, "denoise_step", (config.inputs, config.outputs), device="cpu")
    with pytest.raises(EngineError, match="has open shapes"), engine.bind({}):
        pass


def test_files_and_devices_that_are_none(graphs, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(EngineError, match="gsrp cannot be loaded from"):
        OnnxBoundEngine(tmp_path / "broken.onnx", "gsrp", ((), ()), device="cpu")
    with pytest.raises(EngineError, match="device 'tpu' is unknown: choose one of cpu, cuda, tensorrt"):
        engine_of(graphs["gsrp"], "tpu")
