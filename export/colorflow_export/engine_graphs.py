"""The graphs of a pack as engines want them: fixed shapes, one precision inside, what is constant computed beforehand.

Only the structure of the networks is built here: their weights stay where they are on the disk, and the ONNX files
point to them. So a full-size model needs little memory, whatever its weights.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from colorflow_export.graphs import DenoiseStep, Graph, graphs_of
from colorflow_export.modules.attention import use_engine_attention
from colorflow_export.modules.bundle import Modules
from colorflow_export.weights import Place, read_places
from colorflow_rt.errors import PackError
from colorflow_rt.pack_config import PackConfig

DTYPES = {"float16": torch.float16, "float32": torch.float32}
VARIANTS = {"guided": ("negative_prompt_embeds", "prompt_embeds"), "prompt": ("prompt_embeds",)}
VARIANTS |= {"empty": ("negative_prompt_embeds",)}
TEXT = "text_keys"  # name of the file with the prompt's keys and values, before its precision
CUTS = "float16 holds values up to 65504: build with --precision fp32"


@dataclass(frozen=True)
class Wanted:
    """One ONNX file to make: a graph at the shape that it has for pages of (W, H), `batch` at once."""

    graph: str
    variant: str
    page: tuple[int, int] | None
    batch: int

    @property
    def stem(self) -> str:
        """Name of its files, without suffix."""
        size = f"{self.page[0]}x{self.page[1]}x{self.batch}" if self.page else ""
        return ".".join(part for part in (self.graph, self.variant, size) if part)


class EngineStep(DenoiseStep):
    """One step with the prompt's keys and values as constants.

    "guided": both halves, the part of the U-Net before the first cross-attention, which is the same in both, only
    once. "prompt", "empty": one half alone, for guidance 1 and 0; the graph then takes no guidance_scale.
    """

    def halves(self, x: Tensor, timestep: Tensor, controls: list[Tensor]) -> Tensor:
        return self.unet(x, timestep, None, controls)  # type: ignore[no-any-return]


def engine_modules(config: PackConfig, precision: str, variant: str, form: str) -> Modules:
    """The structure of a pack's networks for an engine, without weights (`Modules.hollow`).

    form: of the attention, "explicit" or "fused" (`modules.attention`). variant: "" for a model without text.
    """
    modules = Modules.hollow(config.modules, config.model, config.pages.fusion_statistics, DTYPES[precision])
    prompts = len(VARIANTS[variant]) if variant else 0
    use_engine_attention(modules.guider, form, 0, 0)
    use_engine_attention(modules.unet, form, prompts, config.model.text_tokens)
    if prompts == 2:
        double_at_first_text(modules.unet)
    nn.Module.to(modules.unet, DTYPES[precision])  # the prompt's keys and values are new; not diffusers' `to`, it warns
    return modules


def engine_graph(modules: Modules, config: PackConfig, wanted: Wanted) -> Graph:
    """The record of one graph at its fixed shape; without guidance_scale where the variant needs none."""
    graph = next(graph for graph in graphs_of(modules) if graph.name == wanted.graph)
    if wanted.graph == "denoise_step" and wanted.variant:
        left_out = set() if wanted.variant == "guided" else {"guidance_scale"}
        inputs = tuple(spec for spec in graph.inputs if spec.name not in left_out)
        graph = Graph(graph.name, inputs, graph.outputs, EngineStep, graph.multiples)
    return graph.fixed(**lengths(config, wanted)) if wanted.page else graph


def lengths(config: PackConfig, wanted: Wanted) -> dict[str, int]:
    """Lengths of the named axes: the canvas is twice the page, super-resolution gsrp_scale times it."""
    assert wanted.page is not None
    (width, height), factor = wanted.page, config.model.vae_factor
    if wanted.graph == "gsrp":
        scale = config.pages.gsrp_scale
        return {"B": wanted.batch, "W": round(width * scale), "H": round(height * scale)}
    w, h = 2 * width // factor, 2 * height // factor
    return {"B": wanted.batch, "W": 2 * width, "H": 2 * height, "w": w, "h": h}


def write_engine_weights(pack: Path, config: PackConfig, out: Path, precision: str) -> Iterator[Path]:
    """Put the weights for engines into `out`, one file after another; yields each when it is there.

    float32: the pack's own files, copied. float16: cast; PackError where a value is too large.
    Where the model has text, also the keys and values of its prompts.
    """
    for name in weight_files(config):
        path = out / engine_file(name, precision)
        if precision == "float32":
            shutil.copyfile(pack / name, path)  # no links: ONNX refuses external data that has two names
        else:
            _save(_cast(pack / name), path)
        yield path
    if config.model.text_tokens:
        path = out / f"{TEXT}.{precision}.safetensors"
        _save(text_keys(pack, config, DTYPES[precision]), path)
        yield path


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path)
    path.chmod(0o644)  # safetensors makes it readable by its owner only


def weight_files(config: PackConfig) -> list[str]:
    """Names of the pack's files of weights."""
    return [name for name in sorted(config.files) if name.endswith(".safetensors")]


