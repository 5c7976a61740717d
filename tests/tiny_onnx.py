"""Tiny ONNX graphs for tests, with weights stored in our way: once, as float16 inside a safetensors file."""

import json
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from safetensors.numpy import save_file

OPSET, IR_VERSION = 20, 10
KEY = "clip.visual_projection.weight"


def clip_weights(image_size: int = 4, dim: int = 3) -> NDArray[np.float16]:
    return np.random.default_rng(11).normal(size=(3 * image_size**2, dim)).astype(np.float16)


def external_tensor(weights: Path, key: str, location: str | None = None) -> onnx.TensorProto:
    """An initializer whose bytes are those of the tensor `key` where they lie in the safetensors file."""
    data = weights.read_bytes()
    header_length = int.from_bytes(data[:8], "little")
    entry = json.loads(data[8 : 8 + header_length])[key]
    start, end = entry["data_offsets"]
    place = {
        "location": location or weights.name,
        "offset": 8 + header_length + start,
        "length": end - start,
    }
    tensor = onnx.TensorProto(name=key, dims=entry["shape"], data_type=TensorProto.FLOAT16)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for name, value in place.items():
        tensor.external_data.append(onnx.StringStringEntryProto(key=name, value=str(value)))
    return tensor


def clip_encoder(
    folder: Path,
    image_size: int = 4,
    dim: int = 3,
    batch: int | str = "B",
    location: str | None = None,
) -> Path:
    """image_embeds = flattened pixel_values times a matrix in weights.safetensors beside the graph."""
    weights = folder / "weights.safetensors"
    # An odd tensor before it: the offset need not be aligned.
    save_file({"a": np.zeros(3, np.uint8), KEY: clip_weights(image_size, dim)}, weights)
    nodes = [
        helper.make_node("Cast", [KEY], ["matrix"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixel_values"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["image_embeds"]),
    ]
    side = [batch, 3, image_size, image_size]
    graph = helper.make_graph(
        nodes,
        "clip_encoder",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, side)],
        [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, [batch, dim])],
        initializer=[external_tensor(weights, KEY, location)],
    )
    return save(graph, folder / "clip_encoder.onnx")


def save(graph: onnx.GraphProto, path: Path) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    path.write_bytes(model.SerializeToString())
    return path
