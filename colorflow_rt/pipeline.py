"""The way of a page, from its bytes to its colours: docs/architecture.md as a program.

`Colorizer` joins the stages, which know nothing of one another. Each page of a chapter is coloured from the same
references with noise from the same seed, so a page comes out the same alone and in a sequence.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

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
from colorflow_rt.denoise import denoise
from colorflow_rt.errors import Cancelled, EngineError, ImageError, OptionError
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pack import Pack, open_pack
from colorflow_rt.pixels import DEFAULT_LIMITS, Limits, Picture, Source, is_colored, luminance, read_picture
from colorflow_rt.pool import PatchEncoder, Pool, Ranked, Tiles, choose, open_references
from colorflow_rt.result import Match, PageError, Result
from colorflow_rt.schedule import Schedule
from colorflow_rt.timing import StageClock
from colorflow_rt.upscale import chroma_layer, merge, super_resolve

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Size = tuple[int, int]

DEFAULT_OPTIONS = ColorizeOptions()

Preview = Callable[[int, int, int, Bytes], None]
"""on_preview(page index, steps done, steps in all, u8[h,w,3]: the page as the model sees it now)"""
Show = Callable[[int, int, Bytes], None]
Asked = Callable[[], bool]


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
    clock: StageClock
    cancelled: Asked


@dataclass(frozen=True)
class _Painted:
    """A window of the page as the model has coloured it, u8[h0,w0,3] of the window's size in the page.

    scale: its pixels to one that the model has painted.
    """

    image: Bytes
    canvas: Bytes
    found: Ranked
    scale: float


class Colorizer:
    """Colours pages by one pack. Safe to use from several threads; engines are loaded when first needed.

    pack: an open pack, or a name or folder for `open_pack` (UnknownPackError, PackError, DamagedPackError).
    limits: of the pictures that are read.
    """

    def __init__(self, pack: Pack | str | Path = "mini", *, limits: Limits = DEFAULT_LIMITS) -> None:
        self.pack = pack if isinstance(pack, Pack) else open_pack(pack)
        self.limits = limits
        self._tiles = Tiles()

    def references(self, source: Any) -> Pool:
        """References read once, for many calls: a folder, paths, arrays, PIL images or a `ReferenceSet`.

        Their embeddings are kept. ImageError names a picture that cannot be read, ReferencesError says that
        there is none.
        """
        return open_references(source, self.limits)

    def colorize(
        self,
        page: Source,
        references: Any,
        options: ColorizeOptions = DEFAULT_OPTIONS,
        *,
        on_preview: Preview | None = None,
        cancelled: Asked | None = None,
    ) -> Result:
        """Colour one page: a path, bytes, binary file, PIL image or array.

        references: as for `references`. on_preview gets page index 0. cancelled is asked before every step.
        Raises ImageError, ReferencesError, OptionError, EngineError, PackError or Cancelled.
        """
        return self._page(0, page, self.references(references), options, on_preview, cancelled)

    def colorize_sequence(
        self,
        pages: Iterable[Source],
        references: Any,
        options: ColorizeOptions = DEFAULT_OPTIONS,
        *,
        on_preview: Preview | None = None,
        cancelled: Asked | None = None,
    ) -> Iterator[Result | PageError]:
        """Colour pages in their order, each when the caller asks for it, with the same references and seed.

        A page that cannot be read or computed comes as a PageError and the rest go on; what concerns them all
        (references, options, pack, cancellation) is raised.
        """
        pool = self.references(references)
        for index, page in enumerate(pages):
            try:
                yield self._page(index, page, pool, options, on_preview, cancelled)
            except (ImageError, EngineError) as error:
                yield PageError(index, _page_name(page, index), error)

    def _page(
        self,
        index: int,
        page: Source,
        pool: Pool,
        options: ColorizeOptions,
        on_preview: Preview | None,
        cancelled: Asked | None,
    ) -> Result:
        cancelled = cancelled or _never
        if cancelled():
            raise Cancelled(f"cancelled before page {index + 1}")
        clock = StageClock()
        with clock("read"):
            picture = read_picture(page, self.limits)
            if is_colored(picture.rgb):
                return _passed_through(picture, clock)
            style = detect_style(picture.rgb) if options.style == "auto" else options.style
        job = self._job(pool, options, picture.size, clock, cancelled)
        boxes = windows(picture.size, job.size) if job.fit == "pad" else [(0, 0, *picture.size)]
        wanted = on_preview if options.preview_every else None
        painted = []
        for number, box in enumerate(boxes):
            show = partial(_show, wanted, index, number, len(boxes)) if wanted else None
            painted.append(self._window(_cut(picture.rgb, box), job, show))
        return _result(picture, style, boxes, painted, job)

    def _job(self, pool: Pool, options: ColorizeOptions, page_size: Size, clock: StageClock, cancelled: Asked) -> _Job:
        """The options, with the pack's defaults where they are open. OptionError where they do not suit it."""
        config = self.pack.config
        if options.style not in ("auto", *config.style.inputs):
            known = ", ".join(config.style.inputs)
            raise OptionError(f"style {options.style!r} is none of pack {config.name}'s: choose one of {known}")
        size, multiple = options.size or choose_size(page_size, config.pages.sizes), config.pages.multiple
        if size[0] % multiple or size[1] % multiple:
            raise OptionError(
                f"size {size[0]}x{size[1]}: pack {config.name} takes sides that are multiples of {multiple}"
            )
        defaults, guidance = config.defaults, options.guidance_scale
        context = config.style.context if options.context == "auto" else options.context
        return _Job(
            pool=pool,
            options=options,
            fit=cast(Fit, options.fit),
            size=size,
            context=cast(Mode, context),
            schedule=Schedule.create(options.steps or defaults.steps, config.scheduler_config),
            guidance_scale=defaults.guidance_scale if guidance is None else guidance,
            clock=clock,
            cancelled=cancelled,
        )

    def _window(self, rgb: Bytes, job: _Job, show: Show | None) -> _Painted:
        """A page, or a window of a strip, u8[h0,w0,3], through the three stages of the paper."""
        clock = job.clock
        with clock("context"):
            fitted, placement = fit_page(rgb, job.size, job.fit)
            context = context_image(fitted, job.context)
        with clock("retrieval"):
            found = self._retrieve(context, job)
        with clock("canvas"):
            tiles = [self._tiles.get(job.pool, hit, job.size, job.fit) for row in found for hit in row]
            canvas = assemble(context, tiles)
        with clock("vae_encode"):
            condition = self._condition(canvas)
        with clock("denoise"):
            latents = self._denoise(condition, placement, job, show)
        with clock("vae_decode"):
            color = self._decode(latents)
        with clock("gsrp"):
            image = self._super_resolve(color, rgb, job)
        gray = np.repeat(np.rint(luminance(rgb)).astype(np.uint8)[..., None], 3, axis=2)
        drawn = (placement.box[2] - placement.box[0]) * image.shape[1] / job.size[0]
        scale = (placement.source[2] - placement.source[0]) / drawn
        return _Painted(unfit(image, placement, outside=gray), canvas, found, scale)

    def _retrieve(self, context: Bytes, job: _Job) -> Ranked:
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

    def _denoise(self, condition: Floats, placement: Placement, job: _Job, show: Show | None) -> Floats:
        shape = (1, self.pack.config.model.latent_channels, *condition.shape[-2:])
        noise = lat.initial_noise(job.options.seed, shape)

        def on_step(done: int, steps: int, x0: Floats) -> None:
            if show is not None and done % job.options.preview_every == 0:
                show(done, steps, _cut(self._decode(x0), placement.box))

        engine = self.pack.engine("denoise_step")
        return denoise(engine, noise, condition, job.schedule, job.guidance_scale, on_step, job.cancelled)

    def _decode(self, latents: Floats) -> Bytes:
        """u8[H,W,3]: the centre. The whole canvas is decoded, for the decoder's attention sees all of it."""
        image = self.pack.engine("vae_decoder")({"latents": latents})["image"]
        return centre(lat.from_model(image)[0])

    def _super_resolve(self, color: Bytes, rgb: Bytes, job: _Job) -> Bytes:
        """u8[1.5H,1.5W,3]; the guide is fitted from the original, which has the detail."""
        scale = self.pack.config.pages.gsrp_scale
        large = round(job.size[0] * scale), round(job.size[1] * scale)
        guide = context_image(fit_page(rgb, large, job.fit)[0], job.context)
        return super_resolve(self.pack.engine("gsrp"), color, guide, self.pack.config.model.vae_factor)


