"""What both clients share: records to messages and back, statuses to errors, and when to try again."""

import io
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.rpc.error_details_pb2 import BadRequest, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status
from numpy.typing import NDArray
from PIL import Image as PillowImage

from colorflow_rt.errors import Cancelled, ColorflowError, ImageError, OptionError, ReferencesError, UnknownPackError
from colorflow_rt.jobs import pictures_in
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pixels import Source, read_picture
from colorflow_rt.references import Hit, Reference
from colorflow_rt.result import Match, Result
from colorflow_server import names
from colorflow_server.calls import DETAILS
from colorflow_server.pb import colorflow_pb2 as pb
from colorflow_server.status import details_of

Code = grpc.StatusCode
NOT_SENT: NDArray[np.uint8] = np.zeros((0, 0, 3), np.uint8)
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 10.0
_CODES = {code.value[0]: code for code in Code}


class ServerError(ColorflowError):
    """A call failed for a reason that is not in the request: no connection, overload, deadline, token.

    code: the name of the gRPC status. retry_after_s: when the server thinks that another try is worth it, or None.
    request_id: to find the call in the server's log.
    """

    def __init__(self, message: str, code: str, retry_after_s: float | None = None, request_id: str = "") -> None:
        super().__init__(message)
        self.code, self.retry_after_s, self.request_id = code, retry_after_s, request_id


@dataclass(frozen=True)
class RemoteSet:
    """A reference set on the server, by its name: give it as `references`."""

    name: str


# To messages


def image(source: Source, name: str = "") -> pb.Image:
    """A page or reference as it is: files are sent unread, arrays as samples. ImageError: it cannot be read here."""
    if isinstance(source, str | Path):
        try:
            return pb.Image(name=name or Path(source).name, encoded=Path(source).read_bytes())
        except OSError as error:
            raise ImageError(f"{source}: cannot be read ({error.strerror}); check the path and its rights") from None
    if isinstance(source, np.ndarray):
        return pb.Image(name=name, array=_array(source))
    if isinstance(source, PillowImage.Image):
        picture = read_picture(source)
        pixels = picture.rgb if picture.alpha is None else np.dstack([picture.rgb, picture.alpha])
        return pb.Image(name=name, array=_array(pixels))
    data = source if isinstance(source, bytes | bytearray | memoryview) else source.read()
    return pb.Image(name=name, encoded=bytes(data))


def _array(array: NDArray[Any]) -> pb.Array:
    kinds = {np.dtype("u1"): pb.DATA_TYPE_UINT8, np.dtype("u2"): pb.DATA_TYPE_UINT16}
    kind = kinds.get(array.dtype.newbyteorder("="))
    if kind is None:
        raise ImageError(f"picture: is an array of {array.dtype}, expected uint8 or uint16; convert it")
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return pb.Array(shape=array.shape, data_type=kind, data=little.tobytes())


def reference_images(source: Any) -> Iterator[pb.Image]:
    """References as `Colorizer` takes them, but for sets: a folder, a picture, or an iterable of pictures."""
    if isinstance(source, str | Path) and Path(source).is_dir():
        found = pictures_in(Path(source))
        if not found:
            raise ReferencesError(f"no pictures in {source}: give a folder of references in colour")
        source = found
    one = isinstance(source, str | Path | bytes | np.ndarray | PillowImage.Image) or hasattr(source, "read")
    items: Iterable[Any] = [source] if one else source
    for item in items:
        name, picture = item if isinstance(item, tuple) else ("", item)
        yield image(picture, name)


def options(given: ColorizeOptions) -> pb.ColorizeOptions:
    """The options as a message."""
    size = None if given.size is None else pb.Size(width=given.size[0], height=given.size[1])
    return pb.ColorizeOptions(
        steps=given.steps,
        guidance_scale=given.guidance_scale,
        seed=given.seed,
        style=_number(names.STYLE, given.style, "auto"),
        fit=_number(names.FIT, given.fit, ""),
        luminance=_number(names.LUMINANCE, given.luminance, "auto"),
        saturation=given.saturation,
        context=_number(names.CONTEXT, given.context, "auto"),
        chroma_layer=given.chroma_layer,
        pinned=given.pinned,
        banned=given.banned,
        preview_every=given.preview_every,
        size=size,
        guidance_steps=given.guidance_steps,
        decode_margin=given.decode_margin,
        guider_steps=given.guider_steps,
    )


