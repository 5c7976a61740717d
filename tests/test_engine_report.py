"""What the inspector says: both versions' JSON, and every reason to refuse an engine."""

import json

import onnx
import pytest
from colorflow_export.engine_report import faults, fusable_attention, read_report
from onnx import TensorProto, helper

HALF10, FLOAT10 = {"Format/Datatype": "Half"}, {"Format/Datatype": "Row major linear FP32"}
HALF11, FLOAT11 = {"Format": "Row major", "Datatype": "Half"}, {"Format": "Row major", "Datatype": "Float"}


def tensor(kind, *shape):
    return {"Name": "t", "Dimensions": list(shape), **kind}


def layer(name, kind, *inputs, tactic=""):
    return {"Name": name, "LayerType": kind, "Inputs": list(inputs), "Outputs": [], "TacticName": tactic}


def report_of(*layers):
    return read_report(json.dumps({"Layers": list(layers), "Bindings": []}))


@pytest.mark.parametrize(("half", "full"), [(HALF10, FLOAT10), (HALF11, FLOAT11)])
def test_types_of_both_versions(half, full):
    """The single alpha and beta of a matrix product are float32 always; adding float32 numbers is allowed."""
    report = report_of(
        layer("a", "gemm", tensor(half, 8, 8), tensor(full, 1)),
        layer("b", "CaskConvolution", tensor(full, 1, 3, 8, 8)),
        layer("update", "kgen", tensor(full, 8, 8)),
        layer("_gemm_mha_v2_0x1", "kgen", tensor(half, 2, 8, 40)),
    )
    assert (report.layers, report.attention, report.full, report.reformats) == (4, 1, ("b",), 0)
    assert faults(report, "float16", 1) == ["1 layers compute in float32 (b), expected float16 throughout"]
    assert faults(report, "float32", 1) == []


def test_attention_that_did_not_fuse():
    report = report_of(layer("x", "kgen", tactic="sm90_fmha_f16"), layer("softmax", "SoftMax"))
    assert faults(report, "float16", 2) == ["1 of 2 attentions are fused kernels, expected all"]
    assert faults(report, "float16", 1) == []


def test_reformat_storms():
    copies = [layer("Reformatting CopyNode for x", "Reformat")] * 9
    work = [layer("c", "gemm", tensor(HALF11, 4, 4))] * 60
    assert faults(report_of(*copies, *work), "float16", 0) == [
        "9 of 69 layers only reorder memory, expected a tenth at most"
    ]
    assert faults(report_of(*copies[:8], *work), "float16", 0) == []


@pytest.mark.parametrize("layers", [["conv1", "conv2"], []])
def test_an_engine_that_tells_nothing_is_refused(layers):
    assert faults(read_report(json.dumps({"Layers": layers})), "float32", 0)[0].startswith(
        "the inspector tells nothing"
    )


def attention(tmp_path, dim, scale=True):
    nodes = [helper.make_node("MatMul", ["q", "k"], ["s"])]
    nodes += [helper.make_node("Mul", ["s", "f"], ["p"])] if scale else []
    nodes += [
        helper.make_node("Softmax", ["p" if scale else "s"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["o"]),
    ]
    values = {"q": [1, 2, 9, dim], "k": [1, 2, dim, 9], "v": [1, 2, 9, dim], "f": []}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, shape) for name, shape in values.items()]
    output = [helper.make_tensor_value_info("o", TensorProto.FLOAT16, [1, 2, 9, dim])]
    path = tmp_path / "attention.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", inputs, output)), path)
    return path


@pytest.mark.parametrize(("dim", "count"), [(40, 1), (8, 0), (16, 1), (256, 1), (512, 0), (36, 0)])
def test_attention_that_could_fuse_is_counted(tmp_path, dim, count):
    assert fusable_attention(attention(tmp_path, dim)) == count
    assert fusable_attention(attention(tmp_path, dim, scale=False)) == count


def test_a_softmax_that_is_no_attention(tmp_path):
    node = helper.make_node("Softmax", ["q"], ["o"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [1, 40]) for name in "qo"]
    onnx.save(helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:])), tmp_path / "s.onnx")
    assert fusable_attention(tmp_path / "s.onnx") == 0


@pytest.mark.parametrize(("heads", "width", "count"), [(8, 320, 1), (1, 512, 0), (8, 64, 0)])
def test_the_operator_of_opset_23(tmp_path, heads, width, count):
    node = helper.make_node("Attention", ["q", "k", "v"], ["o"], q_num_heads=heads, kv_num_heads=heads)
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [1, 9, width]) for name in "qkv"]
    output = [helper.make_tensor_value_info("o", TensorProto.FLOAT16, [1, 9, width])]
    model = helper.make_model(
        helper.make_graph([node], "g", inputs, output), opset_imports=[helper.make_opsetid("", 23)]
    )
    onnx.save(model, tmp_path / "a.onnx")
    assert fusable_attention(tmp_path / "a.onnx") == count
