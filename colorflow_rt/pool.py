"""The references of a job: pictures in memory or a persistent set, and which of their patches go on a canvas.

A `References` answers the same three questions as a `ReferenceSet` (`list`, `picture`, `search`), so the pipeline
need not know which of them it has.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colorflow_rt.canvas import Fit, choose_size, fit_page, query_patches, reference_patches, tile
from colorflow_rt.context import Mode, context_image, detect_style
from colorflow_rt.errors import OptionError, ReferencesError
from colorflow_rt.jobs import pictures_in
from colorflow_rt.pack import Pack
from colorflow_rt.palette import Colours, colours_of
from colorflow_rt.pixels import DEFAULT_LIMITS, Limits, Picture, content_hash, read_picture
from colorflow_rt.references import Hit, Reference, ReferenceSet
from colorflow_rt.references.adding import Item
from colorflow_rt.references.records import unnamed
from colorflow_rt.references.vectors import Embed, nearest_patches
from colorflow_rt.retrieval import Crop, PatchIndex, embed
from colorflow_rt.upscale import drawn_page

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Ranked = list[list[Hit]]
Listed = list[Reference]  # the classes have a method `list`, so inside them the type needs another name

QUADRANTS, RANKS = 4, 3
MAX_TILES = 512  # kept; about 20 MB at the working size of a small pack
MOST_PICTURES = 16  # whose colours a page is drawn to
MAX_COLOURS = 64  # a megabyte each, at most


class Pool(Protocol):
    """What the pipeline asks of references; `References` and `ReferenceSet` are pools."""

    def list(self) -> Listed: ...

    def picture(self, which: Reference) -> Picture: ...

    def search(
        self,
        queries: Floats,
        k: int,
        encoder: str,
        dim: int,
        embed: Embed,
        allowed: Callable[[Reference], bool] = ...,
    ) -> Ranked: ...


class References:
    """Pictures in memory; embedded once per encoder, working size and fitting. Safe to use from several threads.

    items: paths, bytes, binary files, PIL images or arrays, or (name, one of these). A path's name is its file
    name. Pictures with the same pixels count once. ImageError where one cannot be read, ReferencesError for none.
    """

    def __init__(self, items: Iterable[Item], limits: Limits = DEFAULT_LIMITS) -> None:
        self._pictures: dict[str, Picture] = {}
        self._references: list[Reference] = []
        for item in items:
            self._add(item, limits)
        if not self._references:
            raise ReferencesError("no references: give at least one picture in colour")
        self._indexes: dict[str, PatchIndex] = {}
        self._lock = threading.Lock()

    def _add(self, item: Item, limits: Limits) -> None:
        name, source = item if isinstance(item, tuple) else (None, item)
        picture = read_picture(source, limits, name)
        sha256 = content_hash(picture)
        if sha256 in self._pictures:
            return
        plain = unnamed(sha256, picture.size)
        found = name or (Path(source).name if isinstance(source, str | Path) else plain.name)
        self._pictures[sha256] = picture
        self._references.append(replace(plain, id=len(self._references) + 1, name=found))

    def list(self) -> Listed:
        """All pictures, in the order they were given; ids count from 1."""
        return list(self._references)

    def picture(self, which: Reference) -> Picture:
        """The pixels of a picture."""
        return self._pictures[which.sha256]

    def search(
        self,
        queries: Floats,
        k: int,
        encoder: str,
        dim: int,
        embed: Embed,
        allowed: Callable[[Reference], bool] = lambda reference: True,
    ) -> Ranked:
        """As `ReferenceSet.search`: the k nearest patches of `allowed` pictures for each row of f32[Q,dim]."""
        return nearest_patches(self._references, self._index(encoder, embed), queries, k, allowed)

    def _index(self, encoder: str, embed: Embed) -> PatchIndex:
        with self._lock:  # held while embedding: a second thread would only do the same work again
            if encoder not in self._indexes:
                rgb = [self._pictures[reference.sha256].rgb for reference in self._references]
                self._indexes[encoder] = PatchIndex(embed(rgb))
            return self._indexes[encoder]


def open_references(source: Any, limits: Limits = DEFAULT_LIMITS) -> Pool:
    """The pool of whatever a caller hands over as references.

    A `References` or `ReferenceSet` as it is; the pictures of a folder; one picture; or an iterable of what
    `References` takes. ReferencesError where there are none.
    """
    if isinstance(source, References | ReferenceSet):
        return source
    if isinstance(source, str | Path) and Path(source).is_dir():
        items = pictures_in(Path(source))
        if not items:
            raise ReferencesError(f"no pictures in {source}: give a folder of references in colour")
        return References(items, limits)
    one = isinstance(source, str | Path | bytes | np.ndarray | Image.Image) or hasattr(source, "read")
    return References([source] if one else source, limits)


@dataclass(frozen=True)
class PatchEncoder:
    """How the patches of pictures become vectors: a pack's encoder at one working size and fitting."""

    pack: Pack
    size: tuple[int, int]
    fit: Fit

    @property
    def key(self) -> str:
        """Names all that an embedding depends on, for the stores."""
        return f"{self.pack.encoder_key}-{self.size[0]}x{self.size[1]}-{self.fit}"

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.pack.config.encoder.dim

    def pictures(self, pictures: Sequence[Bytes]) -> Floats:
        """f32[5n,dim] of n pictures u8[H,W,3]."""
        fitted = (fit_page(picture, self.size, self.fit)[0] for picture in pictures)
        return self.patches([patch for picture in fitted for patch in reference_patches(picture)])

    def patches(self, patches: Sequence[Bytes]) -> Floats:
        """f32[n,dim] of n patches u8[h,w,3]."""
        config = self.pack.config.encoder
        crop = cast(Crop, config.crop)
        engine = self.pack.engine("clip_encoder")
        return embed(engine, patches, config.image_size, crop, config.mean, config.std)


