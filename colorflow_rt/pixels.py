"""Pictures in and out: everything a user can hand us becomes 8-bit sRGB, or one clear line saying why not.

Rules of conversion (`read_picture`):

- EXIF orientation is applied, once; no other metadata is kept.
- An ICC profile is applied (to sRGB); a broken one, or one of another colour space, is ignored.
- CMYK without a profile: R = (255 - C)(255 - K) / 255 and so on. Palette, 1-bit, YCbCr, Lab: as Pillow does.
- 16-bit samples keep their high byte.
- Float and 32-bit integer pictures have no fixed white: it is the smallest of 1 (floats only), 255 and 65535
  that no pixel exceeds, else the greatest pixel; below 0 and NaN are black.
- Alpha (also a transparent palette entry or colour) is laid on white and handed back beside the colours; an
  alpha that is opaque everywhere is dropped.

Refused with `ImageError`: no such file, a folder, empty, truncated, animated, of several pages, not a PNG,
JPEG, WEBP, TIFF, BMP or GIF (by its first bytes, whatever its name), over the pixel limit, too small.
"""

import hashlib
import io
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from colorflow_rt.errors import ImageError
from colorflow_rt.files import atomic_write

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
Source = str | Path | bytes | BinaryIO | Image.Image | NDArray[Any]

FORMATS = "PNG, JPEG, WEBP, TIFF, BMP or GIF"
_SIGNATURES: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"\xff\xd8\xff", JpegImageFile),
    (b"II*\0", TiffImageFile),
    (b"MM\0*", TiffImageFile),
    (b"BM", BmpImageFile),
    (b"GIF87a", GifImageFile),
    (b"GIF89a", GifImageFile),
)
_PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


@dataclass(frozen=True)
class Limits:
    """At most `max_pixels` in all (seen in the header, before decoding), at least `min_side` a side."""

    max_pixels: int = 100_000_000
    min_side: int = 16


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Picture:
    """`rgb` u8[H,W,3], sRGB, on white where it was transparent; `alpha` u8[H,W], None if all opaque."""

    rgb: U8
    alpha: U8 | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.rgb.shape[1], self.rgb.shape[0]


def read_picture(source: Source, limits: Limits = DEFAULT_LIMITS, name: str | None = None) -> Picture:
    """Read a path, bytes, binary file, PIL image or array by the rules above.

    Arrays are u8 or u16, [H,W] or [H,W,1|3|4]. `name` stands first in messages (default: the path, else
    "picture"). Raises ImageError.
    """
    label = _label(source, name)
    if isinstance(source, np.ndarray):
        return _from_array(source, limits, label)
    if isinstance(source, Image.Image):
        return _from_image(source, limits, label)
    with _stream(source, label) as stream:
        return _from_image(_open(stream, label), limits, label)


def _label(source: Source, name: str | None) -> str:
    if name is None and isinstance(source, str | Path):
        name = str(source)
    name = name or "picture"
    return name if name.isprintable() else ascii(name)


@contextmanager
def _stream(source: str | Path | bytes | BinaryIO, label: str) -> Iterator[BinaryIO]:
    if isinstance(source, str | Path):
        with _open_file(Path(source), label) as file:
            yield file
        return
    data = source if isinstance(source, bytes | bytearray | memoryview) else source.read()
    if not data:
        raise ImageError(f"{label}: is empty (0 bytes); give a picture")
    yield io.BytesIO(data)


