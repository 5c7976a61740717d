"""Messages of the protocol to records of the runtime and back, every value checked. `Rejected` names the field."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pack import Pack
from colorflow_rt.pixels import encode_png
from colorflow_rt.references import Hit, Reference
from colorflow_rt.result import Match, Result
from colorflow_server import names
from colorflow_server.pb import colorflow_pb2 as pb
from colorflow_server.status import invalid

Bytes = NDArray[np.uint8]
Source = bytes | NDArray[Any]

LONGEST_NAME = 200
FAST = 1  # PNG compression: a tenth of the default's time for an eighth more bytes
PRIORITIES = range(-100, 101)
_DTYPES: dict[int, np.dtype[Any]] = {pb.DATA_TYPE_UINT8: np.dtype("u1"), pb.DATA_TYPE_UINT16: np.dtype("<u2")}


def source(image: pb.Image, field: str) -> Source:
    """What `read_picture` takes: the file's bytes, or an array u8|u16[H,W] or [H,W,C] that looks into the message."""
    if len(image.name) > LONGEST_NAME:
        raise invalid(f"{field}.name", f"a name has {len(image.name)} characters, expected at most {LONGEST_NAME}")
    match image.WhichOneof("content"):
        case "encoded":
            if image.encoded:
                return bytes(image.encoded)
        case "array":
            return _array(image.array, f"{field}.array")
    raise invalid(field, f"{field} is empty: send a PNG, JPEG or WebP file in `encoded`, or samples in `array`")


def _array(array: pb.Array, field: str) -> NDArray[Any]:
    dtype, shape = _DTYPES.get(array.data_type), tuple(array.shape)
    if dtype is None:
        raise invalid(f"{field}.data_type", f"data_type is {array.data_type}, expected UINT8 (1) or UINT16 (2)")
    if len(shape) not in (2, 3) or not all(1 <= side <= 1 << 20 for side in shape):
        shown = list(shape[:8])
        raise invalid(f"{field}.shape", f"shape is {shown}, expected [height, width] or [height, width, channels]")
    expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if len(array.data) != expected:
        message = f"data has {len(array.data)} bytes, expected {expected} for shape {list(shape)} of {dtype.name}"
        raise invalid(f"{field}.data", message)
    return np.frombuffer(array.data, dtype).reshape(shape)


def options(message: pb.ColorizeOptions) -> ColorizeOptions:
    """OptionError or Rejected for what is out of range."""
    size = (message.size.width, message.size.height) if message.HasField("size") else None
    return ColorizeOptions(
        steps=message.steps if message.HasField("steps") else None,
        guidance_scale=message.guidance_scale if message.HasField("guidance_scale") else None,
        seed=message.seed,
        style=_word(names.STYLE, message.style, "auto", "options.style"),
        fit=_word(names.FIT, message.fit, "pad", "options.fit"),
        luminance=_word(names.LUMINANCE, message.luminance, "auto", "options.luminance"),
        saturation=message.saturation if message.HasField("saturation") else 1.0,
        context=_word(names.CONTEXT, message.context, "auto", "options.context"),
        chroma_layer=message.chroma_layer,
        pinned=tuple(message.pinned),
        banned=tuple(message.banned),
        preview_every=message.preview_every,
        size=size,
        guidance_steps=message.guidance_steps if message.HasField("guidance_steps") else None,
        decode_margin=message.decode_margin if message.HasField("decode_margin") else None,
        guider_steps=message.guider_steps if message.HasField("guider_steps") else None,
    )


def check_output(output: pb.Output) -> pb.Output:
    """The output itself. Rejected: a format that is not known."""
    _word(names.FORMAT, output.format, "png", "output.format")
    return output


def check_priority(priority: int) -> int:
    """The priority itself. Rejected: out of range."""
    if priority not in PRIORITIES:
        raise invalid("priority", f"priority is {priority}, expected -100 to 100")
    return priority


