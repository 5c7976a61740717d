"""Graphs of a pack with fixed shapes, as `build-engines` hands them to the TensorRT compiler, without its checks."""

import shutil
from pathlib import Path

import onnx
from colorflow_export.checked import CheckedGraph

from colorflow_rt.engine import TensorSpec
from colorflow_rt.files import file_sha256
from colorflow_rt.pack import open_pack
from colorflow_rt.pack_config import GRAPHS


def fixed_graphs(pack: Path, out: Path, page: tuple[int, int], graphs=None, batch: int = 1) -> list[CheckedGraph]:
    """Every graph that engines are built of, for one page size; clip_encoder for any batch."""
    config = open_pack(pack).config
    shutil.copy(pack / "weights.safetensors", out)
    made = []
    for name in GRAPHS:
        if graphs is None or name in graphs:
            graph = config.graphs[name]
            lengths = {} if name == "clip_encoder" else _lengths(config, name, page, batch)
            made.append(
                _fixed(pack / graph.file, out / f"{name}.{page[0]}x{page[1]}.onnx", graph, lengths, page, batch)
            )
    return made


def _lengths(config, name, page, batch):
    f, scale = config.model.vae_factor, config.pages.gsrp_scale if name == "gsrp" else 2
    width, height = (round(side * scale) for side in page)
    sides = {"H": height, "W": width, "h": height // f, "w": width // f, f"H/{f}": height // f, f"W/{f}": width // f}
    return sides | {"B": batch, f"h*{f}": height, f"w*{f}": width}


def _fixed(source, path, graph, lengths, page, batch):
    model = onnx.load(source, load_external_data=False)
    for value in (*model.graph.input, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in lengths:
                axis.dim_value = lengths[axis.dim_param]
    onnx.save(model, path)
    return CheckedGraph(
        path=path,
        graph=path.name.split(".")[0],
        variant="",
        page=page,
        batch=batch,
        precision="float32",
        opset=20,
        inputs=tuple(_spec(spec, lengths) for spec in graph.inputs),
        outputs=tuple(_spec(spec, lengths) for spec in graph.outputs),
        sha256=file_sha256(path),
        weights={"weights.safetensors": file_sha256(path.parent / "weights.safetensors")},
        nodes=len(model.graph.node),
        flops=0,
    )


def _spec(spec, lengths):
    return TensorSpec(spec.name, spec.dtype, tuple(lengths.get(axis, axis) for axis in spec.shape))


def record_of(graph: CheckedGraph):
    """What engine_set knows of a built engine."""
    from colorflow_rt.engine_set import EngineRecord

    return EngineRecord(
        graph.graph, graph.variant, graph.page or (), graph.batch, graph.path.name, graph.sha256,
        graph.inputs, graph.outputs, graph.nodes, graph.flops,
    )  # fmt: skip
