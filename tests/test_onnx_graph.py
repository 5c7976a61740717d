"""Reading and extending a model's bytes, against the onnx package."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from colorflow_rt.engine.onnx_graph import Node, read_nodes, with_outputs
from colorflow_rt.errors import PackError


def model():
    """y = (x + x) * x, with a long name so that lengths take two bytes."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in "xy")
    inner = "inner" + "r" * 200
    nodes = [helper.make_node("Add", ["x", "x"], [inner]), helper.make_node("Mul", [inner, "x"], ["y"])]
    graph = helper.make_graph(nodes, "graph", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return made.SerializeToString(), inner


def test_nodes_are_read_as_onnx_reads_them():
    data, inner = model()
    assert read_nodes(data) == [Node("Add", ("x", "x"), (inner,)), Node("Mul", (inner, "x"), ("y",))]


def test_nodes_of_a_whole_pack(tiny_pack):
    data = (tiny_pack / "denoise_step.onnx").read_bytes()
    expected = onnx.load_model_from_string(data).graph.node
    assert [(n.op, n.inputs, n.outputs) for n in read_nodes(data)] == [
        (n.op_type, tuple(n.input), tuple(n.output)) for n in expected
    ]


def test_an_added_output_is_computed_beside_the_others():
    data, inner = model()
    session = ort.InferenceSession(with_outputs(data, [inner]), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["y", inner]
    y, between = session.run(None, {"x": np.array([2, 3], np.float32)})
    np.testing.assert_array_equal(between, [4, 6])
    np.testing.assert_array_equal(y, [8, 18])
    assert [output.name for output in onnx.load_model_from_string(with_outputs(data, [inner])).graph.output] == [
        "y",
        inner,
    ]


@pytest.mark.parametrize("data", [b"\xff\xff", b"\x3a\x7fshort", b"\x3b"])
def test_what_is_no_model_is_refused(data):
    with pytest.raises(PackError, match="not an ONNX model"):
        read_nodes(data)
