"""The folder images/ of a reference set: one PNG per picture, named by the SHA-256 of its pixels.

Colours are stored as they lie on white, with alpha beside them, so that `content_hash` of what is read back
is the name: every file proves itself.
"""

import re
from pathlib import Path

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from colorflow_rt.errors import ImageError
from colorflow_rt.pixels import Picture, content_hash, write_png

_NAME = re.compile(r"[0-9a-f]{64}\.png")


def image_path(images: Path, sha256: str) -> Path:
    """Where a picture lies."""
    return images / f"{sha256}.png"


def store(images: Path, sha256: str, picture: Picture) -> None:
    """Write a picture, atomically and synced. OutputError."""
    write_png(image_path(images, sha256), picture.rgb, picture.alpha)


def load(images: Path, sha256: str) -> Picture:
    """Read a picture and prove it against its name. ImageError: missing, unreadable or changed."""
    path = image_path(images, sha256)
    try:
        with path.open("rb") as file:
            pixels = _decode(PngImageFile(file))
    except FileNotFoundError:
        raise ImageError(f"{path} is missing") from None
    except MemoryError:
        raise
    except Exception as error:  # whatever a decoder makes of damaged bytes
        raise ImageError(f"{path} is damaged or unreadable ({' '.join(str(error).split())})") from error
    if content_hash(pixels) != sha256:
        raise ImageError(f"{path} is damaged (its pixels do not match its SHA-256)")
    return pixels


def _decode(image: PngImageFile) -> Picture:
    """As stored: `pixels.read_picture` would lay the colours on white a second time."""
    if image.mode not in ("RGB", "RGBA"):
        raise ValueError(f"mode {image.mode}, expected RGB or RGBA")
    pixels = np.array(image)
    return Picture(np.ascontiguousarray(pixels[..., :3]), pixels[..., 3] if image.mode == "RGBA" else None)


def is_good(images: Path, sha256: str) -> bool:
    """Whether `load` would succeed."""
    try:
        load(images, sha256)
    except ImageError:
        return False
    return True


def stored_hashes(images: Path) -> set[str]:
    """The hashes that files of the folder claim by their names."""
    return {path.stem for path in images.iterdir() if _NAME.fullmatch(path.name)} if images.is_dir() else set()
