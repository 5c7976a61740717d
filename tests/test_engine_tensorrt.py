"""The TensorRT backend on the stand-in: right results, the documented order of calls, no waiting in the loop."""

import sys
import threading

import numpy as np
import pytest
from colorflow_export.to_tensorrt import build
from cuda_standin import Cuda
from fixed_graphs import fixed_graphs, record_of
from trt_standin import TensorRT

from colorflow_rt.denoise import Slot, denoise, run
from colorflow_rt.engine.tensorrt import TensorRTRuntime, missing
from colorflow_rt.errors import Cancelled, EngineError, UnavailableError
from colorflow_rt.metrics import psnr
from colorflow_rt.pack import Pack, open_pack
from colorflow_rt.pipeline import Colorizer
from colorflow_rt.schedule import Schedule

PAGE = (64, 96)


@pytest.fixture(scope="module")
def graphs(tiny_pack, tmp_path_factory):
    return fixed_graphs(tiny_pack, tmp_path_factory.mktemp("engines"), PAGE)


@pytest.fixture(params=["10.16.1.11", "11.4.0.106"])
def trt(request, monkeypatch):
    return TensorRT(request.param).install(monkeypatch)


@pytest.fixture
def new_trt(monkeypatch):
    return TensorRT().install(monkeypatch)


def runtime_of(graphs):
    folder = graphs[0].path.parent
    build(graphs, folder)
    return TensorRTRuntime(folder)


def engine_of(graphs, name):
    graph = next(graph for graph in graphs if graph.graph == name)
    return runtime_of([graph]).load(record_of(graph))


def random_feeds(engine, seed=0, batch=1):
    rng = np.random.default_rng(seed)
    feeds = {}
    for spec in engine.inputs:
        shape = tuple(batch if isinstance(axis, str) else axis for axis in spec.shape)
        values = rng.integers(1, 900, shape) if spec.dtype == "int64" else rng.normal(size=shape)
        feeds[spec.name] = values.astype(spec.dtype)
    return feeds


def slots_of(pack, count=1, steps=4, seed=0):
    config, rng = pack.config, np.random.default_rng(seed)
    h, w = PAGE[1] * 2 // config.model.vae_factor, PAGE[0] * 2 // config.model.vae_factor
    schedule = Schedule.create(steps, config.scheduler_config)
    noise = rng.normal(size=(count, config.model.latent_channels, h, w)).astype(np.float32)
    condition = rng.normal(size=(count, config.model.condition_planes, h, w)).astype(np.float32)
    return [Slot(*row, schedule) for row in zip(noise, condition, strict=True)]


@pytest.mark.parametrize("name", ["vae_encoder", "denoise_step", "vae_decoder", "gsrp"])
def test_every_graph_gives_what_onnx_runtime_gives(trt, graphs, tiny_pack, name):
    engine, expected = engine_of(graphs, name), open_pack(tiny_pack).engine(name)
    for seed in (0, 1, 2):  # plain, then replayed twice
        feeds = random_feeds(engine, seed)
        found, wanted = engine(feeds), expected(feeds)
        assert found.keys() == wanted.keys()
        for key in wanted:
            np.testing.assert_allclose(found[key], wanted[key], rtol=1e-4, atol=1e-4)
    assert [call for call, *_ in trt.cuda.log].count("cudaGraphLaunch") == 2


@pytest.mark.parametrize("batch", [1, 4, 16, 21])
def test_an_open_batch_is_cut_to_what_the_profile_allows(new_trt, graphs, tiny_pack, batch):
    engine = engine_of(graphs, "clip_encoder")
    feeds = random_feeds(engine, batch=batch)
    wanted = open_pack(tiny_pack).engine("clip_encoder")(feeds)["image_embeds"]
    np.testing.assert_allclose(engine(feeds)["image_embeds"], wanted, rtol=1e-4, atol=1e-4)


def test_results_are_the_caller_s_own(new_trt, graphs):
    engine = engine_of(graphs, "vae_decoder")
    first = engine(random_feeds(engine, 0))["image"]
    kept = first.copy()
    engine(random_feeds(engine, 1))
    assert np.array_equal(first, kept)


