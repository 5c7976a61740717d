"""What a caller may choose for a page: one frozen record, checked when it is made."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from colorflow_rt.canvas import FITS
from colorflow_rt.context import MODES, STYLES
from colorflow_rt.errors import OptionError, check_choice
from colorflow_rt.upscale import LUMINANCES

MAX_STEPS = 1000
MAX_MARGIN = 4096  # pixels


@dataclass(frozen=True)
class ColorizeOptions:
    """How pages are coloured. Every value is checked here: OptionError names the valid choices.

    steps: denoising steps, 1 to 1000; None takes the pack's default.
    guidance_scale: classifier-free guidance, 0 to 50; None takes the pack's default, 1.0 leaves it out.
    guidance_steps: guidance in the first so many steps only; None: in all. Faster, and another picture.
    guider_steps: the guider is evaluated in so many of the steps, the first and the last among them, and its features
        are used again in the others: faster, and nearly the same picture. None takes the pack's default; as many as
        there are steps, or more, is every step.
    decode_margin: decode only the page and so many pixels around it, not the whole canvas; None: all of it, exactly.
    seed: of the initial noise, 0 to 2**64 - 1. The same seed, page, references and pack give the same bytes.
    style: what the page looks like; "auto" detects it (`context.detect_style` states the rule).
    fit: "pad" loses nothing of the page and colours long strips in windows; "crop" is the authors' demo.
    luminance: "page", "lines" or "model" (`upscale.merge`); "auto": "page" for gray pages, else "lines".
    saturation: factor on the colours' chroma, 0 to 2.
    context: the picture in the canvas centre: "page" as it is, "blend" 50/50 with its screentone;
        "auto" takes the pack's.
    chroma_layer: also return the colours alone, as RGBA (`Result.chroma`).
    pinned: names (or tags) of references that must appear on the canvas.
    banned: names (or tags) of references that must not.
    preview_every: a preview after every so many steps, if the call was given `on_preview`; 0: none.
    size: working size (width, height) of the model, multiples of the pack's `multiple` (32); None takes the
        pack's size that is nearest in aspect.
    """

    steps: int | None = None
    guidance_scale: float | None = None
    seed: int = 0
    style: str = "auto"
    fit: str = "pad"
    luminance: str = "auto"
    saturation: float = 1.0
    context: str = "auto"
    chroma_layer: bool = False
    pinned: tuple[str, ...] = ()
    banned: tuple[str, ...] = ()
    preview_every: int = 0
    size: tuple[int, int] | None = None
    guidance_steps: int | None = None
    decode_margin: int | None = None
    guider_steps: int | None = None

    def __post_init__(self) -> None:
        check_choice("style", self.style, ("auto", *STYLES))
        check_choice("fit", self.fit, FITS)
        check_choice("luminance", self.luminance, LUMINANCES)
        check_choice("context", self.context, ("auto", *MODES))
        if self.steps is not None:
            _whole("steps", self.steps, 1, MAX_STEPS)
        if self.guidance_scale is not None:
            _real("guidance_scale", self.guidance_scale, 0.0, 50.0)
        if self.guidance_steps is not None:
            _whole("guidance_steps", self.guidance_steps, 0, MAX_STEPS)
        if self.guider_steps is not None:
            _whole("guider_steps", self.guider_steps, 1, MAX_STEPS)
        if self.decode_margin is not None:
            _whole("decode_margin", self.decode_margin, 0, MAX_MARGIN)
        _whole("seed", self.seed, 0, 2**64 - 1)
        _real("saturation", self.saturation, 0.0, 2.0)
        _whole("preview_every", self.preview_every, 0, MAX_STEPS)
        object.__setattr__(self, "pinned", _names("pinned", self.pinned))
        object.__setattr__(self, "banned", _names("banned", self.banned))
        if both := sorted(set(self.pinned) & set(self.banned)):
            raise OptionError(f"a reference cannot be both pinned and banned: {', '.join(both)}")
        if self.size is not None:
            object.__setattr__(self, "size", _size(self.size))


def _whole(option: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise OptionError(f"{option} must be a whole number from {low} to {high}, got {value!r}")


def _real(option: str, value: object, low: float, high: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type,operator]
        raise OptionError(f"{option} must be a number from {low:g} to {high:g}, got {value!r}")


def _names(option: str, value: Iterable[str]) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(name, str) and name for name in names):
        raise OptionError(f"{option} takes names of references, got {value!r}")
    return names


def _size(value: Iterable[int]) -> tuple[int, int]:
    """Two whole numbers; that they suit the pack is seen when it is known."""
    size = tuple(value)
    if len(size) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in size):
        raise OptionError(f"size must be (width, height) in pixels, got {size!r}")
    return size[0], size[1]
