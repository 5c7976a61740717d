"""The weights of a pack: every tensor once, in a safetensors file that the graphs point into (docs/pack.md)."""

import json
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch
from safetensors.torch import save_file
from torch import Tensor

from colorflow_export.modules.bundle import Modules

STORAGES = {"float16": torch.float16, "float32": torch.float32}
_IR_TYPES = {"F16": ir.DataType.FLOAT16, "F32": ir.DataType.FLOAT, "I64": ir.DataType.INT64}
_LOSS = 1e-3


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: the name of its safetensors file, and bytes from the start of that file."""

    file: str
    dtype: ir.DataType
    shape: tuple[int, ...]
    offset: int
    length: int


def stored_tensors(modules: Modules, storage: str) -> dict[str, Tensor]:
    """Every tensor of the pack by its name, in the type that it is stored in.

    Integers stay as they are. So do floats that float16 would cut by more than 1e-3 of their norm or make infinite
    (running variances of a BatchNorm may be tiny or huge).
    """
    tensors = {
        f"{part}.{key}": value for part, module in modules.parts().items() for key, value in module.state_dict().items()
    }
    if modules.prompt_embeds is not None and modules.negative_prompt_embeds is not None:
        tensors["text.prompt_embeds"] = modules.prompt_embeds
        tensors["text.negative_prompt_embeds"] = modules.negative_prompt_embeds
    return {name: stored(value.detach().cpu(), storage) for name, value in tensors.items()}


def stored(value: Tensor, storage: str) -> Tensor:
    """A tensor in the type that it is stored in ("float16" or "float32"), as `stored_tensors` says."""
    if not value.is_floating_point():
        return value.contiguous()
    exact = value.float().contiguous()
    short = exact.to(STORAGES[storage])
    loss = (short.float() - exact).norm()
    return short if bool(loss <= _LOSS * exact.norm()) else exact


def write_weights(tensors: dict[str, Tensor], path: Path) -> dict[str, Place]:
    """Write the tensors; the same tensors give the same bytes. Returns where each one lies."""
    save_file({name: value.clone() for name, value in tensors.items()}, path)
    path.chmod(0o644)  # safetensors makes it readable by its owner only
    return read_places(path)


def read_places(path: Path) -> dict[str, Place]:
    """Where each tensor of a safetensors file lies."""
    with path.open("rb") as file:
        header_length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_length))
    header.pop("__metadata__", None)
    return {
        name: Place(
            path.name,
            _IR_TYPES[entry["dtype"]],
            tuple(entry["shape"]),
            8 + header_length + entry["data_offsets"][0],
            entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in header.items()
    }
