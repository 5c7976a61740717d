"""Pictures in (every mode and fault of the "Bad input" section) and out."""

import io
import os
import stat
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from colorflow_rt.errors import ImageError
from colorflow_rt.pixels import (
    Limits,
    Picture,
    content_hash,
    encode_png,
    is_colored,
    luminance,
    read_picture,
    resize,
    write_png,
)

rng = np.random.default_rng(1)


def picture(width: int = 48, height: int = 32) -> np.ndarray:
    """A smooth colour gradient with a noisy band: compresses, and has an up, a down, a left and a right."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=-1)
    rgb[4:8] = rng.integers(0, 256, (4, width, 3))
    return rgb.astype(np.uint8)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


RGB = picture()
GRAY = RGB[..., 0]


# Accepted


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_lossless_formats_from_path_bytes_file_and_image(tmp_path: Path, kind: str) -> None:
    image = Image.fromarray(RGB).quantize(200).convert("RGB") if kind == "GIF" else Image.fromarray(RGB)
    data = encode(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
    path = tmp_path / "page.of.no.extension"
    path.write_bytes(data)
    with path.open("rb") as file:
        results = [read_picture(source) for source in (path, str(path), data, file, image)]
    for result in results:
        assert np.array_equal(result.rgb, np.asarray(image))
        assert result.alpha is None
        assert result.size == (48, 32)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}])
def test_jpeg(options: dict[str, object]) -> None:
    smooth = np.asarray(Image.fromarray(RGB).reduce(8).resize((48, 32)))
    result = read_picture(encode(Image.fromarray(smooth), "JPEG", quality=95, **options))
    assert np.abs(result.rgb.astype(int) - smooth).mean() < 4


def test_gray_one_bit_and_palette() -> None:
    gray = read_picture(encode(Image.fromarray(GRAY), "PNG"))
    assert np.array_equal(gray.rgb, np.dstack([GRAY] * 3))
    bits = Image.fromarray(GRAY).convert("1")
    assert np.array_equal(read_picture(encode(bits, "PNG")).rgb[..., 0], np.asarray(bits) * 255)
    palette = Image.fromarray(RGB).quantize(64)
    assert np.array_equal(read_picture(encode(palette, "PNG")).rgb, np.asarray(palette.convert("RGB")))


def test_cmyk_without_profile_is_the_stated_formula() -> None:
    cmyk = rng.integers(0, 256, (32, 48, 4), dtype=np.uint8)
    result = read_picture(encode(Image.fromarray(cmyk, "CMYK"), "TIFF"))
    expected = (255.0 - cmyk[..., :3]) * (255.0 - cmyk[..., 3:]) / 255
    assert np.abs(result.rgb - expected).max() <= 1


def test_cmyk_jpeg_of_adobe_is_not_inverted() -> None:
    white = Image.new("CMYK", (32, 32), (0, 0, 0, 0))
    assert read_picture(encode(white, "JPEG")).rgb.min() > 250


def test_lab_and_ycbcr() -> None:
    lab = Image.fromarray(np.full((32, 32, 3), (255, 0, 0), np.uint8), "LAB")  # L = 100: white
    assert read_picture(encode(lab, "TIFF")).rgb.min() > 250
    assert np.abs(read_picture(Image.fromarray(RGB).convert("YCbCr")).rgb.astype(int) - RGB).max() <= 3


def png16(samples: np.ndarray, color_type: int) -> bytes:
    """A 16-bit PNG (Pillow itself writes only gray ones): color_type 0 gray, 2 RGB, 6 RGBA."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_16_bit_keeps_the_high_byte() -> None:
    gray = rng.integers(0, 65536, (20, 30), dtype=np.uint16)
    rgb = rng.integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    assert np.array_equal(read_picture(png16(gray, 0)).rgb[..., 1], gray >> 8)
    assert np.array_equal(read_picture(png16(rgb, 2)).rgb, rgb >> 8)
    assert np.array_equal(read_picture(encode(Image.fromarray(gray), "TIFF")).rgb[..., 1], gray >> 8)
    rgba = np.dstack([rgb, gray])
    assert np.array_equal(read_picture(png16(rgba, 6)).alpha, gray >> 8)


@pytest.mark.parametrize(
    ("values", "white"),
    [
        (np.array([0.0, 0.5, 1.0, -3.0, np.nan], np.float32), 1.0),
        (np.array([0.0, 100.0, 200.0, -3.0, np.nan], np.float32), 255.0),
        (np.array([0.0, 300.0, 65535.0], np.float32), 65535.0),
        (np.array([0.0, 1e6, 2e6, np.inf], np.float32), float(np.finfo(np.float32).max)),
        (np.array([0, 1, 255, -9], np.int32), 255.0),
        (np.array([0, 256, 40000], np.int32), 65535.0),
    ],
)
def test_float_and_integer_pictures_have_the_stated_white(values: np.ndarray, white: float) -> None:
    plane = np.resize(values, (20, 20))
    result = read_picture(encode(Image.fromarray(plane), "TIFF"))
    expected = np.rint(np.clip(np.nan_to_num(plane.astype(np.float64), nan=0, posinf=white), 0, None) * 255 / white)
    assert np.abs(result.rgb[..., 0] - expected).max() <= 1


