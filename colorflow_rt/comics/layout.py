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
    aspect = height / width
    count = rows or _row_count(rng, aspect)
    shares = rng.uniform(0.75, 1.25, count)
    edges = margin + (height - 2 * margin) * np.concatenate([[0], np.cumsum(shares) / shares.sum()])
    frames: list[Frame] = []
    left = _slants(rng, count, 0.03 * height / count)
    for i in range(count):
        top, bottom = edges[i] + (gutter / 2 if i else 0), edges[i + 1] - (gutter / 2 if i < count - 1 else 0)
        row = np.array(
            [
                [margin, top - left[i]],
                [width - margin, top + left[i]],
                [width - margin, bottom + left[i + 1]],
                [margin, bottom - left[i + 1]],
            ]
        )
        frames += _cut_row(rng, row, gutter)
    return frames


def _row_count(rng: np.random.Generator, aspect: float) -> int:
    if aspect >= 2.2:
        return int(round(aspect * float(rng.uniform(0.9, 1.2))))
    if aspect < 0.8:
        return 1
    return int(rng.choice([1, 2, 3], p=[0.2, 0.68, 0.12]))


def _slants(rng: np.random.Generator, count: int, most: float) -> list[float]:
    inner = [float(rng.uniform(-most, most)) if rng.random() < 0.4 else 0.0 for _ in range(count - 1)]
    return [0.0, *inner, 0.0]


def _cut_row(rng: np.random.Generator, row: Points, gutter: float) -> list[Frame]:
    """The row whole, or cut into columns where it is wide enough."""
    wide = float((row[1, 0] - row[0, 0]) / (row[3, 1] - row[0, 1]))
    count = 1 if wide < 1.25 else max(1, round(wide / float(rng.uniform(0.9, 1.5))))
    count = 1 if count == 2 and rng.random() < 0.45 else count
    at = np.linspace(0, 1, count + 1)
    at[1:-1] += rng.uniform(-0.12, 0.12, count - 1) / count * 2
    frames = []
    for j in range(count):
        ends = [_between(row, float(at[j])), _between(row, float(at[j + 1]))]
        ends[0][:, 0] += gutter / 2 if j else 0
        ends[1][:, 0] -= gutter / 2 if j < count - 1 else 0
        frames.append(Frame(np.array([ends[0][0], ends[1][0], ends[1][1], ends[0][1]])))
    return frames


def _between(row: Points, t: float) -> Points:
    return np.array([row[0] * (1 - t) + row[1] * t, row[3] * (1 - t) + row[2] * t])
