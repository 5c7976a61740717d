"""pack.toml as frozen records: read with every key, type and range checked, and written back.

The schema is docs/pack.md, and `graph_tensors` is its table of graphs. Making a record checks its ranges, so what
the export package writes can be read.
"""

import re
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from colorflow_rt.engine.protocol import TensorSpec
from colorflow_rt.errors import OptionError, PackError
from colorflow_rt.records import read_record, write_toml
from colorflow_rt.schedule import PREDICTION_TYPES, NoiseConfig, SchedulerConfig

SCHEMA = 1
GRAPHS = ("clip_encoder", "vae_encoder", "denoise_step", "vae_decoder", "gsrp")
REUSE_GRAPHS = ("guider", "denoise_reuse")  # denoise_step in two calls; a pack has both or neither
FEATURE = "feature_"  # the guider's outputs are called this and a number
MODULES = ("unet", "guider", "vae", "fusion", "clip")


@dataclass(frozen=True)
class ModelConfig:
    """[model]: what the tensors between the graphs look like."""

    latent_channels: int
    vae_factor: int
    scaling_factor: float
    condition_channels: int
    luminance_planes: int
    prediction_type: str
    text_tokens: int = 0
    text_dim: int = 0

    def __post_init__(self) -> None:
        c, f, planes = self.latent_channels, self.vae_factor, self.luminance_planes
        _check("model.latent_channels", c, c >= 1, "1 or more")
        _check("model.vae_factor", f, f >= 1 and f & (f - 1) == 0, "a power of two")
        _check("model.scaling_factor", self.scaling_factor, self.scaling_factor > 0, "more than 0")
        with_inner = f"{c + 1} (canvas latents and mask) or {2 * c + 1} (with latents of the centre alone)"
        wanted = (c + 1, 2 * c + 1)
        _check("model.condition_channels", self.condition_channels, self.condition_channels in wanted, with_inner)
        _check("model.luminance_planes", planes, planes >= 0 and planes % 8 == 0, "a multiple of 8")
        _choice("model.prediction_type", self.prediction_type, PREDICTION_TYPES)
        text = (self.text_tokens, self.text_dim)
        _check("model.text_tokens, text_dim", text, text == (0, 0) or min(text) > 0, "both 0 or both more")

    @property
    def has_inner(self) -> bool:
        """Whether the condition holds the latents of the centre alone (9-channel packs)."""
        return self.condition_channels == 2 * self.latent_channels + 1

    @property
    def condition_planes(self) -> int:
        """K: channels of the whole condition."""
        return self.condition_channels + self.luminance_planes


@dataclass(frozen=True)
class StyleConfig:
    """[style]: what the pages of this model look like, and what stands in the middle of its canvas."""

    inputs: tuple[str, ...]
    context: str

    def __post_init__(self) -> None:
        _check("style.inputs", self.inputs, len(self.inputs) > 0, "one or more styles")
        for style in self.inputs:
            _choice("style.inputs", style, ("gray", "screentone", "lineart"))
        _choice("style.context", self.context, ("page", "blend"))


@dataclass(frozen=True)
class PagesConfig:
    """[pages]: working sizes (width, height) in pixels."""

    sizes: tuple[tuple[int, int], ...]
    multiple: int
    gsrp_scale: float
    fusion_statistics: str
    resample: str = "bicubic"
    screentone: str = "kept"
    chroma_noise: float = 0.0
    palette_noise: float = 0.0

    def __post_init__(self) -> None:
        _check("pages.multiple", self.multiple, self.multiple >= 1, "1 or more")
        _check("pages.sizes", self.sizes, len(self.sizes) > 0, "one or more sizes")
        for size in self.sizes:
            fits = all(side > 0 and side % self.multiple == 0 for side in size)
            _check("pages.sizes", size, fits, f"multiples of {self.multiple}")
        _check("pages.gsrp_scale", self.gsrp_scale, 1 <= self.gsrp_scale <= 8, "1 to 8")
        _choice("pages.screentone", self.screentone, ("kept", "removed"))
        _choice("pages.resample", self.resample, ("bicubic", "box"))
        _check("pages.chroma_noise", self.chroma_noise, 0 <= self.chroma_noise <= 255, "0 to 255 levels")
        _check("pages.palette_noise", self.palette_noise, 0 <= self.palette_noise <= 255, "0 to 255 levels")
        _choice("pages.fusion_statistics", self.fusion_statistics, ("running", "batch"))