def choose(
    pool: Pool, queries: Floats, encoder: PatchEncoder, pinned: Sequence[str] = (), banned: Sequence[str] = ()
) -> Ranked:
    """The patches for the canvas: three for each of the four query patches f32[4,dim], best first.

    They are the most similar ones (one patch may stand in several quadrants, as in the paper). But a banned
    picture is never among them, and the best patch of each pinned one takes the first rank of the quadrant that
    it fits best. A name is that of a picture, with or without its suffix, or a tag; where the job says nothing of
    a picture the state in its set holds. OptionError names a name that no picture has.
    """
    references = pool.list()
    pins = _named(references, pinned, "pinned")
    out = _out(references, pins, banned)
    fixed = [r for r in references if r.id not in out and (r.id in pins or r.state == "pinned")]
    if len(fixed) > QUADRANTS * RANKS:
        raise OptionError(f"{len(fixed)} references are pinned: a canvas has room for {QUADRANTS * RANKS}")

    def search(k: int, allowed: Callable[[Reference], bool]) -> Ranked:
        return pool.search(queries, k, encoder.key, encoder.dim, encoder.pictures, allowed)

    nearest = search(RANKS, lambda reference: reference.id not in out)
    placed = _place([search(1, pin.__eq__) for pin in fixed])
    return [_first(first, rest) for first, rest in zip(placed, nearest, strict=True)]


def nearest(pool: Pool, pack: Pack, rgb: Bytes, count: int, fit: Fit = "pad") -> Ranked:
    """The `count` most similar patches of a pool for each quadrant of a page u8[H,W,3], at the pack's size for it.

    As a page of `Colorizer.colorize` would find them: without dots, where the pack takes them away.
    """
    if pack.config.pages.screentone == "removed":
        rgb = drawn_page(rgb, detect_style(rgb))
    encoder = PatchEncoder(pack, choose_size((rgb.shape[1], rgb.shape[0]), pack.config.pages.sizes), fit)
    fitted = fit_page(rgb, encoder.size, fit, pack.config.pages.resample)[0]
    context = context_image(fitted, cast(Mode, pack.config.style.context))
    queries = encoder.patches(query_patches(context))
    return pool.search(
        queries, count, encoder.key, encoder.dim, encoder.pictures, lambda reference: reference.state != "banned"
    )