def _number(enum: Any, word: str, unset: str) -> Any:
    return names.number(enum, word, unset)


# From messages


def pixels(found: pb.Image) -> NDArray[np.uint8]:
    """u8[H,W,3|4] of a picture that a server sent."""
    if found.WhichOneof("content") == "array":
        return np.frombuffer(found.array.data, np.uint8).reshape(tuple(found.array.shape)).copy()
    with PillowImage.open(io.BytesIO(found.encoded), formats=("PNG", "JPEG", "WEBP")) as opened:
        return np.array(opened)


def result(found: pb.PageResult) -> Result:
    """A result as in-process; `canvas` is None and `model_image` u8[0,0,3] where they were not asked for."""
    page = pixels(found.image)
    return Result(
        image=np.ascontiguousarray(page[..., :3]),
        alpha=np.ascontiguousarray(page[..., 3]) if page.shape[2] == 4 else None,
        chroma=pixels(found.chroma) if found.HasField("chroma") else None,
        matches=tuple(match(one) for one in found.matches),
        seconds=dict(found.seconds),
        style=found.style,
        passed_through=found.passed_through,
        canvas=pixels(found.canvas) if found.HasField("canvas") else None,
        model_image=pixels(found.model_image) if found.HasField("model_image") else NOT_SENT,
    )


def match(found: pb.Match) -> Match:
    """A patch on the canvas."""
    cell = (found.row, found.column)
    return Match(cell, found.quadrant, found.rank, found.reference, found.patch, found.similarity, found.window)


def reference(found: pb.Reference) -> Reference:
    """A stored picture."""
    state = names.word(names.STATE, found.state, "normal") or "normal"
    return Reference(
        id=found.id,
        sha256=found.sha256,
        name=found.name,
        tag=found.tag or None,
        size=(found.size.width, found.size.height),
        added=found.added,
        source="approved" if found.approved else "added",
        state=state,  # type: ignore[arg-type]
    )


def hits(found: pb.SearchReferencesResponse) -> list[list[Hit]]:
    """By quadrant, best first."""
    rows: list[list[Hit]] = [[], [], [], []]
    for one in found.hits:
        rows[one.quadrant].append(Hit(reference(one.reference), one.patch, one.similarity))
    return rows


# Errors


def error_of(status: Any, request_id: str = "") -> ColorflowError:
    """The error of a google.rpc.Status or PageError: the same class as in-process, where there is one."""
    code, message = _CODES.get(status.code, Code.UNKNOWN), status.message or "no message"
    if code is Code.INVALID_ARGUMENT:
        request: Any = details_of(status, BadRequest)
        field = request.field_violations[0].field if request and request.field_violations else "options"
        return (
            ImageError(message) if field.startswith(("image", "page", "inline", "reference")) else OptionError(message)
        )
    if code in (Code.NOT_FOUND, Code.ALREADY_EXISTS):
        resource: Any = details_of(status, ResourceInfo)
        return UnknownPackError(message) if resource and resource.resource_type == "pack" else ReferencesError(message)
    if code is Code.CANCELLED:
        return Cancelled(message)
    retry: Any = details_of(status, RetryInfo)
    wait = None if retry is None else retry.retry_delay.ToTimedelta().total_seconds()
    return ServerError(message, code.name, wait, request_id)


def error_of_call(error: Any) -> ColorflowError:
    """The error of a call that ended with a grpc.RpcError."""
    trailing: dict[str, Any] = dict(error.trailing_metadata() or ())
    request_id = str(trailing.get("x-request-id", ""))
    if DETAILS in trailing:
        return error_of(Status.FromString(trailing[DETAILS]), request_id)
    details = error.details() or "no details"
    status = Status(code=error.code().value[0], message=f"{error.code().name}: {details}")
    return error_of(status, request_id)


def wait_before(error: ColorflowError, attempt: int) -> float | None:
    """Seconds until another try (the first attempt is 0); None: another try would not help.

    As long as the server says, and a little more each time, at random, lest all clients come back at once. Where it
    could not be reached it says nothing.
    """
    if not isinstance(error, ServerError):
        return None
    if error.retry_after_s is None and error.code != Code.UNAVAILABLE.name:
        return None
    wait = FIRST_WAIT_S * 2**attempt if error.retry_after_s is None else error.retry_after_s * (1 + 0.5 * attempt)
    return min(wait, LONGEST_WAIT_S) * random.uniform(1.0, 1.25)