def test_the_loop_gives_what_the_host_loop_gives(trt, graphs, tiny_pack):
    pack, engine = open_pack(tiny_pack), engine_of(graphs, "denoise_step")
    wanted = run(pack.engine, slots_of(pack))
    for _ in range(2):  # the second takes up the first one's memory and graph
        np.testing.assert_allclose(run(lambda graph: engine, slots_of(pack)), wanted, rtol=1e-3, atol=1e-3)


def test_the_loop_waits_for_nothing(new_trt, graphs, tiny_pack):
    """Between the first step and the result no call waits for the stream; only a host two steps ahead is held."""
    pack, engine, cuda = open_pack(tiny_pack), engine_of(graphs, "denoise_step"), new_trt.cuda
    run(lambda graph: engine, slots_of(pack))
    del cuda.log[:]
    run(lambda graph: engine, slots_of(pack, steps=6))
    calls = [name for name, *_ in cuda.log]
    assert calls.count("cudaGraphLaunch") == 6
    assert "cudaStreamSynchronize" not in calls
    assert "cudaMalloc" not in calls
    assert "cudaMallocHost" not in calls
    copies = [kind for name, kind, *_ in (call for call in cuda.log if call[0] == "cudaMemcpyAsync")]
    assert copies.count("cudaMemcpyDeviceToHost") == 1  # the result
    assert copies.count("cudaMemcpyHostToDevice") == 4 + 6  # the start, and a few numbers each step


def test_the_host_is_never_more_than_two_steps_ahead(new_trt, graphs, tiny_pack):
    pack, engine, cuda = open_pack(tiny_pack), engine_of(graphs, "denoise_step"), new_trt.cuda
    run(lambda graph: engine, slots_of(pack))
    asked = []

    def cancelled():
        asked.append(sum(len(stream.queue) > 0 for stream in cuda.streams))
        return len(asked) > 4

    before = new_trt.log.count("execute")
    with pytest.raises(Cancelled, match="cancelled after 4 of 10 steps"):
        run(lambda graph: engine, slots_of(pack, steps=10), None, cancelled)
    assert new_trt.log.count("execute") == before  # all were replays
    launched = [call for call in cuda.log if call[0] == "cudaEventSynchronize"]
    assert any(not passed for _, passed in launched), "the host was never held back"
    wanted = run(pack.engine, slots_of(pack))
    np.testing.assert_allclose(run(lambda graph: engine, slots_of(pack)), wanted, rtol=1e-3, atol=1e-3)


def test_previews_come_in_order_and_are_those_of_the_host_loop(new_trt, graphs, tiny_pack):
    pack, engine = open_pack(tiny_pack), engine_of(graphs, "denoise_step")
    found, wanted = [], []
    run(pack.engine, slots_of(pack, steps=6), lambda *args: wanted.append(args))
    run(lambda graph: engine, slots_of(pack, steps=6), lambda *args: found.append(args))
    assert [args[:2] for args in found] == [args[:2] for args in wanted] == [(i, 6) for i in range(1, 7)]
    for (_, _, ours), (_, _, theirs) in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_previews_leave_beside_the_steps(new_trt, graphs, tiny_pack):
    """They go by another stream, and use page-locked memory again instead of taking more."""
    pack, engine, cuda = open_pack(tiny_pack), engine_of(graphs, "denoise_step"), new_trt.cuda
    run(lambda graph: engine, slots_of(pack), lambda *args: None)
    had = len(cuda.pinned)
    run(lambda graph: engine, slots_of(pack, steps=20), lambda *args: None)
    assert len(cuda.pinned) <= had + 3


