"""What the engine inspector says of a built engine, and whether that is what was asked for.

The inspector's JSON lists layers with their tensors; TensorRT 10 writes a tensor's type as "Format/Datatype", 11 as
"Format" and "Datatype". Fused attention is told by kernel names with mha in them (NVIDIA/TensorRT issues 3243, 3665).
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

REFORMATS = 0.1  # share of the layers that may do nothing but reorder memory
_ATTENTION = re.compile(r"f?mha|flash|fused_?attention", re.IGNORECASE)
_HEAVY = re.compile(r"gemm|conv|matmul|matrix_?multiply|mha", re.IGNORECASE)
_REFORMAT = re.compile(r"reformat", re.IGNORECASE)


@dataclass(frozen=True)
class Report:
    """layers: of the engine. reformats: those that only reorder memory. attention: fused attention kernels.

    full: names of matrix products, convolutions and attentions that read float32. detailed: whether types were told.
    """

    layers: int
    reformats: int
    attention: int
    full: tuple[str, ...]
    detailed: bool


def read_report(text: str) -> Report:
    """From the inspector's JSON of a whole engine, of TensorRT 10 or 11."""
    layers = json.loads(text)["Layers"]
    known = [layer for layer in layers if isinstance(layer, dict)]
    return Report(
        layers=len(layers),
        reformats=sum(_REFORMAT.search(_kind(layer)) is not None for layer in known),
        attention=sum(_ATTENTION.search(_kind(layer)) is not None for layer in known),
        full=tuple(layer["Name"] for layer in known if _HEAVY.search(_kind(layer)) and _reads_float32(layer)),
        detailed=len(known) == len(layers) > 0,
    )


def faults(report: Report, precision: str, attention: int) -> list[str]:
    """What is wrong, in words. precision: "float16" or "float32"; attention: how many kernels should be fused."""
    if not report.detailed:
        return ["the inspector tells nothing of its layers, so nothing can be checked"]
    found = []
    if precision == "float16" and report.full:
        shown = ", ".join(report.full[:3])
        found.append(f"{len(report.full)} layers compute in float32 ({shown}), expected float16 throughout")
    if report.attention < attention:
        found.append(f"{report.attention} of {attention} attentions are fused kernels, expected all")
    if report.reformats > max(8, REFORMATS * report.layers):
        found.append(f"{report.reformats} of {report.layers} layers only reorder memory, expected a tenth at most")
    return found


def _kind(layer: Mapping[str, Any]) -> str:
    return " ".join(str(layer.get(key, "")) for key in ("LayerType", "Name", "TacticName"))


def _reads_float32(layer: Mapping[str, Any]) -> bool:
    """Single numbers (the alpha and beta of a matrix product) do not count."""
    return any(
        math.prod(tensor.get("Dimensions", [])) > 1 and _type(tensor).startswith(("float", "fp32"))
        for tensor in layer.get("Inputs", [])
    )


def _type(tensor: Mapping[str, Any]) -> str:
    """In lower case: "half", "float", or TensorRT 10's longer descriptions, cut to the type."""
    text = str(tensor.get("Datatype") or tensor.get("DataType") or tensor.get("Format/Datatype") or "").lower()
    return "fp32" if "fp32" in text else text


def fusable_attention(path: Path) -> int:
    """Attentions in an ONNX file that TensorRT can run as one kernel: head dim 16 to 256, a multiple of 8."""
    model = onnx.load(path, load_external_data=False)
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {info.name: _shape(info) for info in (*graph.value_info, *graph.input, *graph.output)}
    makers = {name: node for node in graph.node for name in node.output}
    dims = [_head_dim(node, makers, shapes) for node in graph.node if node.op_type in ("Softmax", "Attention")]
    return sum(dim is not None and 16 <= dim <= 256 and dim % 8 == 0 for dim in dims)


def _head_dim(
    node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], shapes: Mapping[str, list[int]]
) -> int | None:
    """Of a Softmax over a matrix product, or an Attention; None where it is neither or its shape is not known."""
    if node.op_type == "Attention":
        shape = shapes.get(node.input[0], [])
        heads = {attribute.name: attribute.i for attribute in node.attribute}.get("q_num_heads", 1)
        return shape[-1] // (heads if len(shape) == 3 else 1) if shape else None
    maker = makers.get(node.input[0])
    while maker is not None and maker.op_type in ("Add", "Mul", "Div", "Cast"):
        maker = makers.get(maker.input[0])
    if maker is None or maker.op_type != "MatMul":
        return None
    shape = shapes.get(maker.input[0], [])
    return shape[-1] if shape else None


def _shape(info: onnx.ValueInfoProto) -> list[int]:
    return [axis.dim_value for axis in info.type.tensor_type.shape.dim]
