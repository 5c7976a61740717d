"""Every exported graph in ONNX Runtime against PyTorch, and the whole loop on it against the authors' own steps."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from colorflow_export.golden import Golden, load_golden, relative_error
from colorflow_export.graphs import Graph, graphs_of
from colorflow_export.modules.bundle import Modules
from colorflow_export.packs import load_modules
from colorflow_export.parity import predicted
from colorflow_export.to_onnx import INLINE_LIMIT, OPSET, export_graph, write_graph
from colorflow_export.weights import read_places, stored_tensors, write_weights
from torch import Tensor, nn

from colorflow_rt.denoise import Slot, advance, denoise, run
from colorflow_rt.engine.onnx import OnnxEngine
from colorflow_rt.engine.protocol import Engine, TensorSpec
from colorflow_rt.errors import PackError
from colorflow_rt.pack import open_pack
from colorflow_rt.pack_config import GRAPHS, REUSE_GRAPHS
from colorflow_rt.schedule import Schedule, SchedulerConfig

GOLDEN = Path(__file__).parent / "golden"
LIMIT = 1e-5


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module", params=["tiny_pack", "golden_pack"])
def pack(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(request.param))


def graph_of(modules: Modules, name: str) -> Graph:
    return next(graph for graph in graphs_of(modules) if graph.name == name)


def worst(graph: Graph, modules: Modules, engine: Engine, **lengths: int) -> float:
    """The largest relative error of any output for one random input."""
    feeds = graph.example(**lengths)
    expected = graph.build(modules)(**graph.arguments(feeds))
    expected = expected if isinstance(expected, tuple) else (expected,)
    found = engine({name: tensor.numpy() for name, tensor in feeds.items()})
    pairs = zip(graph.outputs, expected, strict=True)
    return max(relative_error(torch.from_numpy(found[spec.name]), tensor) for spec, tensor in pairs)


def test_every_graph_runs_any_batch_and_size(pack: Path) -> None:
    modules = load_modules(pack)
    opened = open_pack(pack)
    assert [graph.name for graph in graphs_of(modules)] == list(GRAPHS)
    graphs = graphs_of(modules, reuse=True)
    assert {graph.name for graph in graphs} == {*GRAPHS, *REUSE_GRAPHS}
    for graph in graphs:
        engine = opened.engine(graph.name)
        wide = {axis: multiple * (3 if axis in "hH" else 10) for axis, multiple in graph.multiples.items()}
        for lengths in ({}, {"B": 1}, {"B": 3} | wide):
            assert worst(graph, modules, engine, **lengths) < LIMIT, (graph.name, lengths)


def test_the_guider_and_the_rest_are_the_whole_step(pack: Path) -> None:
    """In ONNX Runtime, for pages at steps of their own."""
    opened = open_pack(pack)
    whole, guider, rest = (opened.engine(name) for name in ("denoise_step", "guider", "denoise_reuse"))
    feeds = {name: t.numpy() for name, t in graph_of(load_modules(pack), "denoise_step").example(B=3).items()}
    features = guider({spec.name: feeds[spec.name] for spec in guider.inputs})
    found = rest({spec.name: (feeds | features)[spec.name] for spec in rest.inputs})
    for name, expected in whole(feeds).items():
        assert relative_error(torch.from_numpy(found[name]), torch.from_numpy(expected)) < LIMIT, name


def test_a_loop_with_the_guider_in_every_other_step_ends_near_the_whole_one(golden_pack: Path) -> None:
    golden, pack = load_golden(GOLDEN / "sd_small_9ch"), open_pack(golden_pack)
    whole, parted = slot_of(golden, 5), replace(slot_of(golden, 5), guider_steps=3)
    expected, found = (run(pack.engine, [slot]) for slot in (whole, parted))
    assert 0 < relative_error(torch.from_numpy(found), torch.from_numpy(expected)) < 0.5


def test_batches_beyond_the_exporter_s_bounds(golden_pack: Path) -> None:
    modules = load_modules(golden_pack)
    engine = open_pack(golden_pack).engine("denoise_step")
    assert worst(graph_of(modules, "denoise_step"), modules, engine, B=67, h=8, w=8) < LIMIT


def test_weights_are_stored_once_under_their_state_dict_names(pack: Path) -> None:
    places = read_places(pack / "weights.safetensors")
    modules = load_modules(pack)
    names = {f"{part}.{key}" for part, module in modules.parts().items() for key in module.state_dict()}
    text = {"text.prompt_embeds", "text.negative_prompt_embeds"} if modules.model.text_tokens else set()
    assert places.keys() == names | text
    used = set()
    for path in pack.glob("*.onnx"):
        for tensor in onnx.load(path, load_external_data=False).graph.initializer:
            if tensor.data_location != onnx.TensorProto.EXTERNAL:
                assert tensor.ByteSize() <= INLINE_LIMIT
                continue
            used.add(tensor.name)
            where = {entry.key: entry.value for entry in tensor.external_data}
            place = places[tensor.name]
            assert where["location"] == "weights.safetensors"
            assert (int(where["offset"]), int(where["length"])) == (place.offset, place.length)
    counters = {name for name in names if name.endswith("num_batches_tracked")}
    statistics = {name for name in names if "running_" in name}
    unused = names - used
    assert unused == (counters | statistics if modules.model.text_tokens else counters)


def test_graphs_tell_nothing_of_the_machine(tiny_pack: Path) -> None:
    for path in tiny_pack.glob("*.onnx"):
        data = path.read_bytes()
        assert not any(word in data for word in (b"/work", b"site-packages", b"Traceback", b"stack_trace"))


@pytest.mark.parametrize("graph", ["denoise_step", "guider", "denoise_reuse", "gsrp"])
def test_onnxruntime_leaves_no_casts_and_no_batch_norm(tiny_pack: Path, tmp_path: Path, graph: str) -> None:
    """What is stored in float16 must not be cast, and statistics not be applied, in every call."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(str(tiny_pack / f"{graph}.onnx"), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph.node
    casts = [node for node in nodes if node.op_type == "Cast"]
    assert len(casts) == (0 if graph == "gsrp" else 1)  # the timestep, an integer
    assert not [node for node in nodes if node.op_type == "BatchNormalization"]


