"""From PyTorch to ONNX: one graph at a time, its weights replaced by pointers into the pack's weights file."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxscript.optimizer
import torch
from onnx_ir.passes import common

from colorflow_export.graphs import Graph, axis_parts
from colorflow_export.modules.bundle import Modules
from colorflow_export.weights import Place
from colorflow_rt.engine import TensorSpec
from colorflow_rt.errors import PackError

OPSET = 20  # the newest whose GroupNormalization ONNX Runtime's CPU backend need not expand itself
INLINE_LIMIT = 16_384  # bytes of constants that a graph may carry itself, per tensor
CONTRIB = "com.microsoft"
_IR_TYPES = {"float32": ir.DataType.FLOAT, "int64": ir.DataType.INT64}


def export_graph(graph: Graph, modules: Modules, places: Mapping[str, Place], opset: int = OPSET) -> ir.Model:
    """The ONNX model of `graph`: named axes of any length that is a multiple of `graph.multiples`, others as they are.

    Every weight is external data in a file beside the model, at the place `places` has for it, cast where it is stored
    in another type; its values are not read. PackError if the exporter fixed an axis, or would keep weights inline.
    """
    net = graph.build(modules).eval()
    with torch.no_grad(), quiet():
        program = torch.export.export(net, (), graph.arguments(graph.example()), dynamic_shapes=_dynamic_shapes(graph))
        exported = torch.onnx.export(
            program,
            opset_version=opset,
            input_names=[spec.name for spec in graph.inputs],
            output_names=[spec.name for spec in graph.outputs],
            optimize=False,
            verbose=False,
        )
    assert exported is not None  # None is for the old exporter
    model = exported.model
    _point_into_file(model, places)
    _settle_signature(model, graph)
    _strip(model)
    _check_inline(model, graph)
    return model


def write_graph(model: ir.Model, path: Path) -> None:
    """Save the model and let ONNX check it, weights included (they must be there already)."""
    import onnx

    path.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path), full_check=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's remarks on torchvision, deprecated internals of torch and names of axes."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", "# The axis name", UserWarning)
            yield
    finally:
        log.setLevel(level)


def _dynamic_shapes(graph: Graph) -> dict[str, Any]:
    """Per input, the axes that may vary.

    diffusers' upsampler has a second path from batch 64 on (two halves of 32), hence the limit of 31. It differs in
    memory layout only, and the ONNX graph runs any batch.
    """
    units: dict[str, Any] = {"B": torch.export.Dim("B", min=1, max=31)}
    units |= {axis: torch.export.Dim(f"{axis}_{n}", min=1, max=8192) for axis, n in graph.multiples.items()}

    def dim(axis: str) -> object:
        name, times, over = axis_parts(axis)
        count = graph.multiples.get(name, 1) * times // over
        return count * units[name] if count > 1 else units[name]

    shapes = {
        spec.name: {i: dim(axis) for i, axis in enumerate(spec.shape) if isinstance(axis, str)} for spec in graph.inputs
    }
    return graph.arguments(shapes)


def _point_into_file(model: ir.Model, places: Mapping[str, Place]) -> None:
    """Fold constants, and put every weight in its file.

    While constants are folded the weights are inputs of the graph: were they constants, the folder would store
    transposed and reshaped copies of them under names of its own.
    """
    initializers = model.graph.initializers
    held = {name: initializers.pop(name) for name in list(initializers) if name in places}
    own = len(model.graph.inputs)
    model.graph.inputs.extend(held.values())
    _fold(model)
    del model.graph.inputs[own:]
    for name, value in held.items():
        if value.uses():
            _externalize(model, name, value, places[name])


def _fold(model: ir.Model) -> None:
    """What onnxscript's optimizer does, but for its rewrite rules: they take minutes, and ONNX Runtime has its own."""
    common.InlinePass()(model)
    onnxscript.optimizer.fold_constants_ir(model, onnx_shape_inference=True)
    ir.passes.Sequential(
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.NameFixPass(),
    )(model)


def _externalize(model: ir.Model, name: str, value: ir.Value, place: Place) -> None:
    tensor = ir.ExternalTensor(
        place.file, place.offset, place.length, place.dtype, shape=ir.Shape(place.shape), name=name
    )
    stored = ir.Value(name=name, shape=ir.Shape(place.shape), type=ir.TensorType(place.dtype), const_value=tensor)
    if place.dtype == value.dtype:
        ir.convenience.replace_all_uses_with(value, stored)
    else:
        wanted = value.dtype or ir.DataType.FLOAT
        cast = ir.node("Cast", [stored], {"to": wanted}, name=f"{name}.cast")
        cast.outputs[0].name = f"{name}.{wanted.numpy().name}"
        ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        model.graph.insert_before(model.graph[0], cast)
    model.graph.register_initializer(stored)


def _settle_signature(model: ir.Model, graph: Graph) -> None:
    """Give inputs and outputs the documented names of axes, after checking that none was fixed."""
    for kind, specs, values in (
        ("input", graph.inputs, model.graph.inputs),
        ("output", graph.outputs, model.graph.outputs),
    ):
        if [value.name for value in values] != [spec.name for spec in specs]:
            raise PackError(
                f"{graph.name}: exported {kind}s are {[v.name for v in values]}, expected {[*map(str, specs)]}"
            )
        for spec, value in zip(specs, values, strict=True):
            _settle(graph, kind, spec, value)


def _settle(graph: Graph, kind: str, spec: TensorSpec, value: ir.Value) -> None:
    if value.shape is None or value.dtype != _IR_TYPES[spec.dtype] or not _agree(spec.shape, value.shape):
        raise PackError(
            f"{graph.name}: {kind} {value.name} was exported as {value.dtype}{value.shape}, expected {spec}"
        )
    value.shape = ir.Shape(spec.shape)


def _agree(documented: Sequence[int | str], found: ir.Shape) -> bool:
    """Fixed axes are equal, open ones open."""
    if len(documented) != len(found):
        return False
    pairs = zip(documented, found, strict=True)
    return all(axis == length if isinstance(axis, int) else not isinstance(length, int) for axis, length in pairs)


def _strip(model: ir.Model) -> None:
    """Drop what makes files large and tells of the machine: traces, comments, shapes of inner values."""
    outer = {*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()}
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.doc_string = model.graph.doc_string = None
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if value not in outer and not _opaque(node):
                value.shape = value.type = None
    for value in outer:
        value.metadata_props.clear()


def _opaque(node: ir.Node) -> bool:
    """Whether ONNX cannot infer the shape of what a node puts out, so that the file has to say it."""
    return node.domain == CONTRIB or node.op_type == "GroupNormalization"


def _check_inline(model: ir.Model, graph: Graph) -> None:
    for name, value in model.graph.initializers.items():
        constant = value.const_value
        if constant is not None and not isinstance(constant, ir.ExternalTensor) and constant.nbytes > INLINE_LIMIT:
            raise PackError(
                f"{graph.name}: {name} of {constant.nbytes} bytes is in the graph, expected in the weights file"
            )
