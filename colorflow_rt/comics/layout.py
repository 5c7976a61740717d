"""How a page is cut into panels."""

from dataclasses import dataclass

import numpy as np

from colorflow_rt.comics.shapes import Points


@dataclass(frozen=True)
class Frame:
    """A panel's corners, [4, 2] pixels, clockwise from the top left."""

    corners: Points

    def box(self) -> tuple[int, int, int, int]:
        """The pixels the panel may touch: x0, y0, x1, y1."""
        x0, y0 = np.floor(self.corners.min(0)).astype(int).tolist()
        x1, y1 = np.ceil(self.corners.max(0)).astype(int).tolist()
        return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def cut_page(rng: np.random.Generator, width: int, height: int, rows: int | None = None) -> list[Frame]:
    """Panels in reading order; `rows` fixes their number, else it follows the page's proportions."""
    margin, gutter = 0.028 * min(width, height), 0.026 * min(width, height)
    count = rows or _row_count(rng, height / width)
    shares = rng.uniform(0.75, 1.25, count)
    edges = margin + (height - 2 * margin) * np.concatenate([[0], np.cumsum(shares) / shares.sum()])
    slants = _slants(rng, count, 0.03 * height / count)
    frames: list[Frame] = []
    for i in range(count):
        top, bottom = edges[i] + (gutter / 2 if i else 0), edges[i + 1] - (gutter / 2 if i < count - 1 else 0)
        left, right = margin, width - margin
        ys = [top - slants[i], top + slants[i], bottom + slants[i + 1], bottom - slants[i + 1]]
        row = np.array([[left, ys[0]], [right, ys[1]], [right, ys[2]], [left, ys[3]]])
        frames += _cut_row(row, _columns(rng, row, count), rng, gutter)
    return frames


def _row_count(rng: np.random.Generator, aspect: float) -> int:
    if aspect >= 2.2:
        return round(aspect * float(rng.uniform(0.9, 1.2)))
    if aspect < 0.8:
        return 1
    return int(rng.choice([1, 2, 3], p=[0.2, 0.65, 0.15]))


def _slants(rng: np.random.Generator, count: int, most: float) -> list[float]:
    """How far each gutter between rows leans; the page's own edges do not."""
    inner = [float(rng.uniform(-most, most)) if rng.random() < 0.4 else 0.0 for _ in range(count - 1)]
    return [0.0, *inner, 0.0]


def _columns(rng: np.random.Generator, row: Points, rows: int) -> int:
    """Panels in this row: few, so that the figures stay large."""
    wide = float((row[1, 0] - row[0, 0]) / (row[3, 1] - row[0, 1]))
    count = max(1, round(wide / float(rng.uniform(0.9, 1.5))))
    return count if count > 2 and rows == 1 else min(count, 2) if rng.random() < 0.8 / rows else 1


def _cut_row(row: Points, count: int, rng: np.random.Generator, gutter: float) -> list[Frame]:
    at = np.linspace(0, 1, count + 1)
    at[1:-1] += rng.uniform(-0.24, 0.24, count - 1) / count
    frames = []
    for j in range(count):
        left, right = _across(row, float(at[j])), _across(row, float(at[j + 1]))
        left[:, 0] += gutter / 2 if j else 0
        right[:, 0] -= gutter / 2 if j < count - 1 else 0
        frames.append(Frame(np.array([left[0], right[0], right[1], left[1]])))
    return frames


def _across(row: Points, t: float) -> Points:
    """Upper and lower end of the upright line at the share t of the row."""
    return np.array([row[0] * (1 - t) + row[1] * t, row[3] * (1 - t) + row[2] * t])