def test_a_page_joins_between_two_steps(new_trt, tiny_pack, tmp_path):
    """Two rows at different steps: the second is replaced after two steps, the first goes on undisturbed."""
    pack = open_pack(tiny_pack)
    graph = fixed_graphs(tiny_pack, tmp_path, PAGE, ["denoise_step"], batch=2)
    engine = runtime_of(graph).load(record_of(graph[0]))
    first, gone, late = slots_of(pack, 1, seed=1)[0], slots_of(pack, 1, seed=2)[0], slots_of(pack, 1, seed=3)[0]
    wanted = [run(pack.engine, slots_of(pack, 1, seed=seed))[0] for seed in (1, 3)]

    def stacked(*slots):
        rows = [slot.feeds() for slot in slots]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    with engine.bind(stacked(first, gone)) as loop:
        for _ in range(2):
            loop.step(stacked(first, gone))
            first.step, gone.step = first.step + 1, gone.step + 1
        loop.join(1, {name: late.feeds()[name] for name in ("sample", "x0_prev1", "x0_prev2", "condition")})
        for step in range(4):
            loop.step(stacked(first, late))
            first.step, late.step = min(first.step + 1, 3), late.step + 1
            if step == 1:
                np.testing.assert_allclose(loop.x0()[0], wanted[0], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(loop.x0()[1], wanted[1], rtol=1e-3, atol=1e-3)


def test_a_row_that_is_taken_twice_in_a_moment(new_trt, graphs, tiny_pack):
    """The first page's numbers must reach the device before the second one's take their place in host memory."""
    pack, engine = open_pack(tiny_pack), engine_of(graphs, "denoise_step")
    first, second = ({name: array[None] for name, array in slots_of(pack, seed=s)[0].feeds().items()} for s in (1, 2))
    wanted = pack.engine("denoise_step")({spec.name: first[spec.name] for spec in engine.inputs})["x0"]
    with engine.bind(second) as loop:
        loop.step(second)
        loop.join(0, {name: first[name][0] for name in ("sample", "x0_prev1", "x0_prev2", "condition")})
        loop.step(first)
        shown = loop.preview()
        loop.join(0, {name: second[name][0] for name in ("sample", "x0_prev1", "x0_prev2", "condition")})
        loop.step(second)
        np.testing.assert_allclose(shown.wait(), wanted, rtol=1e-3, atol=1e-3)


def test_a_row_of_another_shape_is_refused(new_trt, graphs, tiny_pack):
    pack, engine = open_pack(tiny_pack), engine_of(graphs, "denoise_step")
    feeds = {name: array[None] for name, array in slots_of(pack)[0].feeds().items()}
    refused = pytest.raises(EngineError, match=r"a row, takes sample float32\[4, 48, 32\], got float32\[1, 32\]")
    with engine.bind(feeds) as loop, refused:
        loop.join(0, {name: feeds[name][0, 0, :1] for name in ("sample", "x0_prev1", "x0_prev2", "condition")})


def test_scratch_memory_is_shared_and_grows_for_all(new_trt, graphs):
    """Loading a larger engine moves the scratch memory: graphs captured before are captured anew."""
    runtime, cuda = runtime_of(graphs), new_trt.cuda
    engines = [runtime.load(record_of(graph)) for graph in graphs]
    wanted = {}
    for engine in engines:
        wanted[engine.graph] = engine(random_feeds(engine))
        engine(random_feeds(engine))
    for engine in engines:
        for key, array in engine(random_feeds(engine)).items():
            np.testing.assert_array_equal(array, wanted[engine.graph][key])
    sizes = {engine._engine.device_memory_size_v2 for engine in engines}
    assert len(sizes) > 1
    assert sum(len(block) in sizes for block in cuda.memory.values()) == 1  # one for all


def test_several_threads_and_a_loop_at_once(new_trt, graphs, tiny_pack):
    """Each loop has its own tensors; calls and steps share one stream."""
    pack, runtime = open_pack(tiny_pack), runtime_of(graphs)
    engines = {graph.graph: runtime.load(record_of(graph)) for graph in graphs}
    wanted = [run(pack.engine, slots_of(pack, seed=seed)) for seed in range(3)]
    found, errors = {}, []

    def work(seed):
        try:
            decoder = engines["vae_decoder"]
            found[seed] = run(
                engines.__getitem__, slots_of(pack, seed=seed), lambda *args: decoder({"latents": args[2]})
            )
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    for seed, array in found.items():
        np.testing.assert_allclose(array, wanted[seed], rtol=1e-3, atol=1e-3)


class Source:
    """A pack's engines from a folder of plans."""

    reuses = False

    def __init__(self, graphs):
        self._runtime, self._graphs = runtime_of(graphs), {graph.graph: graph for graph in graphs}

    def load(self, graph):
        return self._runtime.load(record_of(self._graphs[graph]))

    def verify(self):
        pass

    def encoder_hashes(self):
        return ["tensorrt"]


def test_a_whole_page(trt, graphs, tiny_pack):
    rng = np.random.default_rng(4)
    page = rng.integers(0, 256, (96, 64), np.uint8)
    references = [rng.integers(0, 256, (90, 70, 3), np.uint8) for _ in range(2)]
    shown = []
    ours = Colorizer(Pack(open_pack(tiny_pack).config, Source(graphs)))
    result = ours.colorize(page, references, on_preview=lambda *args: shown.append(args[1]))
    wanted = Colorizer(tiny_pack).colorize(page, references)
    assert psnr(wanted.model_image, result.model_image) > 60
    assert np.isfinite(result.image).all()


def test_loops_that_are_not_finite_are_told(new_trt, graphs, tiny_pack):
    pack, engine = open_pack(tiny_pack), engine_of(graphs, "denoise_step")
    slots = slots_of(pack)
    slots[0].condition[0, 0, 0] = np.nan
    with pytest.raises(EngineError, match="not finite by step 4 of 4"):
        run(lambda graph: engine, slots)


def test_denoise_takes_the_loop(new_trt, graphs, tiny_pack):
    pack, engine = open_pack(tiny_pack), engine_of(graphs, "denoise_step")
    slot = slots_of(pack)[0]
    denoise(lambda graph: engine, slot.sample[None], slot.condition[None], slot.schedule)
    assert ("cudaGraphLaunch",) in new_trt.cuda.log


# --- what can be wrong


def test_out_of_device_memory_says_how_much_and_what_to_do(monkeypatch, graphs):
    trt = TensorRT().install(monkeypatch)
    runtime = runtime_of(graphs)
    trt.cuda.capacity = 1000
    graph = next(graph for graph in graphs if graph.graph == "denoise_step")
    with pytest.raises(EngineError, match=r"out of device memory: denoise_step, for its weights, needs 0.00 MB, 0.00"):
        runtime.load(record_of(graph))
    trt.cuda.capacity = 10_000
    engine = runtime.load(record_of(graph))
    with pytest.raises(EngineError, match=r"denoise_step, for its inputs and outputs, needs 0\.\d+ MB.*--size"):
        engine(random_feeds(engine))


@pytest.mark.parametrize("capacity", [150_000, 400_000])
def test_memory_that_ran_out_can_be_had_later(monkeypatch, graphs, capacity):
    trt = TensorRT(cuda=Cuda(capacity=capacity)).install(monkeypatch)
    engine = engine_of(graphs, "gsrp")
    with pytest.raises(EngineError, match="out of device memory: gsrp"):
        engine(random_feeds(engine))
    trt.cuda.capacity = 1 << 30
    assert np.isfinite(engine(random_feeds(engine))["image"]).all()


def test_tensors_that_are_not_the_record_s(new_trt, graphs):
    runtime = runtime_of(graphs)
    record = record_of(next(graph for graph in graphs if graph.graph == "gsrp"))
    object.__setattr__(record, "inputs", record.inputs[:1])
    with pytest.raises(EngineError, match=r"gsrp: bw is \('input', 'float32', .* in the engine, expected none"):
        runtime.load(record)


def test_wrong_feeds(new_trt, graphs):
    engine = engine_of(graphs, "vae_decoder")
    with pytest.raises(EngineError, match=r"vae_decoder takes latents float32\[1, 4, 48, 32\], got float32\[1, 4, 8"):
        engine({"latents": np.zeros((1, 4, 8, 8), np.float32)})


def test_without_library_gpu_or_a_new_enough_version(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert "TensorRT cannot be loaded here" in missing()
    assert "pip install 'colorflow-rt[tensorrt]'" in missing()
    with pytest.raises(UnavailableError) as caught:
        TensorRTRuntime(tmp_path)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    TensorRT(cuda=Cuda(devices=0)).install(monkeypatch)
    assert "needs an NVIDIA GPU" in missing()
    TensorRT("10.3.0").install(monkeypatch)
    assert missing().startswith("TensorRT here is 10.3.0, expected 10.16 or newer")
    TensorRT().install(monkeypatch)
    assert missing() is None