def test_short_storage_keeps_what_it_would_spoil(tiny_pack: Path) -> None:
    modules = load_modules(tiny_pack)
    fusion = modules.fusion
    assert fusion is not None
    buffers = dict(fusion.named_buffers())
    buffers["two_layer_resnets.0.block1.bn1.running_var"].fill_(1e-9)
    buffers["two_layer_resnets.0.block1.bn1.running_mean"].fill_(1e6)
    tensors = stored_tensors(modules, "float16")
    prefix = "fusion.two_layer_resnets.0.block1"
    assert tensors[f"{prefix}.bn1.running_var"].eq(1e-9).all()
    assert tensors[f"{prefix}.bn1.running_mean"].dtype == torch.float32
    assert tensors[f"{prefix}.bn1.num_batches_tracked"].dtype == torch.int64
    assert tensors[f"{prefix}.conv1.weight"].dtype == torch.float16


class FirstOnly(nn.Module):
    def __init__(self, modules: Modules) -> None:
        super().__init__()
        self.vae = modules.vae

    def forward(self, latents: Tensor) -> Tensor:
        return self.vae.reconstruct(latents[:1])


class Table(nn.Module):
    def __init__(self, modules: Modules) -> None:
        super().__init__()
        self.table = torch.randn(1, 3, 64, 64)  # not part of any state dict

    def forward(self, latents: Tensor) -> Tensor:
        return latents[:, :3].mean() + self.table.repeat(latents.shape[0], 1, 1, 1)


@pytest.mark.parametrize(
    ("build", "shape", "message"),
    [
        (FirstOnly, ("B", 3, "H", "W"), r"vae_decoder: output image was exported as .*\[1,3,.*expected image"),
        (Table, ("B", 3, 64, 64), r"vae_decoder: .* of 49152 bytes is in the graph, expected in the weights"),
    ],
)
def test_what_the_exporter_does_silently_is_refused(
    build: Callable[[Modules], nn.Module], shape: tuple[int | str, ...], message: str, tiny_pack: Path
) -> None:
    modules = load_modules(tiny_pack)
    good = graph_of(modules, "vae_decoder")
    bad = Graph(good.name, good.inputs, (TensorSpec("image", "float32", shape),), build, good.multiples)
    places = read_places(tiny_pack / "weights.safetensors")
    with pytest.raises(PackError, match=message):
        export_graph(bad, modules, places)