def engine_file(name: str, precision: str) -> str:
    """What a pack's file of weights is called beside the engines."""
    return name if precision == "float32" else f"{name.removesuffix('.safetensors')}.{precision}.safetensors"


def _cast(path: Path) -> dict[str, Tensor]:
    cast = {}
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            tensor = file.get_tensor(name)
            cast[name] = tensor.half() if tensor.is_floating_point() else tensor
            if tensor.is_floating_point() and not torch.isfinite(cast[name]).all():
                raise PackError(f"{name} of {path.name} has values that are not finite in float16: {CUTS}")
    return cast


def text_keys(pack: Path, config: PackConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    """Keys and values [2,N,C] of every cross-attention of the U-Net, the negative prompt first."""
    tensors: dict[str, Tensor] = {}
    wanted = (".attn2.to_k.weight", ".attn2.to_v.weight")
    for name in weight_files(config):
        with safe_open(pack / name, "pt") as file:
            found = [key for key in file.keys() if key.startswith("text.") or key.endswith(wanted)]  # noqa: SIM118
            tensors |= {key: file.get_tensor(key).float() for key in found}
    prompts = torch.stack([tensors.pop(f"text.{name}") for name in VARIANTS["guided"]])
    made = {_processor_name(name): (prompts @ weight.T).to(dtype) for name, weight in tensors.items()}
    return {name: tensor.contiguous() for name, tensor in made.items()}


def _processor_name(name: str) -> str:
    """State-dict key of the constant that takes the place of a layer of this key."""
    stem, layer, _ = name.rsplit(".", 2)
    return f"{stem}.processor.{'keys' if layer == 'to_k' else 'values'}"


def engine_places(files: Mapping[str, Path], variant: str) -> dict[str, Place]:
    """Where every weight lies, of files by name; of keys and values of both prompts those that the variant needs."""
    places: dict[str, Place] = {}
    for name, path in files.items():
        found = read_places(path)
        places |= {key: _prompt(place, variant) for key, place in found.items()} if name == TEXT else found
    return places


def _prompt(place: Place, variant: str) -> Place:
    if variant == "guided":
        return place
    length = place.length // 2
    offset = place.offset + (length if variant == "prompt" else 0)
    return Place(place.file, place.dtype, (1, *place.shape[1:]), offset, length)


def double_at_first_text(unet: Any) -> None:
    """Let the first attention layer over text double the batch: until then both guidance halves are the same."""
    layer = next(block.attentions[0] for block in unet.down_blocks if hasattr(block, "attentions"))
    layer.__class__ = type("Doubling", (Doubling, type(layer)), {})


class Doubling:
    """A Transformer2DModel of one block that takes [B,C,h,w] and gives [2B,C,h,w]: both guidance halves."""

    def forward(
        self: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, return_dict: bool = False
    ) -> tuple[Tensor]:
        batch, _, height, width = hidden_states.shape
        residual = torch.cat([hidden_states, hidden_states])
        tokens, channels = self._operate_on_continuous_inputs(hidden_states)
        (block,) = self.transformer_blocks
        tokens = block.attn1(block.norm1(tokens)) + tokens
        tokens = torch.cat([tokens, tokens])
        tokens = block.attn2(block.norm2(tokens)) + tokens
        tokens = block.ff(block.norm3(tokens)) + tokens
        found = self._get_output_for_continuous_inputs(tokens, residual, 2 * batch, height, width, channels)
        return (found,)