def _open_file(path: Path, label: str) -> BinaryIO:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{label}: is a folder, expected a picture; give the path of the picture itself")
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device might never end
            raise ImageError(f"{label}: is not a regular file; save the picture to a file first")
        if status.st_size == 0:
            raise ImageError(f"{label}: is empty (0 bytes); copy or export the picture again")
        return path.open("rb")
    except FileNotFoundError:
        raise ImageError(f"{label}: no such file; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ImageError(f"{label}: cannot be opened ({_reason(error)}); check the path and its rights") from None


def _open(stream: BinaryIO, label: str) -> Image.Image:
    """Pillow's reader, header read, pixels not.

    The format's class is called directly: `Image.open` would warn about large pictures below our own limit,
    and a warning cannot be silenced for one thread alone.
    """
    head = stream.read(12)
    stream.seek(0)
    reader = next((reader for magic, reader in _SIGNATURES if head.startswith(magic)), None)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        reader = WebPImageFile
    if reader is None:
        raise ImageError(f"{label}: its content is not a {FORMATS} picture; save it as PNG")
    with _decoding(label):
        return reader(stream)


@contextmanager
def _decoding(label: str) -> Iterator[None]:
    """Any failure of a decoder on foreign bytes means that the picture is unreadable."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        reason = _reason(error)
        raise ImageError(f"{label}: is truncated or damaged ({reason}); copy or export it again") from error


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _from_image(image: Image.Image, limits: Limits, label: str) -> Picture:
    _check_size(image.size, limits, label)
    with _decoding(label):
        if getattr(image, "is_animated", False):
            what = "several pages" if image.format in ("TIFF", "MPO") else "several frames (an animation)"
            raise ImageError(f"{label}: has {what}, expected one picture; save the one you want as PNG")
        with _without_bomb_guard(image.size):
            image.load()
        return _convert(image)


def _check_size(size: tuple[int, int], limits: Limits, label: str) -> None:
    pixels, shape = size[0] * size[1], f"{size[0]}x{size[1]}"
    if pixels > limits.max_pixels:
        raise ImageError(
            f"{label}: has {shape} = {pixels:,} pixels, over the limit of {limits.max_pixels:,}; "
            "make it smaller or raise the limit"
        )
    if min(size) < limits.min_side:
        raise ImageError(f"{label}: is {shape}, under {limits.min_side} pixels a side; give a larger picture")


_bomb_guard = threading.Lock()


@contextmanager
def _without_bomb_guard(size: tuple[int, int]) -> Iterator[None]:
    """Pillow's own limit lifted where ours let a larger picture pass (its TIFF reader checks once more)."""
    if size[0] * size[1] <= (Image.MAX_IMAGE_PIXELS or 0):
        yield
        return
    with _bomb_guard:
        kept, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = kept


def _convert(image: Image.Image) -> Picture:
    profile = image.info.get("icc_profile")
    image = _upright(image)
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        image = Image.fromarray(_to_8_bit(np.asarray(image)))
    colors, alpha = _split_alpha(image)
    return _lay_on_white(np.array(_to_srgb(colors, profile)), None if alpha is None else np.array(alpha))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return image


def _to_8_bit(values: NDArray[Any]) -> U8:
    if values.dtype == np.uint8:
        return np.array(values)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return (values >> 8).astype(np.uint8)
    values = np.nan_to_num(values.astype(np.float32), nan=0.0).clip(0.0)
    top = float(values.max())
    whites = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
    white = next((white for white in whites if top <= white), top)
    return np.rint(values * (255.0 / white)).clip(0, 255).astype(np.uint8)


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colours in a mode that an ICC profile can describe (L, RGB, CMYK), and the alpha plane."""
    if image.has_transparency_data:
        full = image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA")
        colors = full.getchannel("L") if full.mode == "LA" else full.convert("RGB")
        return colors, full.getchannel("A")
    if image.mode == "1":
        return image.convert("L"), None
    return image if image.mode in _PROFILE_MODES.values() else image.convert("RGB"), None


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        try:
            return _apply_profile(image, profile)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError, KeyError):
            pass  # broken, or of another colour space: ignored
    return image.convert("RGB")


def _apply_profile(image: Image.Image, data: bytes) -> Image.Image:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
    mode = _PROFILE_MODES[profile.profile.xcolor_space.strip()]
    if (ImageCms.getProfileDescription(profile) or "").startswith("sRGB"):
        return image.convert("RGB")  # spares the rounding of a round trip
    if mode == "RGB" and image.mode == "L":  # gray JPEGs often carry the profile of the screen
        image = image.convert("RGB")
    if mode != image.mode:
        raise ValueError("profile of another colour space")
    transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    return transform.apply(image)


def _lay_on_white(rgb: U8, alpha: U8 | None) -> Picture:
    if alpha is None or alpha.min() == 255:
        return Picture(rgb)
    opacity = alpha.astype(np.uint16)[..., None]
    mixed = rgb * opacity  # at most 255 * 255 with the white added: fits 16 bits, rounding included
    mixed += 255 * (255 - opacity) + 127
    mixed //= 255
    return Picture(mixed.astype(np.uint8), alpha)


def _from_array(array: NDArray[Any], limits: Limits, label: str) -> Picture:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not shaped or array.dtype not in (np.uint8, np.uint16):
        expected = "uint8 or uint16 of shape [H,W], [H,W,1], [H,W,3] or [H,W,4]"
        raise ImageError(f"{label}: is an array {array.dtype}{list(array.shape)}, expected {expected}; convert it")
    _check_size((array.shape[1], array.shape[0]), limits, label)
    values = _to_8_bit(array)
    if values.ndim == 2:
        return Picture(np.repeat(values[..., None], 3, axis=2))
    return _lay_on_white(np.ascontiguousarray(values[..., :3]), values[..., 3] if values.shape[2] == 4 else None)


def luminance(rgb: NDArray[Any]) -> F32:
    """Rec.601: 0.299 R + 0.587 G + 0.114 B, f32[H,W] in 0..255; a gray pixel keeps exactly its value."""
    weights = np.array([299, 587, 114], np.float32)  # whole numbers: their sums are exact in float32
    scaled: F32 = (rgb.astype(np.float32) @ weights) / np.float32(1000)
    return scaled


def is_colored(rgb: U8) -> bool:
    """Whether a page is already in colour, by this rule.

    The page is averaged down to about 256x256 (JPEG's chroma noise and colour fringes vanish), and (Cb, Cr)
    of every pixel taken in 8-bit levels. One ink on tinted paper (sepia, a yellowed scan) has one hue, of a
    strength that depends on lightness alone: so the part of the chroma along the page's mean hue is taken
    off, up to its median at that lightness. The page is coloured if what is left exceeds 12 levels on more
    than 3 % of it. So a smaller stamp or logo leaves a gray page gray, and a page all of one hue counts as
    gray.
    """
    factor = max(1, round((rgb.shape[0] * rgb.shape[1]) ** 0.5 / 256))
    small = np.asarray(Image.fromarray(rgb).reduce(factor)).reshape(-1, 3)
    luma = luminance(small)
    chroma = np.stack([0.564 * (small[:, 2] - luma), 0.713 * (small[:, 0] - luma)], axis=1)
    mean = chroma.mean(axis=0)
    hue = mean / max(float(np.hypot(*mean)), 1e-6)
    along, across = chroma @ hue, chroma @ np.array([-hue[1], hue[0]])
    left = np.hypot(along - _median_tint(along, luma), across)
    return bool((left > 12.0).mean() > 0.03)


def _median_tint(along: F32, luma: F32) -> F32:
    """The median of `along` among the pixels of each of 16 lightness bands, not below 0."""
    band = (luma / 16).astype(np.int64).clip(0, 15)
    tint = np.zeros(16, np.float32)
    for index in np.unique(band):
        tint[index] = max(0.0, float(np.median(along[band == index])))
    at_pixels: F32 = tint[band]
    return at_pixels


def resize(rgb: U8, size: tuple[int, int], resample: str = "bicubic") -> U8:
    """u8[H,W,3] or u8[H,W] to `size` = (width, height) by Pillow, antialiased.

    resample "bicubic", or "box": means over areas. A fill keeps its gray up to its outline; bicubic leaves halos there.
    What "box" would have to enlarge is enlarged by bicubic.
    """
    shrinks = rgb.shape[1] >= size[0] and rgb.shape[0] >= size[1]
    how = Image.Resampling.BOX if resample == "box" and shrinks else Image.Resampling.BICUBIC
    return np.array(Image.fromarray(rgb).resize(size, how))


def content_hash(picture: Picture) -> str:
    """SHA-256 (hex) of shape and pixels, alpha included: equal pictures hash alike whatever their files."""
    pixels = picture.rgb if picture.alpha is None else np.dstack([picture.rgb, picture.alpha])
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(pixels.tobytes())
    return digest.hexdigest()


def encode_png(rgb: U8, alpha: U8 | None = None, level: int = 6) -> bytes:
    """A PNG without metadata; RGB, or RGBA if `alpha` u8[H,W] is given. level: 0 (fast) to 9 (small), all exact."""
    buffer = io.BytesIO()
    Image.fromarray(rgb if alpha is None else np.dstack([rgb, alpha])).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def write_png(path: str | Path, rgb: U8, alpha: U8 | None = None) -> None:
    """Write `rgb` u8[H,W,3], with `alpha` u8[H,W] if given, as `atomic_write` does. Raises OutputError."""
    atomic_write(path, encode_png(rgb, alpha))