# The golden networks: SD 1.5's four levels, text, guidance, 9 channels.


Nets = tuple[Golden, dict[str, Engine]]


@pytest.fixture(scope="module")
def nets(golden_pack: Path) -> Nets:
    """Golden networks and the same in ONNX Runtime, stored in float32; the other folder's: test_convert.py."""
    pack = open_pack(golden_pack)
    return load_golden(GOLDEN / "sd_small_9ch"), {name: pack.engine(name) for name in ("denoise_step", "vae_decoder")}


def export(modules: Modules, name: str, folder: Path, storage: str = "float32", opset: int = OPSET) -> OnnxEngine:
    places = write_weights(stored_tensors(modules, storage), folder / "weights.safetensors")
    graph, path = graph_of(modules, name), folder / f"{name}.onnx"
    write_graph(export_graph(graph, modules, places, opset), path)
    return OnnxEngine(path, name, (graph.inputs, graph.outputs))


def slot_of(golden: Golden, steps: int) -> Slot:
    t = golden.tensors
    schedule = Schedule.create(steps, SchedulerConfig())
    return Slot(t["initial_latents"][0].numpy(), t["cond"][0].numpy(), schedule, golden.guidance_scale)


def test_the_loop_on_onnx_is_the_authors_loop(nets: Nets) -> None:
    golden, engines = nets
    slot = slot_of(golden, golden.steps)
    assert slot.schedule.timesteps.tolist() == golden.configs["run"]["timesteps"]
    for i in range(golden.steps):
        advance(engines.__getitem__, [slot])
        assert relative_error(predicted(slot), golden.tensors[f"latents_{i}"]) < LIMIT, i
    image = engines["vae_decoder"]({"latents": slot.result()[None]})["image"]
    ours = torch.from_numpy(image[0]).permute(1, 2, 0).div(2).add(0.5).clamp(0, 1)
    assert relative_error(ours, golden.tensors["image"]) < LIMIT


def test_samples_of_one_batch_may_be_at_different_steps(nets: Nets) -> None:
    golden, engines = nets
    slots = [slot_of(golden, steps) for steps in (3, 4, 3)]
    alone = [
        denoise(engines.__getitem__, s.sample[None], s.condition[None], s.schedule, s.guidance_scale)[0] for s in slots
    ]
    for start in (1, 2):  # the second and third join one and two steps late
        for _ in range(start):
            advance(engines.__getitem__, slots[:start])
    while any(not slot.done for slot in slots):
        advance(engines.__getitem__, [slot for slot in slots if not slot.done])
    for slot, expected in zip(slots, alone, strict=True):
        assert relative_error(torch.from_numpy(slot.result()), torch.from_numpy(expected)) < LIMIT


def test_opset_is_a_parameter(tiny_pack: Path, tmp_path: Path) -> None:
    modules = load_modules(tiny_pack)
    engine = export(modules, "vae_decoder", tmp_path, "float16", opset=21)
    model = onnx.load(tmp_path / "vae_decoder.onnx", load_external_data=False)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [21]
    assert worst(graph_of(modules, "vae_decoder"), modules, engine) < LIMIT


def test_weights_file_is_read_where_it_says(tmp_path: Path) -> None:
    tensors = {"a.b": torch.arange(6.0).reshape(2, 3), "c": torch.tensor(7), "d": torch.ones(3, dtype=torch.float16)}
    path = tmp_path / "weights.safetensors"
    places = write_weights(tensors, path)
    data = path.read_bytes()
    for name, tensor in tensors.items():
        place = places[name]
        raw = data[place.offset : place.offset + place.length]
        assert np.array_equal(np.frombuffer(raw, place.dtype.numpy()).reshape(place.shape), tensor.numpy())
    header = int.from_bytes(data[:8], "little")
    assert json.loads(data[8 : 8 + header]).keys() == tensors.keys()
