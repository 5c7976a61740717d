"""What the campaigns share: pictures to send, and a report on disk that the same command goes on from."""

import json
from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.files import atomic_write


def gray_page(seed: int = 0, size: tuple[int, int] = (64, 96)) -> NDArray[np.uint8]:
    """u8[H,W]: blocks of 8 pixels, for (W, H)."""
    return _blocks(np.random.default_rng(seed).integers(40, 256, (size[1] // 8, size[0] // 8), np.uint8))


def color_picture(seed: int = 0, size: tuple[int, int] = (64, 96)) -> NDArray[np.uint8]:
    """u8[H,W,3]: blocks of 8 pixels, for (W, H)."""
    return _blocks(np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8))


def _blocks(small: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return small.repeat(8, axis=0).repeat(8, axis=1)


def load(path: Path, empty: Mapping[str, Any]) -> dict[str, Any]:
    """The report so far, or an empty one."""
    known = json.loads(path.read_text()) if path.exists() else {}
    return deepcopy(dict(empty)) | known


def save(path: Path, report: dict[str, Any]) -> None:
    """Keep the state of the campaign."""
    report["updated"] = datetime.now(UTC).isoformat(timespec="seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, (json.dumps(report) + "\n").encode())
