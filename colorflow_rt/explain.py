"""Where a point of a page took its colour from: the guider's attention to the references, as it was for this page.

Where the pack looks colours up in the references, too (`palette`), so are the weights of that.

The page is coloured as always, but by a graph of `denoise_step` with further outputs, the weights of the guider's
self-attention (`OnnxEngine`, inner). Nothing is estimated: these are the numbers that the result was computed with.
Of several layers those are shown that compare at the finest grid; heads, layers and steps count alike.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from colorflow_rt.denoise import run
from colorflow_rt.engine import Engine, Tensors
from colorflow_rt.engine.onnx import OnnxEngine
from colorflow_rt.engine.onnx_graph import Node, read_nodes
from colorflow_rt.errors import OptionError, PackError
from colorflow_rt.options import MAX_STEPS, ColorizeOptions
from colorflow_rt.page import PageRun, Window
from colorflow_rt.pipeline import DEFAULT_OPTIONS, Colorizer
from colorflow_rt.pixels import Source
from colorflow_rt.result import Match, Result

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Point = tuple[int, int]

_QUERY = ".attn1.to_q.weight"  # behind it stands a layer's name, as in the state dict
_GAP, _PICTURES = 12, 5  # pixels; references that are shown below
_SIDE = 960  # pixels: pictures are enlarged to about this width
_RAMP = np.array([(0, 0, 0), (120, 0, 60), (230, 60, 20), (255, 190, 40), (255, 255, 220)], np.float32)


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where a point took its colour from.

    result: the coloured page. canvas: u8[2H,2W,3]. at: the point in the page, pixels. spot: its token in the canvas, a
    box (left, top, right, bottom) in pixels. heat: f32[2H,2W], each canvas pixel's share of the attention of its token,
    0 on the page itself; the sum is the share that went to references, the rest went to the page. cells: what stands
    on the canvas, with the share of each, the largest first. layers: the attention layers that were looked at.
    looked_up: the pictures that the painted colour was then drawn to, the largest share first; the shares' sum is what
    that decides. Empty where the pack looks nothing up.
    """

    result: Result
    canvas: Bytes
    at: Point
    spot: tuple[int, int, int, int]
    heat: Floats
    cells: tuple[tuple[Match, float], ...]
    layers: tuple[str, ...]
    looked_up: tuple["LookedUp", ...] = ()


@dataclass(frozen=True, eq=False)
class LookedUp:
    """A reference u8[H,W,3], and the share f32[rows,columns] of each cell of a grid over it in a point's colour."""

    name: str
    picture: Bytes
    shares: Floats


def explain(
    colorizer: Colorizer, page: Source, references: Any, at: Point, options: ColorizeOptions = DEFAULT_OPTIONS
) -> Explanation:
    """Colour a page and see where its point `at` (x, y), in pixels of the page, took its colour from.

    OptionError: the point is not on the page, the page is in colour already, or `options.fit` cuts it. PackError: the
    pack has no graph files, or no guider attention in them. Else as `Colorizer.colorize`.
    """
    if options.fit != "pad":
        raise OptionError(f"fit is {options.fit!r}: choose pad, which keeps every point of the page")
    work = colorizer.begin(page, references, replace(options, guider_steps=MAX_STEPS))
    here = _window_of(work, at)
    layers = attention_layers(read_nodes(colorizer.pack.graph_file("denoise_step").read_bytes()))
    if not layers:
        raise PackError(f"pack {colorizer.pack.config.name} has no guider attention to look at: choose another pack")
    for number in range(work.windows):
        window = work.open(number)
        if number == here:
            seen, watch = (
                window,
                _Watch(_debug_engine(colorizer, layers), _Grid.of(window, colorizer, work, at), layers),
            )
            run({"denoise_step": watch}.__getitem__, [window.slot])
        else:
            run(colorizer.pack.engine, [window.slot])
        work.paint(window)
    result = work.finish()
    found = [LookedUp(name, one.rgb, shares) for one, name, shares in work.sources(result.model_image, at)]
    found.sort(key=lambda one: -float(one.shares.sum()))
    return replace(_explanation(result, seen, at, watch), looked_up=tuple(found))


def attention_layers(nodes: list[Node]) -> dict[str, str]:
    """Layer name -> tensor of its attention weights f32[B,heads,N,N], of every self-attention of the guider.

    The layer of a softmax is told by the nearest query weight that it is computed from.
    """
    maker = {name: node for node in nodes for name in node.outputs}
    layers = {}
    for node in nodes:
        if node.op == "Softmax" and (name := _layer(node, maker)) and name.startswith("guider."):
            layers[name] = node.outputs[0]
    return layers


