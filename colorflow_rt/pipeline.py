"""`Colorizer`: pages in, coloured pages out, one after another.

Each page of a chapter is coloured from the same references with noise from the same seed, so a page comes out the
same alone and in a sequence. The way of a page is in `colorflow_rt.page`.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.denoise import Slot, run
from colorflow_rt.errors import Cancelled, EngineError, ImageError
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pack import Pack, open_pack
from colorflow_rt.page import PageRun
from colorflow_rt.pixels import DEFAULT_LIMITS, Limits, Picture, Source
from colorflow_rt.pool import Pool, Tiles, open_references
from colorflow_rt.result import PageError, Result

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

DEFAULT_OPTIONS = ColorizeOptions()

Preview = Callable[[int, int, int, Bytes], None]
"""on_preview(page index, steps done, steps in all, u8[h,w,3]: the page as the model sees it now)"""
Show = Callable[[int, int, Bytes], None]
OnStep = Callable[[int, int, Floats], None]
Asked = Callable[[], bool]


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

    def begin(self, page: Source | Picture, references: Any, options: ColorizeOptions = DEFAULT_OPTIONS) -> PageRun:
        """A page whose loop the caller runs, step by step (`PageRun` names the errors)."""
        return PageRun(self.pack, self._tiles, self.limits, page, self.references(references), options)

    def _page(
        self,
        index: int,
        page: Source,
        pool: Pool,
        options: ColorizeOptions,
        on_preview: Preview | None,
        cancelled: Asked | None,
    ) -> Result:
        if cancelled is not None and cancelled():
            raise Cancelled(f"cancelled before page {index + 1}")
        work = self.begin(page, pool, options)
        show = partial(on_preview, index) if on_preview and options.preview_every else None
        for number in range(work.windows):
            self._window(work, number, options.preview_every, show, cancelled)
        return work.finish()

    def _window(self, work: PageRun, number: int, every: int, show: Show | None, cancelled: Asked | None) -> None:
        """A page, or a window of a strip, through the three stages of the paper."""
        window = work.open(number)

        def on_step(done: int, steps: int, x0: Floats) -> None:
            if show is not None and done % every == 0:  # a step of one window, told as a step of the page
                show(number * steps + done, work.steps, work.preview(window, x0[0]))

        with work.clock("denoise"):
            self._denoise(window.slot, on_step, cancelled)
        work.paint(window)

    def _denoise(self, slot: Slot, on_step: OnStep, cancelled: Asked | None) -> None:
        run(self.pack.engine, [slot], on_step, cancelled)


def _page_name(page: Source, index: int) -> str:
    return str(page) if isinstance(page, str | Path) else f"page {index + 1}"
