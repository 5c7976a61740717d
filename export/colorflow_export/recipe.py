"""What to build of a pack: engines/recipes/*.toml, or the same as flags of the command line."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from colorflow_export.engine_graphs import VARIANTS, Wanted
from colorflow_rt.engine_set import PRECISIONS, TARGETS
from colorflow_rt.errors import OptionError, PackError, check_choice
from colorflow_rt.pack_config import GRAPHS, PackConfig
from colorflow_rt.records import read_toml

_OPSETS = {"onnx-cpu": 20, "onnx-cuda": 20, "tensorrt": 21}
_PRECISIONS = {"onnx-cpu": "fp32", "onnx-cuda": "fp16", "tensorrt": "fp16"}


@dataclass(frozen=True)
class Recipe:
    """What to build. OptionError names the valid choices.

    shapes: pages (W, H) in pixels; the canvas is twice that. batches: pages at once. guidance: which forms of
    denoise_step a model with text gets: "guided" (both halves), "prompt" (guidance 1), "empty" (guidance 0).
    graphs: which of the pack's. opset 0, precision "", shapes () stand for the usual ones of the target and the pack.
    """

    pack: str
    target: str = "onnx-cpu"
    precision: str = ""
    shapes: tuple[tuple[int, int], ...] = ()
    batches: tuple[int, ...] = (1,)
    guidance: tuple[str, ...] = ("guided", "prompt")
    opset: int = 0
    graphs: tuple[str, ...] = GRAPHS

    def __post_init__(self) -> None:
        check_choice("target", self.target, TARGETS)
        if self.precision:
            check_choice("precision", self.precision, tuple(PRECISIONS))
        for name in self.graphs:
            check_choice("graph", name, GRAPHS)
        for name in self.guidance:
            check_choice("guidance", name, tuple(VARIANTS))
        if not self.batches or not all(1 <= batch <= 64 for batch in self.batches):
            raise OptionError(f"batches are {list(self.batches)}, expected one or more of 1 to 64")
        least = 21 if self.target == "tensorrt" and self.precision == "fp16" else 20
        if self.opset and not least <= self.opset <= 22:
            raise OptionError(f"opset is {self.opset}: {self.target} {self.precision} takes {least} to 22")

    def settled(self, config: PackConfig) -> "Recipe":
        """With nothing left open; OptionError where a page does not suit the pack."""
        precision = self.precision or _PRECISIONS[self.target]
        shapes = self.shapes or config.pages.sizes
        for width, height in shapes:
            multiple = config.pages.multiple
            if min(width, height) < multiple or width % multiple or height % multiple:
                raise OptionError(f"shape {width}x{height}: sides of a page are multiples of {multiple}")
        guidance = self.guidance if config.model.text_tokens else ()
        opset = self.opset or _OPSETS[self.target]
        return replace(self, precision=precision, shapes=shapes, guidance=guidance, opset=opset)

    def wanted(self) -> Iterator[Wanted]:
        """Every ONNX file of a settled recipe; clip_encoder, which no page shape concerns, once."""
        if GRAPHS[0] in self.graphs:
            yield Wanted(GRAPHS[0], "", None, 0)
        for page in dict.fromkeys(self.shapes):
            for batch in sorted(set(self.batches)):
                for graph in [name for name in GRAPHS[1:] if name in self.graphs]:
                    variants = self.guidance if graph == "denoise_step" else ()
                    yield from (Wanted(graph, variant, page, batch) for variant in variants or ("",))


def read_recipe(name: str | Path, **changes: Any) -> Recipe:
    """A recipe of a file, or of a name in `recipes`; `changes` that are not empty take the place of what it says.

    OptionError says what is wrong in it.
    """
    known = recipes()
    path = known.get(str(name), Path(name))
    if not path.is_file():
        raise OptionError(f"no recipe is named {str(name)!r} and there is no such file: recipes are {', '.join(known)}")
    try:
        recipe = read_toml(Recipe, path.read_text(encoding="utf-8"))
    except (PackError, OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path}: {error}") from error
    return replace(recipe, **{key: value for key, value in changes.items() if value})


def recipes() -> dict[str, Path]:
    """The recipes that come with this package, by name."""
    here = Path(__file__).parent
    folder = next((f for f in (here / "recipes", here.parent.parent / "engines" / "recipes") if f.is_dir()), here)
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}