def _layer(softmax: Node, maker: dict[str, Node]) -> str | None:
    """Breadth first from the softmax back to the first query weight (a weight may be read through a cast)."""
    waiting, seen = deque(softmax.inputs), set(softmax.inputs)
    while waiting:
        name = waiting.popleft()
        if (cut := name.find(_QUERY)) >= 0:
            return name[:cut]
        for before in maker[name].inputs if name in maker else ():
            if before not in seen:
                seen.add(before)
                waiting.append(before)
    return None


def _debug_engine(colorizer: Colorizer, layers: dict[str, str]) -> OnnxEngine:
    pack = colorizer.pack
    graph = pack.config.graphs["denoise_step"]
    specs = (graph.inputs, graph.outputs)
    return OnnxEngine(pack.graph_file("denoise_step"), "denoise_step", specs, inner=tuple(layers.values()))


def _window_of(work: PageRun, at: Point) -> int:
    """The first window that shows the point."""
    if not work.windows:
        raise OptionError("the page is in colour already: give a page in black and white")
    for number, (left, top, right, bottom) in enumerate(work.boxes):
        if left <= at[0] < right and top <= at[1] < bottom:
            return number
    width, height = max(box[2] for box in work.boxes), max(box[3] for box in work.boxes)
    raise OptionError(f"point {at[0]},{at[1]} is not on the page, which is {width}x{height}")