@dataclass(frozen=True)
class EncoderConfig:
    """[encoder]: how a patch becomes the input of clip_encoder, and the length of its embedding."""

    id: str
    image_size: int
    crop: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dim: int

    def __post_init__(self) -> None:
        _check("encoder.image_size", self.image_size, self.image_size >= 1, "1 or more")
        _choice("encoder.crop", self.crop, ("whole", "center"))
        _check("encoder.std", self.std, min(self.std) > 0, "more than 0")
        _check("encoder.dim", self.dim, self.dim >= 1, "1 or more")


@dataclass(frozen=True)
class DefaultsConfig:
    """[defaults]: what is taken where the caller does not choose. guider_steps: 0 stands for every step."""

    steps: int
    guidance_scale: float
    fit: str
    guider_steps: int = 0

    def __post_init__(self) -> None:
        _check("defaults.steps", self.steps, self.steps >= 1, "1 or more")
        _check("defaults.guidance_scale", self.guidance_scale, 0 <= self.guidance_scale <= 50, "0 to 50")
        _choice("defaults.fit", self.fit, ("pad", "crop"))
        few = self.guider_steps
        _check("defaults.guider_steps", few, few == 0 or few >= 2, "0 (every step), or 2 or more")


@dataclass(frozen=True)
class GraphConfig:
    """[graphs.NAME]: the file of a graph and its tensors."""

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class PackConfig:
    """A whole pack.toml. `files` maps the name of every other file of the pack to "sha256:" and its hash."""

    schema: int
    name: str
    version: str
    license: str
    description: str
    model: ModelConfig
    style: StyleConfig
    pages: PagesConfig
    encoder: EncoderConfig
    scheduler: NoiseConfig
    defaults: DefaultsConfig
    graphs: dict[str, GraphConfig]
    files: dict[str, str]
    modules: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check("schema", self.schema, self.schema == SCHEMA, f"{SCHEMA}: another ColorFlow RT can read this")
        _check("name", self.name, re.fullmatch("[a-z0-9-]+", self.name) is not None, "a-z, 0-9 and - only")
        one_line = self.description.isprintable()
        _check("description", self.description, one_line, "one line of text")
        most = self.scheduler.num_train_timesteps
        _check("defaults.steps", self.defaults.steps, self.defaults.steps <= most, f"1 to {most}")
        f, multiple = self.model.vae_factor, self.pages.multiple
        _check("pages.multiple", multiple, multiple % f == 0, f"a multiple of vae_factor {f}")
        large = multiple * self.pages.gsrp_scale
        _check("pages.gsrp_scale", large / multiple, large % f == 0, f"{multiple} times it a multiple of {f}")
        for name in self.modules:
            _choice("modules", name, MODULES)
        _check_files(self.files)
        self._check_graphs()

    def _check_graphs(self) -> None:
        wanted = {*GRAPHS, *REUSE_GRAPHS} if self.reuses else {*GRAPHS}
        optional = " and ".join(REUSE_GRAPHS)
        _check("graphs", sorted(self.graphs), self.graphs.keys() == wanted, f"{', '.join(GRAPHS)}; or {optional} too")
        expected, few = graph_tensors(self.model, self.encoder), self.defaults.guider_steps
        if self.reuses:
            _check_features("graphs.guider.outputs", self.graphs["guider"].outputs)
            expected |= reuse_tensors(self.model, self.graphs["guider"].outputs)
        _check("defaults.guider_steps", few, few == 0 or self.reuses, f"0: the pack has no graphs {optional}")
        for name, graph in self.graphs.items():
            _check(f"graphs.{name}.file", graph.file, graph.file in self.files, "a file listed in [files]")
            _check_tensors(f"graphs.{name}.inputs", graph.inputs, expected[name][0])
            _check_tensors(f"graphs.{name}.outputs", graph.outputs, expected[name][1])

    @property
    def reuses(self) -> bool:
        """Whether it has the graphs that let the guider's features be used again in later steps."""
        return any(name in self.graphs for name in REUSE_GRAPHS)

    @property
    def scheduler_config(self) -> SchedulerConfig:
        """[scheduler] and the model's prediction type, as `Schedule.create` takes them."""
        return SchedulerConfig(**asdict(self.scheduler), prediction_type=self.model.prediction_type)

    def to_toml(self) -> str:
        """The text of pack.toml."""
        return write_toml(self)

    @classmethod
    def from_toml(cls, text: str) -> "PackConfig":
        """The record of a pack.toml's text; PackError names the first thing that is wrong in it."""
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise PackError(f"not TOML: {error}") from error
        schema = table.get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise PackError(f"schema is {schema}, this ColorFlow RT reads up to {SCHEMA}: upgrade it")
        try:
            return read_record(cls, table)
        except OptionError as error:
            raise PackError(f"scheduler: {error}") from error


