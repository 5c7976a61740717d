"""The folders of released checkpoints: what is in them, under which names, and what is wrong with them.

Only names and shapes are compared here; values are read from the disk when they are written into the pack.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from colorflow_rt.errors import PackError

SUFFIXES = (".safetensors", ".bin")
WEIGHTS = ("diffusion_pytorch_model", "model", "pytorch_model")  # stems by diffusers, transformers, transformers before
VARIANT_SUFFIXES = ("", ".fp16")

# Names that older files use for the same tensors (to the left of the arrow), and tensors that are no weights.
VAE_ALIASES = ((".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0."))
IGNORED = ("position_ids",)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Tensors by the names that the modules have, each with where it is read from. what: for messages."""

    what: str
    shapes: Mapping[str, tuple[int, ...]]
    _read: Mapping[str, Callable[[], Tensor]]

    def tensor(self, name: str) -> Tensor:
        """A tensor, floats in float32."""
        try:
            found = self._read[name]()
        except (OSError, RuntimeError, SafetensorError) as error:
            raise PackError(f"{self.what}: {name} cannot be read ({_line(error)}): download the file again") from error
        return found.float() if found.is_floating_point() else found


def read_checkpoint(path: Path, what: str, aliases: tuple[tuple[str, str], ...] = ()) -> Checkpoint:
    """The tensors of a file, or of the weights in a folder (whole or in shards).

    PackError if there are none, a file is damaged or not whole, or holds more than named tensors.
    """
    read: dict[str, Callable[[], Tensor]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for file in _files(path, what):
        for name, shape, get in _tensors(file, what):
            if name.rpartition(".")[2] in IGNORED:
                continue
            for old, new in aliases:
                name = name.replace(old, new)
            read[name], shapes[name] = get, shape
    return Checkpoint(f"{what} ({path})", shapes, read)


def _files(path: Path, what: str) -> list[Path]:
    if path.is_file():
        return [path]
    stems = [stem + variant for variant in VARIANT_SUFFIXES for stem in WEIGHTS]
    for suffix in SUFFIXES:
        for stem in stems:
            if (path / f"{stem}{suffix}").is_file():
                return [path / f"{stem}{suffix}"]
            index = path / f"{stem}{suffix}.index.json"
            if index.is_file():
                return _shards(index, what)
    raise PackError(f"{what}: no weights in {path}, expected {WEIGHTS[0]}{SUFFIXES[0]} or the like, as released")


def _shards(index: Path, what: str) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise PackError(f"{what}: {index} cannot be read ({_line(error)}): download it again") from error
    for name in names:
        if not (index.parent / name).is_file():
            raise PackError(f"{what}: {index.parent / name} is missing, which {index.name} names: download it again")
    return [index.parent / name for name in names]


Entries = Iterator[tuple[str, tuple[int, ...], Callable[[], Tensor]]]


def _tensors(file: Path, what: str) -> Entries:
    """Name, shape, and what reads the value of each tensor of a file."""
    try:
        yield from _safe(file) if file.suffix == ".safetensors" else _pickled(file)
    except PackError:
        raise
    except Exception as error:  # torch and safetensors raise a dozen unrelated types for a damaged file
        raise PackError(
            f"{what}: {file} cannot be read ({_line(error)}): it is damaged or was not downloaded whole, get it again"
        ) from error


def _safe(file: Path) -> Entries:
    with safe_open(file, "pt") as opened:
        shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118

    def reader(name: str) -> Callable[[], Tensor]:
        def read() -> Tensor:
            with safe_open(file, "pt") as again:
                return again.get_tensor(name)  # type: ignore[no-any-return]

        return read

    for name, shape in shapes.items():
        yield name, shape, reader(name)


def _pickled(file: Path) -> Entries:
    """weights_only: nothing but tensors is made from a pickle. mmap: their values stay on the disk until used."""
    loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=_is_zip(file))
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise PackError(f"{file} holds more than named tensors; expected a state dict as released")
    for name, tensor in loaded.items():
        yield name, tuple(tensor.shape), partial(loaded.__getitem__, name)


def _is_zip(file: Path) -> bool:
    """Files of torch before 1.6 cannot be mapped."""
    with file.open("rb") as opened:
        return opened.read(2) == b"PK"


def check_keys(found: Checkpoint, module: nn.Module) -> None:
    """Every key and shape of the module, and no other; PackError names each that is missing, unexpected, misshapen."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    check_shapes(found.what, found.shapes, expected)


def check_shapes(what: str, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    """As `check_keys`, for tables of shapes."""
    missing = [f"missing {name} {list(shape)}" for name, shape in expected.items() if name not in found]
    unexpected = [f"unexpected {name}" for name in found if name not in expected]
    misshapen = [
        f"{name} is {list(found[name])}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    problems = missing + unexpected + misshapen
    if problems:
        counts = f"{len(missing)} missing, {len(unexpected)} unexpected, {len(misshapen)} misshapen"
        raise PackError(f"{what} does not fit ({counts} of {len(expected)} tensors): {'; '.join(problems)}")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A config.json. PackError if it is missing or no table."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PackError(f"{what}: {path} cannot be read ({_line(error)}), expected it as released") from error
    if not isinstance(found, dict):
        raise PackError(f"{what}: {path} holds no table, expected the config as released")
    return found


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"