@dataclass(frozen=True)
class _Grid:
    """Where the point lies on the canvas of (height, width) pixels, whose latents are `latents` (height, width)."""

    x: float
    y: float
    canvas: tuple[int, int]
    latents: tuple[int, int]

    @classmethod
    def of(cls, window: Window, colorizer: Colorizer, work: PageRun, at: Point) -> "_Grid":
        box, source, outer = window.placement.box, window.placement.source, work.boxes[window.number]
        height, width = window.canvas.shape[:2]
        x = box[0] + (at[0] - outer[0] + 0.5) * (box[2] - box[0]) / (source[2] - source[0])
        y = box[1] + (at[1] - outer[1] + 0.5) * (box[3] - box[1]) / (source[3] - source[1])
        factor = colorizer.pack.config.model.vae_factor
        return cls(x + width / 4, y + height / 4, (height, width), (height // factor, width // factor))

    def shape(self, tokens: int) -> tuple[int, int]:
        """Rows and columns of the grid of so many tokens: the latents, some times halved."""
        shrink = round(math.sqrt(self.latents[0] * self.latents[1] / tokens))
        rows, columns = self.latents[0] // shrink, self.latents[1] // shrink
        if rows * columns != tokens:
            raise PackError(f"attention over {tokens} tokens does not fit latents of {self.latents}")
        return rows, columns

    def token(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Row and column of the token that the point lies in."""
        return int(self.y * shape[0] / self.canvas[0]), int(self.x * shape[1] / self.canvas[1])


class _Watch:
    """A denoise_step engine that adds up the attention of one token on its way."""

    def __init__(self, engine: Engine, grid: _Grid, layers: dict[str, str]) -> None:
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.grid = grid
        self._engine, self._layers = engine, layers
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._calls = 0

    def __call__(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        found = self._engine(feeds)
        self._calls += 1
        for layer, tensor in self._layers.items():
            weights = found[tensor]
            shape = self.grid.shape(weights.shape[-1])
            row, column = self.grid.token(shape)
            own = weights.reshape(-1, *weights.shape[-2:])[:, row * shape[1] + column]
            mean = own.mean(axis=0, dtype=np.float64).reshape(shape)
            self._sums[layer] = self._sums.get(layer, 0.0) + mean
        return found

    def finest(self) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        """The layers of the finest grid, and their mean attention f64[rows,columns], of sum 1."""
        most = max(total.size for total in self._sums.values())
        layers = tuple(name for name, total in self._sums.items() if total.size == most)
        mean = sum((self._sums[name] for name in layers), np.zeros(())) / (len(layers) * self._calls)
        return layers, np.asarray(mean)


def _explanation(result: Result, window: Window, at: Point, watch: _Watch) -> Explanation:
    layers, weights = watch.finest()
    grid, canvas = watch.grid, window.canvas
    row, column = grid.token((weights.shape[0], weights.shape[1]))
    rows, columns = canvas.shape[0] // weights.shape[0], canvas.shape[1] // weights.shape[1]
    heat = np.repeat(np.repeat(weights / (rows * columns), rows, axis=0), columns, axis=1).astype(np.float32)
    height, width = canvas.shape[0] // 4, canvas.shape[1] // 4
    heat[height : 3 * height, width : 3 * width] = 0
    cells = [
        (match, float(heat[_cell(match, height, width)].sum()))
        for match in result.matches
        if match.window == window.number
    ]
    cells.sort(key=lambda pair: -pair[1])
    spot = (column * columns, row * rows, (column + 1) * columns, (row + 1) * rows)
    return Explanation(result, canvas, at, spot, heat, tuple(cells), layers)


def _cell(match: Match, height: int, width: int) -> tuple[slice, slice]:
    row, column = match.cell
    return slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width)


def heat_map(explanation: Explanation) -> Bytes:
    """The picture for people, u8[H,W,3]: the result with the point, beside the canvas with heat over its references.

    References are dimmed; heat lies over them, from dark red through yellow to white, the pixel that got most. The
    box on the canvas is the token that the point lies in. Below are the pictures that its colour was looked up in.
    """
    canvas = explanation.canvas
    mixed = _heated(canvas, explanation.heat, float(explanation.heat.max()))
    height, width = canvas.shape[0] // 4, canvas.shape[1] // 4
    mixed[height : 3 * height, width : 3 * width] = canvas[height : 3 * height, width : 3 * width]
    scale = max(1, round(_SIDE / canvas.shape[1]))
    right = _enlarged(mixed, scale)
    _mark(right, _scaled(explanation.spot, scale))
    left = Image.fromarray(explanation.result.image)
    _mark(left, _around(explanation.at, max(3, left.width // 60)))
    left = left.resize((max(1, left.width * right.height // left.height), right.height))
    below = _below(explanation.looked_up, left.width + _GAP + right.width)
    sheet = Image.new("RGB", (left.width + _GAP + right.width, right.height + below.height), (246, 246, 244))
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width + _GAP, 0))
    sheet.paste(below, (0, right.height))
    return np.asarray(sheet)


def _below(found: Sequence[LookedUp], width: int) -> Image.Image:
    """The pictures with the largest shares side by side, heat over them."""
    shown = found[:_PICTURES]
    if not shown:
        return Image.new("RGB", (width, 0))
    most = max(float(one.shares.max()) for one in shown)
    each = (width - _GAP * (_PICTURES - 1)) // _PICTURES
    tiles = []
    for one in shown:
        size = (each, max(1, round(each * one.picture.shape[0] / one.picture.shape[1])))
        heat = np.asarray(Image.fromarray(one.shares).resize(size, Image.Resampling.NEAREST))
        tiles.append(Image.fromarray(_heated(np.asarray(Image.fromarray(one.picture).resize(size)), heat, most)))
    row = Image.new("RGB", (width, _GAP + max(tile.height for tile in tiles)), (246, 246, 244))
    for number, tile in enumerate(tiles):
        row.paste(tile, (number * (each + _GAP), _GAP))
    return row


def _heated(picture: Bytes, heat: Floats, most: float) -> Bytes:
    """u8[H,W,3]: dimmed, under heat f32[H,W] of which `most` is white."""
    share = (heat / max(most, 1e-12))[..., None] ** 0.5
    hot = np.stack([np.interp(share[..., 0] * (len(_RAMP) - 1), range(len(_RAMP)), _RAMP[:, i]) for i in range(3)], -1)
    mixed: Bytes = np.rint(picture * (0.55 * (1 - 0.8 * share)) + hot * (0.8 * share)).astype(np.uint8)
    return mixed


def _enlarged(image: Bytes, scale: int) -> Image.Image:
    picture = Image.fromarray(image)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def _scaled(box: tuple[int, int, int, int], scale: int) -> tuple[int, int, int, int]:
    return box[0] * scale, box[1] * scale, box[2] * scale, box[3] * scale


def _around(at: Point, reach: int) -> tuple[int, int, int, int]:
    return at[0] - reach, at[1] - reach, at[0] + reach, at[1] + reach


def _mark(picture: Image.Image, box: tuple[int, int, int, int]) -> None:
    draw = ImageDraw.Draw(picture)
    for grow, ink in ((2, (0, 0, 0)), (1, (255, 255, 255)), (0, (0, 0, 0))):
        draw.rectangle((box[0] - grow, box[1] - grow, box[2] + grow, box[3] + grow), outline=ink)