def test_alpha_is_laid_on_white_and_given_back() -> None:
    alpha = rng.integers(0, 256, (32, 48), dtype=np.uint8)
    expected = RGB * (alpha[..., None] / 255) + 255 * (1 - alpha[..., None] / 255)
    rgba = np.dstack([RGB, alpha])
    for source in (encode(Image.fromarray(rgba), "PNG"), rgba, Image.fromarray(rgba)):
        result = read_picture(source)
        assert np.abs(result.rgb - expected).max() <= 0.5
        assert np.array_equal(result.alpha, alpha)
    la = Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(alpha)])
    assert np.abs(read_picture(la).rgb[..., 0] - expected[..., 0]).max() <= 0.5


def test_transparent_palette_entry_and_colour_are_alpha() -> None:
    palette = Image.fromarray(RGB).quantize(16)
    result = read_picture(encode(palette, "PNG", transparency=3))
    hidden = np.asarray(palette) == 3
    assert result.alpha is not None
    assert np.array_equal(result.alpha == 0, hidden)
    assert (result.rgb[hidden] == 255).all()
    gray = Image.fromarray(np.where(GRAY > 128, 200, 10).astype(np.uint8))
    result = read_picture(encode(gray, "PNG", transparency=200))
    assert np.array_equal(result.alpha == 0, GRAY > 128)


def test_opaque_alpha_is_dropped() -> None:
    assert read_picture(np.dstack([RGB, np.full((32, 48), 255, np.uint8)])).alpha is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_once(orientation: int) -> None:
    turns = [lambda a: a, np.fliplr, lambda a: np.rot90(a, 2), np.flipud]
    turns += [lambda a: a.swapaxes(0, 1), lambda a: np.rot90(a, 3), lambda a: np.rot90(a, 2).swapaxes(0, 1)]
    turns += [np.rot90]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "TIFF"):
        image = Image.open(io.BytesIO(encode(Image.fromarray(RGB), kind, exif=exif)))
        assert np.array_equal(read_picture(image).rgb, turns[orientation - 1](RGB)), kind


