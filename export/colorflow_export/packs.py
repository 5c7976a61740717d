"""Model packs from PyTorch modules, and back (docs/pack.md)."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colorflow_export.checkpoints import load_strict, read_tensors
from colorflow_export.graphs import graphs_of
from colorflow_export.modules.bundle import Modules
from colorflow_export.to_onnx import OPSET, export_graph, write_graph
from colorflow_export.weights import Place, stored_tensors, write_weights
from colorflow_rt.errors import OutputError, PackError
from colorflow_rt.pack import file_hash, installed_packs, open_pack
from colorflow_rt.pack_config import (
    SCHEMA,
    DefaultsConfig,
    EncoderConfig,
    GraphConfig,
    PackConfig,
    PagesConfig,
    StyleConfig,
)
from colorflow_rt.schedule import NoiseConfig

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class PackRecipe:
    """What pack.toml says beyond what the modules themselves tell. `modules`: constructor arguments, by part."""

    name: str
    version: str
    license: str
    description: str
    style: StyleConfig
    pages: PagesConfig
    encoder: EncoderConfig
    scheduler: NoiseConfig
    defaults: DefaultsConfig
    modules: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, config: PackConfig) -> "PackRecipe":
        """The recipe that an existing pack was made by."""
        return cls(**{name: getattr(config, name) for name in cls.__dataclass_fields__})


def write_pack(
    modules: Modules,
    recipe: PackRecipe,
    out: Path,
    *,
    storage: str = "float16",
    opset: int = OPSET,
    on_graph: Callable[[str], None] = lambda name: None,
) -> PackConfig:
    """Write the pack folder `out`: weights once, the graphs that point into them, pack.toml. All of it or nothing.

    A pack that is already there is replaced. The same modules and recipe give the same bytes. storage: "float16", cast
    when a graph is loaded, or "float32". on_graph hears the name of each graph before its export, which takes seconds
    to minutes. OutputError if `out` cannot be written or is a folder that holds something else.
    """
    with whole_folder(out) as folder:
        places = write_weights(stored_tensors(modules, storage), folder / WEIGHTS)
        return write_graphs(modules, recipe, places, folder, opset, on_graph)


def write_graphs(
    modules: Modules,
    recipe: PackRecipe,
    places: Mapping[str, Place],
    folder: Path,
    opset: int = OPSET,
    on_graph: Callable[[str], None] = lambda name: None,
) -> PackConfig:
    """Every graph of the modules, whose weights lie at `places` in the folder already, and pack.toml.

    A recipe that evaluates the guider in some steps only (defaults.guider_steps) has the two graphs for that, too.
    """
    graphs = {}
    for graph in graphs_of(modules, reuse=recipe.defaults.guider_steps > 0):
        on_graph(graph.name)
        graphs[graph.name] = GraphConfig(f"{graph.name}.onnx", graph.inputs, graph.outputs)
        write_graph(export_graph(graph, modules, places, opset), folder / f"{graph.name}.onnx")
    config = PackConfig(
        schema=SCHEMA,
        model=modules.model,
        graphs=graphs,
        files={path.name: file_hash(path) for path in sorted(folder.iterdir())},
        **{name: getattr(recipe, name) for name in PackRecipe.__dataclass_fields__},
    )
    (folder / "pack.toml").write_text(config.to_toml(), encoding="utf-8")
    return config


def load_modules(pack: str | Path) -> Modules:
    """The PyTorch modules of a pack, in float32, rebuilt from its weights alone.

    Every file is checked first. PackError if the pack does not describe its modules or a weight does not fit.
    """
    opened = open_pack(pack)
    opened.verify()
    config = opened.config
    missing = [part for part in ("unet", "guider", "vae", "clip") if part not in config.modules]
    if missing:
        parts = ", ".join(missing)
        raise PackError(f"pack {config.name} cannot be rebuilt: [modules] of its pack.toml lacks {parts}")
    modules = Modules.hollow(config.modules, config.model, config.pages.fusion_statistics, torch.float32)
    tensors: dict[str, Tensor] = {}
    for name in sorted(config.files):
        if name.endswith(".safetensors"):
            tensors |= read_tensors(pack_folder(pack) / name)
    for part, module in modules.parts().items():
        prefix = f"{part}."
        own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        load_strict(module, own, part)
    if config.model.text_tokens:
        modules.prompt_embeds = tensors["text.prompt_embeds"]
        modules.negative_prompt_embeds = tensors["text.negative_prompt_embeds"]
    return modules


def pack_folder(pack: str | Path) -> Path:
    """The folder of a pack that `open_pack` knows by this name or path."""
    folder = Path(pack)
    return folder if (folder / "pack.toml").is_file() else installed_packs()[str(pack)]


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to write to, which takes the place of `out` when all went well."""
    if out.exists() and not (out / "pack.toml").is_file() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is there and is not a pack: choose another folder")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}; choose another folder") from error
    try:
        yield made
        made.chmod(0o755)
        _replace(made, out)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _replace(made: Path, out: Path) -> None:
    """Every file of `made` on the disk, then `made` under the name `out`; what was there goes into `made`'s place."""
    for path in made.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if not out.exists():
        made.rename(out)
        return
    old = made.with_name(f"{made.name}.old")
    out.rename(old)
    try:
        made.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old)
