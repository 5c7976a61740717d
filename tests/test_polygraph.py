"""polygraphy's comparison of two files of a graph."""

import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from colorflow_export.polygraph import compare
from fixed_graphs import fixed_graphs
from onnx import numpy_helper
from trt_standin import TensorRT

from colorflow_rt.errors import EngineError, UnavailableError

pytest.importorskip("polygraphy")


@pytest.fixture
def graph(tiny_pack, tmp_path):
    return fixed_graphs(tiny_pack, tmp_path, (64, 96), ["vae_decoder"])[0]


def _refuse(data):
    pytest.fail("a plan that was not built here was read")


def changed(path, by):
    """A copy whose largest inner constant is changed."""
    model = onnx.load(path)
    tensor = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float16(by), tensor.name))
    other = path.with_name("other.onnx")
    onnx.save(model, other)
    return other


def test_a_graph_equals_itself_and_not_another(graph):
    [same] = compare(graph.path, graph.path, graph.inputs)
    assert (same.output, same.passed) == ("image", True)
    assert same.cosine > 0.999999
    [near] = compare(graph.path, changed(graph.path, 1.001), graph.inputs)
    assert near.passed
    assert near.psnr < same.psnr
    [far] = compare(graph.path, changed(graph.path, -3), graph.inputs)
    assert not far.passed


def test_what_cannot_be_compared(graph, tmp_path, monkeypatch):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(EngineError, match=r"broken.onnx cannot be compared with .*vae_decoder"):
        compare(graph.path, tmp_path / "broken.onnx", graph.inputs)
    with pytest.raises(UnavailableError, match="TensorRT"):
        compare(graph.path, graph.path.with_suffix(".plan"), graph.inputs)
    TensorRT().install(monkeypatch)
    monkeypatch.setitem(sys.modules, "polygraphy.backend.trt", SimpleNamespace(EngineFromBytes=_refuse, TrtRunner=None))
    with pytest.raises(EngineError, match=r"has no TensorRT engine in .*tensorrt.toml"):
        compare(graph.path, graph.path.with_suffix(".plan"), graph.inputs)
