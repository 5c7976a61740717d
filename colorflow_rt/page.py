"""The way of a page, from its bytes to its colours: docs/architecture.md as a program.

A `PageRun` is one page between its stages; whoever holds it runs the loop over the slots of its windows. The
`Colorizer` runs them one after another, the server's scheduler lets pages share each call of the engine.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from colorflow_rt import latents as lat
from colorflow_rt.canvas import (
    CELLS,
    Box,
    Fit,
    Placement,
    assemble,
    centre,
    choose_size,
    fit_page,
    join,
    query_patches,
    unfit,
    windows,
)
from colorflow_rt.context import Mode, context_image, detect_style
from colorflow_rt.denoise import Slot
from colorflow_rt.errors import OptionError
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pack import Pack
from colorflow_rt.palette import Colours, sources
from colorflow_rt.pixels import Limits, Picture, Source, is_colored, luminance, read_picture
from colorflow_rt.pool import PatchEncoder, Pool, Ranked, Tiles, choose, in_colour
from colorflow_rt.references import Reference
from colorflow_rt.refine import refiner
from colorflow_rt.result import Match, Result
from colorflow_rt.schedule import Schedule
from colorflow_rt.timing import StageClock
from colorflow_rt.upscale import chroma_layer, drawn_page, levels_of, merge, spread, super_resolve

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Size = tuple[int, int]


@dataclass(frozen=True)
class _Job:
    """What is the same for all windows of a page."""

    pool: Pool
    options: ColorizeOptions
    fit: Fit
    size: Size
    context: Mode
    schedule: Schedule
    guidance_scale: float
    guider_steps: int


@dataclass(frozen=True, eq=False)
class Window:
    """The page, or a window of a strip, u8[h0,w0,3], ready for the loop, which moves `slot`."""

    number: int
    rgb: Bytes
    placement: Placement
    canvas: Bytes
    found: Ranked
    slot: Slot


@dataclass(frozen=True)
class _Painted:
    """A window of the page as the model has coloured it, u8[h0,w0,3] of the window's size in the page.

    scale: its pixels to one that the model has painted.
    """

    image: Bytes
    canvas: Bytes
    found: Ranked
    scale: float


class PageRun:
    """One page: `open` a window, run the loop over its slot, `paint` it; when all are painted, `finish`.

    Reading is done when it is made: ImageError, or OptionError where the options do not suit the pack. A page that
    is in colour already has no windows. Not for several threads at once. clock: seconds by stage so far; the
    caller adds "denoise".
    """

    def __init__(
        self, pack: Pack, tiles: Tiles, limits: Limits, page: Source | Picture, pool: Pool, options: ColorizeOptions
    ) -> None:
        self.pack, self.clock = pack, StageClock()
        self._tiles = tiles
        with self.clock("read"):
            self._picture = page if isinstance(page, Picture) else read_picture(page, limits)
            passed = is_colored(self._picture.rgb)
            if not passed:
                self._style = detect_style(self._picture.rgb) if options.style == "auto" else options.style
        self._painted: list[_Painted] = []
        self._boxes: list[Box] = []
        if not passed:
            self._job = _job(pack, pool, options, self._picture.size)
            with self.clock("context"):
                self._drawn = drawn_page(self._picture.rgb, self._style)
            whole = [(0, 0, *self._picture.size)]
            self._boxes = windows(self._picture.size, self._job.size) if self._job.fit == "pad" else whole

    @property
    def windows(self) -> int:
        """How many there are to open."""
        return len(self._boxes)

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Where each window lies in the page: (left, top, right, bottom) in pixels."""
        return tuple(self._boxes)

    @property
    def steps(self) -> int:
        """Steps of all windows together."""
        return self.windows * len(self._job.schedule) if self.windows else 0

    def open(self, number: int) -> Window:
        """Context, retrieval, canvas and its latents. ReferencesError, OptionError, EngineError or PackError."""
        job, clock, pages = self._job, self.clock, self.pack.config.pages
        rgb = _cut(self._drawn if pages.screentone == "removed" else self._picture.rgb, self._boxes[number])
        with clock("context"):
            fitted, placement = fit_page(rgb, job.size, job.fit, pages.resample)
            context = context_image(fitted, job.context)
        with clock("retrieval"):
            found = self._retrieve(context)
        with clock("canvas"):
            hits = [hit for row in found for hit in row]
            tiles = [self._tiles.get(job.pool, hit, job.size, job.fit, pages.resample) for hit in hits]
            canvas = assemble(context, tiles)
        with clock("vae_encode"):
            condition = self._condition(canvas)
        shape = (1, self.pack.config.model.latent_channels, *condition.shape[-2:])
        noise = lat.initial_noise(job.options.seed, shape)
        slot = Slot(
            noise[0],
            condition[0],
            job.schedule,
            job.guidance_scale,
            guidance_steps=job.options.guidance_steps,
            guider_steps=job.guider_steps,
        )
        return Window(number, rgb, placement, canvas, found, slot)

    def preview(self, window: Window, x0: Floats) -> Bytes:
        """u8[h,w,3]: the window as the model sees it now; x0 f32[C,h,w] is its slot's last prediction."""
        return _cut(self._decode(x0), window.placement.box)

    def paint(self, window: Window) -> None:
        """Take the result of a window's loop: decoded, super-resolved, cut to the window. EngineError."""
        job, rgb, placement = self._job, window.rgb, window.placement
        with self.clock("vae_decode"):
            color = self._decode(window.slot.result())
        with self.clock("gsrp"):
            image = self._super_resolve(color, rgb)
        gray = np.repeat(np.rint(luminance(rgb)).astype(np.uint8)[..., None], 3, axis=2)
        drawn = (placement.box[2] - placement.box[0]) * image.shape[1] / job.size[0]
        scale = (placement.source[2] - placement.source[0]) / drawn
        self._painted.append(_Painted(unfit(image, placement, outside=gray), window.canvas, window.found, scale))

    def finish(self) -> Result:
        """The page from its painted windows; a page that was in colour as it came."""
        rgb, alpha, seconds = self._picture.rgb, self._picture.alpha, self.clock.seconds
        if not self.windows:
            return Result(rgb, alpha, None, (), seconds, "color", True, None, rgb)
        options, painted, style = self._job.options, self._painted, self._style
        scale = painted[0].scale
        with self.clock("merge"):
            refine = refiner(self.pack.config.pages, style, self._palette())
            model_image = join([window.image for window in painted], self._boxes, self._picture.size)
            image = merge(rgb, model_image, options.luminance, options.saturation, style, scale, self._drawn, refine)
            chroma = None
            if options.chroma_layer:
                colors = chroma_layer(self._drawn, model_image, options.saturation, scale, refine)
                opaque = np.full(rgb.shape[:2], 255, np.uint8)
                chroma = np.dstack([colors, opaque if alpha is None else alpha])
        found = tuple(match for number, window in enumerate(painted) for match in matches(number, window.found))
        return Result(image, alpha, chroma, found, seconds, style, False, painted[0].canvas, model_image)

    def sources(self, painted: Bytes, at: tuple[int, int]) -> list[tuple[Picture, str, Floats]]:
        """Where the colour of a pixel (x, y) of the finished page was looked up; nothing where the pack looks none up.

        painted: the result's `model_image`. Of each picture that was looked at, its name and `palette.sources`.
        """
        palette, pages, style, pool = self._palette(), self.pack.config.pages, self._style, self._job.pool
        if not palette:
            return []
        levels = levels_of(self._drawn)
        colors = spread(painted, levels, self._painted[0].scale, refiner(pages, style))
        found = sources(colors, levels, palette, pages.palette_noise, style, at)
        named = ((pool.picture(one), one.name) for one in self._references())
        return [(picture, name, shares) for (picture, name), shares in zip(named, found, strict=True)]

    def _palette(self) -> list[Colours]:
        """The colours of the references, where the pack looks them up."""
        if not self.pack.config.pages.palette_noise:
            return []
        lines = self._style == "lineart"
        return [self._tiles.colours(self._job.pool, one, lines=lines) for one in self._references()]

    def _references(self) -> list[Reference]:
        """Those that colours are looked up in."""
        hits = (hit for window in self._painted for row in window.found for hit in row)
        taken, job = {hit.reference.id: hit.reference for hit in hits}, self._job
        return in_colour(job.pool, list(taken.values()), job.options.pinned, job.options.banned)

    def _retrieve(self, context: Bytes) -> Ranked:
        job = self._job
        encoder = PatchEncoder(self.pack, job.size, job.fit)
        queries = encoder.patches(query_patches(context))
        return choose(job.pool, queries, encoder, job.options.pinned, job.options.banned)

    def _condition(self, canvas: Bytes) -> Floats:
        """f32[1,K,h,w]: the canvas as the denoiser sees it."""
        model = self.pack.config.model
        inner = self._encode(lat.inner_only(canvas)) if model.has_inner else None
        latents = self._encode(lat.blacked_out(canvas) if model.has_inner else canvas)
        mask = lat.mask((canvas.shape[1] // 2, canvas.shape[0] // 2), model.vae_factor)
        count = model.luminance_planes
        planes = lat.luminance_planes(canvas[np.newaxis], model.vae_factor, count) if count else None
        return lat.condition(latents, mask, inner, planes)

    def _encode(self, canvas: Bytes) -> Floats:
        return self.pack.engine("vae_encoder")({"image": lat.to_model(canvas[np.newaxis])})["latents"]

    def _decode(self, latents: Floats) -> Bytes:
        """u8[H,W,3] of f32[C,h,w]: the centre. The whole canvas is decoded: the decoder's attention sees all of it.

        With `decode_margin` only the centre and so many pixels around it, which costs less and changes the picture.
        """
        margin = self._job.options.decode_margin
        if margin is not None:
            latents, border = lat.around_centre(latents, margin, self.pack.config.model.vae_factor)
        image = lat.from_model(self.pack.engine("vae_decoder")({"latents": latents[np.newaxis]})["image"])[0]
        if margin is None:
            return centre(image)
        return np.ascontiguousarray(image[border : len(image) - border, border : image.shape[1] - border])

    def _super_resolve(self, color: Bytes, rgb: Bytes) -> Bytes:
        """u8[1.5H,1.5W,3]; the guide is fitted from the original, which has the detail."""
        job, scale = self._job, self.pack.config.pages.gsrp_scale
        large = round(job.size[0] * scale), round(job.size[1] * scale)
        guide = context_image(fit_page(rgb, large, job.fit)[0], job.context)
        return super_resolve(self.pack.engine("gsrp"), color, guide, self.pack.config.model.vae_factor)


def matches(window: int, found: Ranked) -> Iterator[Match]:
    """What was retrieved for a window, cell by cell."""
    for quadrant, row in enumerate(found):
        for rank, hit in enumerate(row):
            cell = CELLS[quadrant][rank]
            yield Match(cell, quadrant, rank, hit.reference.name, hit.patch, hit.score, window)


def _job(pack: Pack, pool: Pool, options: ColorizeOptions, page_size: Size) -> _Job:
    """The options, with the pack's defaults where they are open. OptionError where they do not suit it."""
    config = pack.config
    check_options(pack, options)
    defaults, guidance = config.defaults, options.guidance_scale
    context = config.style.context if options.context == "auto" else options.context
    return _Job(
        pool=pool,
        options=options,
        fit=cast(Fit, options.fit),
        size=options.size or choose_size(page_size, config.pages.sizes),
        context=cast(Mode, context),
        schedule=Schedule.create(options.steps or defaults.steps, config.scheduler_config),
        guidance_scale=defaults.guidance_scale if guidance is None else guidance,
        guider_steps=guider_steps(pack, options),
    )


def guider_steps(pack: Pack, options: ColorizeOptions) -> int:
    """In how many of a loop's steps the guider is evaluated: in all where the pack's engines cannot leave it out.

    OptionError where the options ask for what the pack cannot do.
    """
    defaults, asked = pack.config.defaults, options.guider_steps
    steps = options.steps or defaults.steps
    if asked == 1 < steps:
        raise OptionError(f"guider_steps is 1, expected 2 to {steps}: the first and the last of {steps} steps need it")
    if asked is not None and asked < steps and not pack.reuses:
        raise OptionError(
            f"guider_steps is {asked} of {steps}: pack {pack.config.name} on this engine evaluates the guider in every "
            "step; leave the option out, or choose a pack with guider and denoise_reuse graphs on engine onnx-cpu"
        )
    wanted = asked or defaults.guider_steps or steps
    return min(wanted, steps) if pack.reuses else steps


def check_options(pack: Pack, options: ColorizeOptions) -> None:
    """OptionError where the options do not suit the pack, whatever the page."""
    config, size = pack.config, options.size
    if options.style not in ("auto", *config.style.inputs):
        known = ", ".join(config.style.inputs)
        raise OptionError(f"style {options.style!r} is none of pack {config.name}'s: choose one of {known}")
    multiple = config.pages.multiple
    if size and (size[0] % multiple or size[1] % multiple):
        raise OptionError(f"size {size[0]}x{size[1]}: pack {config.name} takes sides that are multiples of {multiple}")
    guider_steps(pack, options)


def _cut(image: Bytes, box: Box) -> Bytes:
    return image[box[1] : box[3], box[0] : box[2]]