def test_broken_exif_is_ignored() -> None:
    data = encode(Image.fromarray(RGB), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(read_picture(data).rgb, RGB)


def swapped_profile() -> bytes:
    """sRGB's own profile with the red and blue primaries exchanged: a change that no rounding can hide."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return (
        data.replace(b"rXYZ", b"tXYZ")
        .replace(b"bXYZ", b"rXYZ")
        .replace(b"tXYZ", b"bXYZ")
        .replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    )


def test_icc_profile_is_converted_to_srgb() -> None:
    data = encode(Image.fromarray(RGB), "PNG", icc_profile=swapped_profile())
    assert np.abs(read_picture(data).rgb[..., ::-1].astype(int) - RGB).max() <= 3
    rgba = np.dstack([RGB, GRAY])
    result = read_picture(encode(Image.fromarray(rgba), "PNG", icc_profile=swapped_profile()))
    assert np.array_equal(result.alpha, GRAY)


@pytest.mark.parametrize("profile", [b"junk", swapped_profile()[:200], b"\0" * 500])
def test_broken_profile_is_ignored(profile: bytes) -> None:
    assert np.array_equal(read_picture(encode(Image.fromarray(RGB), "TIFF", icc_profile=profile)).rgb, RGB)


def test_profile_of_another_colour_space_is_ignored_and_gray_may_carry_an_rgb_one() -> None:
    cmyk = Image.fromarray(RGB).convert("CMYK")
    plain = read_picture(encode(cmyk, "TIFF")).rgb
    assert np.array_equal(read_picture(encode(cmyk, "TIFF", icc_profile=swapped_profile())).rgb, plain)
    gray = read_picture(encode(Image.fromarray(GRAY), "PNG", icc_profile=swapped_profile())).rgb
    assert np.abs(gray.astype(int) - GRAY[..., None]).max() <= 2


def test_arrays() -> None:
    deep = RGB.astype(np.uint16) * 257
    for array in (RGB, deep, RGB[..., :1], GRAY, GRAY.astype(np.uint16) * 257):
        result = read_picture(array)
        expected = RGB if array.ndim == 3 and array.shape[2] == 3 else np.dstack([GRAY] * 3)
        assert result.rgb.dtype == np.uint8
        assert np.array_equal(result.rgb, expected)
        assert not np.shares_memory(result.rgb, array)


# Refused: one line, the name first


def refusal(source: object, limits: Limits | None = None, name: str | None = None) -> str:
    with pytest.raises(ImageError) as caught:
        read_picture(source, limits or Limits(), name)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_folder_empty_and_foreign_files(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.png") == f"{tmp_path}/no.png: no such file; check the path"
    assert refusal(str(tmp_path)).startswith(f"{tmp_path}: is a folder")
    (tmp_path / "empty.png").touch()
    assert "empty.png: is empty" in refusal(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("This is no picture, whatever its name says.")
    assert "text.png: its content is not a PNG, JPEG" in refusal(tmp_path / "text.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a regular file" in refusal(tmp_path / "pipe.png")
    assert "cannot be opened" in refusal("a\0b.png")


def test_name_stands_first_and_is_printable(tmp_path: Path) -> None:
    assert refusal(b"", name="page 7").startswith("page 7: is empty")
    assert refusal(io.BytesIO(b"")).startswith("picture: is empty")
    assert refusal(tmp_path / "two\nlines.png").startswith("'")


@pytest.mark.parametrize("kind", ["ICO", "PPM", "TGA", "PDF"])
def test_other_image_formats(kind: str) -> None:
    assert "not a PNG, JPEG, WEBP, TIFF, BMP or GIF" in refusal(encode(Image.fromarray(RGB), kind))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_truncated_anywhere_is_refused_or_complete(kind: str) -> None:
    data = encode(Image.fromarray(RGB), kind)
    whole = read_picture(data).rgb
    with warnings.catch_warnings():  # Pillow warns about some of these, and must not be what saves us
        warnings.simplefilter("ignore")
        for cut in {*range(1, len(data), 1 + len(data) // 60), *range(len(data) - 8, len(data))}:
            try:
                assert np.array_equal(read_picture(data[:cut]).rgb, whole), f"{kind} cut at {cut}"
            except ImageError as error:
                assert "truncated or damaged" in str(error) or "its content is not" in str(error)
    assert "truncated or damaged" in refusal(data[: len(data) // 2])


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"]), st.data())
def test_damaged_bytes_never_raise_anything_else(kind: str, data: st.DataObject) -> None:
    content = bytearray(encode(Image.fromarray(RGB), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert read_picture(bytes(content), Limits(max_pixels=10_000)).rgb.dtype == np.uint8
        except ImageError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animated_and_multi_page(kind: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(RGB), Image.fromarray(RGB[::-1].copy())]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert ("several pages" if kind == "TIFF" else "several frames (an animation)") in refusal(data)
    assert "save the one you want as PNG" in refusal(Image.open(io.BytesIO(data)))


def test_pixel_limit_is_seen_before_decoding() -> None:
    huge = png16(np.zeros((1, 1), np.uint16), 0)
    header = struct.pack(">II", 100_000, 100_000)
    forged = (
        huge[:16] + header + huge[24:29] + struct.pack(">I", zlib.crc32(b"IHDR" + header + huge[24:29])) + huge[33:]
    )
    assert "has 100000x100000 = 10,000,000,000 pixels, over the limit of 100,000,000" in refusal(forged)
    limits = Limits(max_pixels=48 * 32 - 1)
    for source in (RGB, Image.fromarray(RGB), encode(Image.fromarray(RGB), "JPEG")):
        assert "over the limit of 1,535" in refusal(source, limits)
    assert read_picture(RGB, Limits(max_pixels=48 * 32)).size == (48, 32)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF", "WEBP", "BMP"])
def test_pillows_own_limit_does_not_surface(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    data = encode(Image.fromarray(RGB), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 32 - 1)  # warnings are errors here
    assert read_picture(data).size == (48, 32)
    assert Image.MAX_IMAGE_PIXELS == 48 * 32 - 1


def test_too_small() -> None:
    assert "is 15x40, under 16 pixels a side" in refusal(np.zeros((40, 15, 3), np.uint8))
    assert "is 40x0, under 16" in refusal(np.zeros((0, 40), np.uint8))
    assert read_picture(np.zeros((16, 16), np.uint8)).size == (16, 16)


@pytest.mark.parametrize("array", [np.zeros((20, 20)), np.zeros((20, 20, 2), np.uint8), np.zeros(20, np.uint8)])
def test_arrays_of_other_shape_or_dtype(array: np.ndarray) -> None:
    assert f"is an array {array.dtype}[20" in refusal(array)


# Measures


def test_luminance_is_rec601_and_exact_on_gray() -> None:
    levels = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert np.array_equal(luminance(levels)[0], np.arange(256, dtype=np.float32))
    assert luminance(np.array([[[255, 0, 0]]], np.uint8))[0, 0] == pytest.approx(76.245)
    assert luminance(RGB).dtype == np.float32


def test_content_hash_depends_on_pixels_alpha_and_shape_alone() -> None:
    same = [read_picture(encode(Image.fromarray(RGB), kind)) for kind in ("PNG", "TIFF")]
    assert content_hash(same[0]) == content_hash(same[1])
    changed = RGB.copy()
    changed[0, 0, 0] ^= 1
    reshaped = RGB.reshape(48, 32, 3)
    hashes = {content_hash(Picture(rgb)) for rgb in (RGB, changed, reshaped)}
    hashes.add(content_hash(Picture(RGB, GRAY)))
    assert len(hashes) == 4


def test_resize_is_pillows_bicubic_of_colour_and_gray() -> None:
    assert resize(RGB, (20, 11)).shape == (11, 20, 3)
    expected = Image.fromarray(GRAY).resize((20, 11), Image.Resampling.BICUBIC)
    assert np.array_equal(resize(GRAY, (20, 11)), np.asarray(expected))


# Colour


def gray_page(size: tuple[int, int] = (300, 420)) -> np.ndarray:
    """Smooth shapes of all grays, paper between them, and lines."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    values = 128 + 100 * np.sin(x / 31.0) * np.cos(y / 43.0)
    values[(x // 60 + y // 70) % 3 == 0] = 255
    values[(x + 2 * y) % 97 < 2] = 0
    return np.repeat(values[..., None], 3, axis=2).astype(np.uint8)


def jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    return read_picture(encode(Image.fromarray(rgb), "JPEG", quality=quality)).rgb


def tinted(tint: tuple[float, float, float]) -> np.ndarray:
    return (gray_page() * np.array(tint)).astype(np.uint8)


def sepia() -> np.ndarray:
    """Black to brown to cream, as photo programs tone a gray picture: the tint is strongest in the middle."""
    value = gray_page()[..., :1] / 255.0
    return np.rint(255 * np.concatenate([value**0.7, value**0.95, value**1.4], axis=2)).astype(np.uint8)


def test_gray_pages_are_not_coloured() -> None:
    noisy = gray_page() + rng.normal(0, 8, (420, 300, 3))
    assert not is_colored(gray_page())
    assert not is_colored(jpeg(noisy.clip(0, 255).astype(np.uint8), 40))
    assert not is_colored(np.full((40, 40, 3), 255, np.uint8))
    assert not is_colored(np.zeros((16, 16, 3), np.uint8))


@pytest.mark.parametrize("tint", [(1.0, 0.95, 0.8), (0.93, 1.0, 0.94), (0.85, 0.9, 1.0), (1.0, 0.6, 0.6)])
def test_one_ink_on_tinted_paper_is_not_coloured(tint: tuple[float, float, float]) -> None:
    assert not is_colored(tinted(tint))
    assert not is_colored(jpeg(tinted(tint), 50))


def test_sepia_is_not_coloured() -> None:
    assert not is_colored(sepia())
    assert not is_colored(jpeg(sepia(), 60))


def test_a_stamp_does_not_colour_a_page_but_a_coloured_panel_does() -> None:
    page = gray_page()
    page[20:70, 20:70] = (220, 30, 40)  # 2 % of the page
    assert not is_colored(page)
    page[20:160, 20:100] = (220, 30, 40)  # 9 %
    assert is_colored(page)


def test_coloured_pages_of_few_flat_or_pale_colours() -> None:
    page = gray_page()
    flat = page.copy()
    flat[:200] = (110, 170, 230)  # sky
    flat[200:] = (150, 120, 80)  # ground
    assert is_colored(flat)
    assert is_colored(jpeg(flat, 50))
    pale = page.copy()
    pale[50:200, 50:250] = (255, 214, 190)  # skin on white
    pale[250:400, 50:250] = (200, 220, 255)
    assert is_colored(pale)
    assert is_colored(RGB)


@settings(deadline=None, max_examples=60)
@given(st.tuples(*[st.floats(0.75, 1.0)] * 3), st.integers(40, 95))
def test_any_uniform_tint_counts_as_gray(tint: tuple[float, float, float], quality: int) -> None:
    assert not is_colored(jpeg(tinted(tint), quality))


# Written


def test_write_png_round_trip(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", RGB)
    write_png(tmp_path / "b.png", RGB, GRAY)
    assert np.array_equal(read_picture(tmp_path / "a.png").rgb, RGB)
    assert np.array_equal(read_picture(tmp_path / "b.png").alpha, GRAY)
    assert (tmp_path / "a.png").read_bytes() == encode_png(RGB)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
