"""Reading checkpoints: every tensor is loaded by its exact name and shape, or the file is refused."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from colorflow_rt.errors import PackError

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors file or of a pickle (weights_only), in float32; integers as they are.

    Raises PackError if the file is missing, damaged, or holds anything but named tensors.
    """
    try:
        loaded = load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except Exception as error:  # torch and safetensors raise a dozen unrelated types for a damaged file
        raise PackError(f"cannot read {path}: {error}; expected one of {', '.join(SUFFIXES)} as released") from error
    if not all(isinstance(value, Tensor) for value in loaded.values()):
        raise PackError(f"{path} holds more than named tensors; expected a state dict as released")
    return {k: v.float() if v.is_floating_point() else v for k, v in loaded.items()}


def _read_pickle(path: Path) -> dict[str, Tensor]:
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(loaded, dict):
        raise TypeError(f"it holds a {type(loaded).__name__}, not a state dict")
    return loaded


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Load `tensors` into `module`; PackError names the first keys that are missing, unknown or misshapen."""
    own = module.state_dict()
    problems = [f"missing {key}" for key in own if key not in tensors]
    problems += [f"unknown {key}" for key in tensors if key not in own]
    problems += [
        f"{key} is {list(value.shape)}, expected {list(own[key].shape)}"
        for key, value in tensors.items()
        if key in own and value.shape != own[key].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise PackError(f"weights of {name} do not fit: {'; '.join(problems[:3])}{more}")
    # Not copied into the module's own: twice a full-size model would not fit into memory.
    gradient = any(parameter.requires_grad for parameter in module.parameters())
    module.load_state_dict({key: value.contiguous() for key, value in tensors.items()}, assign=True)
    module.requires_grad_(gradient)
