"""The networks that lie beside the packs, for they are about drawings, not about a model: one ONNX file each."""

from pathlib import Path

import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from colorflow_export.to_onnx import quiet
from colorflow_export.train.stages import load_ema
from colorflow_rt.files import atomic_path

LARGE = 1024  # numbers: tensors of fewer stay float32


def export_beside(net: nn.Module, work: Path, stage: str, out: Path, names: tuple[str, str], multiple: int) -> None:
    """Write `net` with the averaged weights of a stage trained in WORK to `out`, its weights as float16.

    net: f32[1,1,H,W] -> f32[1,N,h,w]; names: of its input and output. Sides are any multiples of `multiple`.
    """
    load_ema(net, work, stage)
    sides = {axis: torch.export.Dim(name, min=1, max=4096) * multiple for axis, name in ((2, "H"), (3, "W"))}
    with atomic_path(out) as temporary:
        with quiet():
            torch.onnx.export(
                net.eval(),
                (torch.zeros(1, 1, 2 * multiple, 3 * multiple),),
                temporary,
                input_names=names[:1],
                output_names=names[1:],
                dynamic_shapes=(sides,),
                opset_version=20,
                external_data=False,
                verbose=False,
            )
        model = onnx.load(temporary)
        _halve(model)
        onnx.save(model, temporary)


def _halve(model: onnx.ModelProto) -> None:
    """Keep large weights as float16, half the bytes; calculations stay in float32."""
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == "float32" and values.size >= LARGE:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(values.astype("float16"), f"{name}.half"))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