def _word(enum: Any, number: int, unset: str, field: str) -> str:
    word = names.word(enum, number, unset)
    if word is None:
        raise invalid(field, f"{field} is {number}, expected one of {', '.join(names.words(enum))}")
    return word


def image(rgb: Bytes, alpha: Bytes | None, format: str, name: str = "") -> pb.Image:
    """A picture u8[H,W,3], with alpha u8[H,W] if there is one, in a format of `names.FORMAT`."""
    if format == "png":
        return pb.Image(name=name, encoded=encode_png(rgb, alpha, level=FAST))
    pixels = rgb if alpha is None else np.dstack([rgb, alpha])
    if format == "array":
        array = pb.Array(shape=pixels.shape, data_type=pb.DATA_TYPE_UINT8, data=np.ascontiguousarray(pixels).tobytes())
        return pb.Image(name=name, array=array)
    buffer = io.BytesIO()
    if format == "webp":
        PillowImage.fromarray(pixels).save(buffer, "WEBP", lossless=True, exact=True, quality=0, method=0)
    else:
        PillowImage.fromarray(rgb).save(buffer, "JPEG", quality=95)
    return pb.Image(name=name, encoded=buffer.getvalue())


def preview(step: int, steps: int, rgb: Bytes) -> pb.PagePreview:
    """A preview, u8[h,w,3], as JPEG."""
    return pb.PagePreview(step=step, steps=steps, image=image(rgb, None, "jpeg"))


def result(found: Result, output: pb.Output, queue_s: float) -> pb.PageResult:
    """A result as its client asked for it."""
    format = _word(names.FORMAT, output.format, "png", "output.format")
    message = pb.PageResult(
        image=image(found.image, found.alpha, format),
        matches=[match(one) for one in found.matches],
        seconds=found.seconds,
        queue_seconds=queue_s,
        style=found.style,
        passed_through=found.passed_through,
    )
    if found.chroma is not None:
        exact = "png" if format == "jpeg" else format  # it has alpha
        message.chroma.CopyFrom(image(found.chroma[..., :3], found.chroma[..., 3], exact))
    if output.model_image and found.model_image is not None:
        message.model_image.CopyFrom(image(found.model_image, None, format))
    if output.canvas and found.canvas is not None:
        message.canvas.CopyFrom(image(found.canvas, None, format))
    return message


def match(found: Match) -> pb.Match:
    """A patch on the canvas."""
    row, column = found.cell
    return pb.Match(
        row=row,
        column=column,
        quadrant=found.quadrant,
        rank=found.rank,
        reference=found.reference,
        patch=found.patch,
        similarity=found.similarity,
        window=found.window,
    )


def reference(found: Reference) -> pb.Reference:
    """A stored picture."""
    return pb.Reference(
        id=found.id,
        sha256=found.sha256,
        name=found.name,
        tag=found.tag or "",
        size=pb.Size(width=found.size[0], height=found.size[1]),
        added=found.added,
        approved=found.source == "approved",
        state=pb.ReferenceState.Value(f"REFERENCE_STATE_{found.state.upper()}"),
    )


def hit(quadrant: int, rank: int, found: Hit) -> pb.SearchReferencesResponse.Hit:
    """A patch that a search found."""
    return pb.SearchReferencesResponse.Hit(
        quadrant=quadrant,
        rank=rank,
        reference=reference(found.reference),
        patch=found.patch,
        similarity=found.score,
    )


def pack(found: Pack, reloads: int, reload_error: str) -> pb.Pack:
    """A served pack."""
    config = found.config
    return pb.Pack(
        name=config.name,
        version=config.version,
        license=config.license,
        description=config.description,
        styles=[pb.Style.Value(f"STYLE_{style.upper()}") for style in config.style.inputs],
        sizes=[pb.Size(width=width, height=height) for width, height in config.pages.sizes],
        multiple=config.pages.multiple,
        steps=config.defaults.steps,
        guidance_scale=config.defaults.guidance_scale,
        toml=config.to_toml(),
        reloads=reloads,
        reload_error=reload_error,
    )