def in_colour(pool: Pool, taken: Sequence[Reference], pinned: Sequence[str], banned: Sequence[str]) -> list[Reference]:
    """The pictures to look colours up in: those that retrieval has taken, and of the others an even share.

    As in `choose` none that is banned; OptionError names a name that no picture has. At most MOST_PICTURES.
    """
    references = pool.list()
    out = _out(references, _named(references, pinned, "pinned"), banned) | {one.id for one in taken}
    others, room = [one for one in references if one.id not in out], max(1, MOST_PICTURES - len(taken))
    every = max(1, -(-len(others) // room))
    return [*taken, *others[::every]][:MOST_PICTURES]


def _out(references: Sequence[Reference], pins: set[int], banned: Sequence[str]) -> set[int]:
    """Ids of the pictures that a job does not want; `pins` are wanted whatever their set says."""
    bans = _named(references, banned, "banned")
    return {r.id for r in references if r.id in bans or (r.state == "banned" and r.id not in pins)}


def _named(references: Sequence[Reference], names: Sequence[str], option: str) -> set[int]:
    """Ids of the pictures meant by names or tags."""
    chosen: set[int] = set()
    for name in names:
        found = {reference.id for reference in references if name in _names(reference)}
        if not found:
            known = ", ".join(sorted({reference.name for reference in references})[:20])
            raise OptionError(f"{option} reference {name!r} is unknown: choose one of {known}")
        chosen |= found
    return chosen


def _names(reference: Reference) -> tuple[str | None, ...]:
    return reference.name, Path(reference.name).stem, reference.tag


def _place(found: Sequence[Ranked]) -> Ranked:
    """Each pinned picture's best patch in its best quadrant that has room; found[pin][quadrant] is [its best]."""
    quadrants: Ranked = [[] for _ in range(QUADRANTS)]
    bids = [(row[0].score, pin, quadrant) for pin, rows in enumerate(found) for quadrant, row in enumerate(rows)]
    done: set[int] = set()
    for _, pin, quadrant in sorted(bids, key=lambda bid: (-bid[0], bid[1], bid[2])):
        if pin not in done and len(quadrants[quadrant]) < RANKS:
            quadrants[quadrant].append(found[pin][quadrant][0])
            done.add(pin)
    return quadrants


def _first(pins: list[Hit], nearest: list[Hit]) -> list[Hit]:
    """The pinned patches, then the most similar others, RANKS in all."""
    there = {(hit.reference.id, hit.patch) for hit in pins}
    return [*pins, *(hit for hit in nearest if (hit.reference.id, hit.patch) not in there)][:RANKS]


class Tiles:
    """What is made of references for canvas and palette: patches at the size of a cell, colours of whole pictures.

    The latest MAX_TILES patches and MAX_COLOURS pictures are kept.
    """

    def __init__(self) -> None:
        self._tiles: dict[tuple[object, ...], Bytes] = {}
        self._colours: dict[tuple[str, bool], Colours] = {}
        self._lock = threading.Lock()

    def get(self, pool: Pool, hit: Hit, size: tuple[int, int], fit: Fit, resample: str = "bicubic") -> Bytes:
        """u8[H/2-2,W/2-2,3] for a working size of (W, H)."""
        key = (hit.reference.sha256, hit.patch, size, fit, resample)
        with self._lock:
            found = self._tiles.get(key)
        if found is None:
            fitted = fit_page(pool.picture(hit.reference).rgb, size, fit, resample)[0]
            found = tile(reference_patches(fitted)[hit.patch], size, resample)
            self._keep(self._tiles, key, found, MAX_TILES)
        return found

    def colours(self, pool: Pool, reference: Reference, *, lines: bool) -> Colours:
        """`colours_of` a picture."""
        key = (reference.sha256, lines)
        with self._lock:
            found = self._colours.get(key)
        if found is None:
            found = colours_of(pool.picture(reference).rgb, lines=lines)
            self._keep(self._colours, key, found, MAX_COLOURS)
        return found

    def _keep(self, kept: dict[Any, Any], key: Any, made: Any, most: int) -> None:
        with self._lock:
            kept[key] = made
            while len(kept) > most:
                del kept[next(iter(kept))]