def read_pack_toml(path: Path) -> PackConfig:
    """The record of a pack.toml; PackError names the file and the first thing that is wrong in it."""
    try:
        return PackConfig.from_toml(path.read_text(encoding="utf-8"))
    except (PackError, OSError, UnicodeDecodeError) as error:
        raise PackError(f"{path}: {error}") from error


Tensors = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]


def graph_tensors(model: ModelConfig, encoder: EncoderConfig) -> dict[str, Tensors]:
    """Inputs and outputs of every graph that all packs have: the table of docs/pack.md for these dimensions."""
    f, latent = model.vae_factor, ("B", model.latent_channels, "h", "w")
    image = TensorSpec("image", "float32", ("B", 3, "H", "W"))
    pixels = ("B", 3, encoder.image_size, encoder.image_size)
    large = (_f32("color", "B", 3, "H", "W"), _f32("bw", "B", 3, "H", "W"))
    return {
        "clip_encoder": ((_f32("pixel_values", *pixels),), (_f32("image_embeds", "B", encoder.dim),)),
        "vae_encoder": ((image,), (_f32("latents", "B", model.latent_channels, f"H/{f}", f"W/{f}"),)),
        "denoise_step": (_step_inputs(model), (_f32("sample_next", *latent), _f32("x0", *latent))),
        "vae_decoder": ((_f32("latents", *latent),), (_f32("image", "B", 3, f"h*{f}", f"w*{f}"),)),
        "gsrp": (large, (image,)),
    }


def reuse_tensors(model: ModelConfig, features: tuple[TensorSpec, ...]) -> dict[str, Tensors]:
    """Inputs and outputs of the two optional graphs, for a guider with these features."""
    step = _step_inputs(model)
    seen = ("sample", "x0_prev1", "x0_prev2", "condition", "timestep", "predictor")
    rest = tuple(spec for spec in step if spec.name != "condition")
    latent = ("B", model.latent_channels, "h", "w")
    return {
        "guider": (tuple(spec for spec in step if spec.name in seen), features),
        "denoise_reuse": ((*rest, *features), (_f32("sample_next", *latent), _f32("x0", *latent))),
    }


def feature_name(number: int) -> str:
    """Of the guider's outputs, from 0 on."""
    return f"{FEATURE}{number:02d}"


def _step_inputs(model: ModelConfig) -> tuple[TensorSpec, ...]:
    latent = ("B", model.latent_channels, "h", "w")
    inputs = (
        _f32("sample", *latent),
        _f32("x0_prev1", *latent),
        _f32("x0_prev2", *latent),
        _f32("condition", "B", model.condition_planes, "h", "w"),
        TensorSpec("timestep", "int64", ("B",)),
        _f32("predictor", "B", 3),
        _f32("denoiser", "B", 2),
        _f32("corrector", "B", 4),
    )
    return (*inputs, _f32("guidance_scale", "B")) if model.text_tokens else inputs


def _f32(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name, "float32", shape)


def _check_tensors(where: str, found: tuple[TensorSpec, ...], expected: tuple[TensorSpec, ...]) -> None:
    """The tensors of the table, in any order; an axis that it leaves open may be fixed or named otherwise."""
    given = {spec.name: spec for spec in found}
    names = [spec.name for spec in expected]
    _check(where, list(given), len(found) == len(names) and given.keys() == set(names), ", ".join(names))
    for spec in expected:
        _check(where, str(given[spec.name]), spec.allows(given[spec.name]), str(spec))


def _check_features(where: str, found: tuple[TensorSpec, ...]) -> None:
    """One feature or more, numbered in order, each f32[B,c,h/s,w/s] with its own c and s."""
    names = [spec.name for spec in found]
    numbered = [feature_name(number) for number in range(len(found))]
    _check(where, names, names == numbered and names != [], "feature_00, feature_01 and so on")
    for spec in found:
        image = spec.dtype == "float32" and len(spec.shape) == 4 and isinstance(spec.shape[1], int)
        _check(where, str(spec), image, f"{spec.name} float32[B, channels, height, width]")


def _check_files(files: dict[str, str]) -> None:
    for name, digest in files.items():
        path = PurePosixPath(name)
        inside = not path.is_absolute() and ".." not in path.parts and str(path) == name and name != "."
        plain = inside and re.search(r'[\\:*?"<>|\x00-\x1f]', name) is None
        _check("files", name, plain, "the name of a file inside the pack's folder")
        form = re.fullmatch("sha256:[0-9a-f]{64}", digest) is not None
        _check(f"files.{name}", digest, form, "sha256: and 64 hexadecimal digits")


def _check(where: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise PackError(f"{where} is {value!r}, expected {expected}")


def _choice(where: str, value: str, choices: tuple[str, ...]) -> None:
    _check(where, value, value in choices, "one of " + ", ".join(choices))