def _never() -> bool:
    return False


def _cut(image: Bytes, box: Box) -> Bytes:
    return image[box[1] : box[3], box[0] : box[2]]


def _show(on_preview: Preview, page: int, window: int, windows: int, done: int, steps: int, image: Bytes) -> None:
    """A step of one window, told as a step of the page."""
    on_preview(page, window * steps + done, windows * steps, image)


def _page_name(page: Source, index: int) -> str:
    return str(page) if isinstance(page, str | Path) else f"page {index + 1}"


def _passed_through(picture: Picture, clock: StageClock) -> Result:
    rgb = picture.rgb
    return Result(rgb, picture.alpha, None, (), clock.seconds, "color", True, None, rgb)


def _result(picture: Picture, style: str, boxes: list[Box], painted: list[_Painted], job: _Job) -> Result:
    options, rgb, scale = job.options, picture.rgb, painted[0].scale
    with job.clock("merge"):
        model_image = join([window.image for window in painted], boxes, picture.size)
        image = merge(rgb, model_image, options.luminance, options.saturation, style, scale)
        chroma = None
        if options.chroma_layer:
            colors = chroma_layer(rgb, model_image, options.saturation, style, scale)
            opaque = np.full(rgb.shape[:2], 255, np.uint8)
            chroma = np.dstack([colors, opaque if picture.alpha is None else picture.alpha])
    matches = tuple(match for number, window in enumerate(painted) for match in _matches(number, window.found))
    canvas = painted[0].canvas
    return Result(image, picture.alpha, chroma, matches, job.clock.seconds, style, False, canvas, model_image)


def _matches(window: int, found: Ranked) -> Iterator[Match]:
    for quadrant, row in enumerate(found):
        for rank, hit in enumerate(row):
            cell = CELLS[quadrant][rank]
            yield Match(cell, quadrant, rank, hit.reference.name, hit.patch, hit.score, window)
