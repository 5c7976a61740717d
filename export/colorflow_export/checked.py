"""ONNX files for engines, checked as far as that goes without a GPU: shapes, types, operators; FLOP counted."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from colorflow_export.tensorrt_ops import OPSETS, SUPPORTED
from colorflow_rt.engine import TensorSpec
from colorflow_rt.errors import PackError

Shape = tuple[int, ...]
BATCHES = (1, 4, 16)  # least, usual and most patches a call of clip_encoder: one page has 4
_HEAVY = {"Conv", "ConvTranspose", "MatMul", "Gemm", "Softmax", "MultiHeadAttention"}
_HEAVY |= {"GroupNormalization", "InstanceNormalization", "LayerNormalization", "BatchNormalization"}
_TYPES = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
    TensorProto.BOOL: "bool",
}


@dataclass(frozen=True)
class CheckedGraph:
    """An ONNX file that passed every check that needs no GPU; its weights are in other files of the same folder.

    graph: as in docs/pack.md. variant: of denoise_step with text, "guided", "prompt" or "empty", else "".
    page: (W, H) in pixels and batch: what the shapes are fixed to; None and 0 for clip_encoder, which takes any batch.
    precision: "float16" or "float32", of what is inside; inputs and outputs are as in docs/pack.md.
    sha256: of the .onnx file; weights: SHA-256 of the files beside it by name. flops: of one call, 2 a multiply-add.
    """

    path: Path
    graph: str
    variant: str
    page: tuple[int, int] | None
    batch: int
    precision: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    sha256: str
    weights: dict[str, str]
    nodes: int
    flops: int

    def profile(self) -> dict[str, tuple[Shape, Shape, Shape]]:
        """Least, usual and largest shape of every input; equal where all axes are fixed."""
        return {spec.name: _profile(spec) for spec in self.inputs}


def _profile(spec: TensorSpec) -> tuple[Shape, Shape, Shape]:
    least, usual, most = (tuple(batch if isinstance(axis, str) else axis for axis in spec.shape) for batch in BATCHES)
    return least, usual, most


@dataclass(frozen=True)
class Counts:
    """What `check` found: nodes by operator, FLOP of one call."""

    operators: dict[str, int]
    flops: int

    @property
    def nodes(self) -> int:
        return sum(self.operators.values())


def check(path: Path, precision: str, *, tensorrt: bool, fixed: bool) -> Counts:
    """Check an ONNX file: shapes and types of every tensor are inferred, floats inside have `precision`.

    tensorrt: every operator is one that TensorRT's parser takes in that type. fixed: every shape is a constant.
    PackError names the first tensor or node that is not as it should be.
    """
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.shape_inference.infer_shapes(
        onnx.load(path, load_external_data=False), check_type=True, strict_mode=True, data_prop=True
    )
    graph = _Graph(path.name, model)
    graph.check_shapes(fixed)
    graph.check_precision(precision)
    if tensorrt:
        graph.check_operators()
    operators: dict[str, int] = {}
    for node in graph.nodes:
        operators[node.op_type] = operators.get(node.op_type, 0) + 1
    return Counts(operators, sum(graph.flops(node) for node in graph.nodes))


class _Graph:
    """A model with the type and shape of every tensor by name."""

    def __init__(self, name: str, model: Any) -> None:
        self.name, self.nodes, self._model = name, list(model.graph.node), model
        values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
        self._types = {value.name: value.type.tensor_type.elem_type for value in values}
        self._shapes = {value.name: _lengths(value.type.tensor_type) for value in values}
        for tensor in model.graph.initializer:
            self._types[tensor.name] = tensor.data_type
            self._shapes[tensor.name] = tuple(tensor.dims)

    def _outputs(self) -> Iterator[tuple[Any, str]]:
        for node in self.nodes:
            yield from ((node, name) for name in node.output if name)

    def check_shapes(self, fixed: bool) -> None:
        """Type and rank of every tensor are known; with `fixed` every length too."""
        for node, name in self._outputs():
            shape = self._shapes.get(name)
            if self._types.get(name, 0) not in _TYPES or shape is None:
                raise PackError(f"{self.name}: type and shape of {name} ({node.op_type}) cannot be inferred")
            if fixed and not all(isinstance(axis, int) for axis in shape):
                raise PackError(f"{self.name}: {name} ({node.op_type}) is {list(shape)}, expected fixed lengths")

    def check_precision(self, precision: str) -> None:
        """No heavy node works in another precision, and no part of the graph leaves it and comes back."""
        for node in self.nodes:
            found = self._type(node.input[0]) if node.input else precision
            if node.op_type in _HEAVY and found != precision:
                raise PackError(f"{self.name}: {node.op_type} {node.name} works in {found}, expected {precision}")
        left = {name for node, name in self._outputs() if self._leaves(node, precision)}
        for node in self.nodes:  # in topological order
            if not left.intersection(node.input):
                continue
            for name in node.output:
                if self._type(name) == precision and precision != "float32":
                    raise PackError(f"{self.name}: {name} is {precision} again behind float32 ({node.op_type})")
                left.add(name)

    def _leaves(self, node: Any, precision: str) -> bool:
        return node.op_type == "Cast" and self._type(node.input[0]) == precision != self._type(node.output[0])

    def _type(self, name: str) -> str:
        return _TYPES.get(self._types.get(name, 0), "unknown")

    def check_operators(self) -> None:
        """TensorRT's parser knows every operator, in the type that it has here."""
        opset = max(entry.version for entry in self._model.opset_import if entry.domain in ("", "ai.onnx"))
        if opset not in OPSETS:
            raise PackError(f"{self.name}: opset {opset}, TensorRT's parser takes {OPSETS[0]} to {OPSETS[-1]}")
        for node in self.nodes:
            types = SUPPORTED.get(node.op_type, frozenset()) if node.domain in ("", "ai.onnx") else frozenset()
            position = 1 if node.op_type == "Where" else 0
            found = self._type(node.input[position]) if node.input else None
            if not types or (found is not None and found not in types):
                raise PackError(f"{self.name}: TensorRT's parser takes no {node.domain} {node.op_type} of {found}")

    def flops(self, node: Any) -> int:
        """Of one call; nodes that do little have none. A batch that is not fixed counts as 1."""
        if node.op_type not in ("Conv", "MatMul", "Gemm", "MultiHeadAttention"):
            return 0
        first, second = (self._known(name) for name in node.input[:2])
        if node.op_type == "MultiHeadAttention":
            return 4 * prod(first) * second[-2]
        out = prod(self._known(node.output[0]))
        if node.op_type == "Conv":
            return 2 * out * prod(second[1:])
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return 2 * out * first[-2 if transposed else -1]

    def _known(self, name: str) -> Shape:
        return tuple(axis if isinstance(axis, int) else 1 for axis in self._shapes.get(name) or ())


def _lengths(tensor: Any) -> tuple[int | str, ...] | None:
    """None where the rank is not known; names where lengths are not."""
    if not tensor.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim)


def check_text_folded(path: Path) -> None:
    """PackError if keys and values of the constant prompt are still computed in the graph."""
    model = onnx.load(path, load_external_data=False)
    used = {name for node in model.graph.node for name in node.input}
    if left := sorted(name for name in used if ".attn2.to_k." in name or ".attn2.to_v." in name):
        raise PackError(f"{path.name}: {left[0]} is still multiplied with the constant prompt")
