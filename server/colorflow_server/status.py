"""Errors as gRPC statuses: the table of docs/serving.md as a program.

A status carries google.rpc details: BadRequest names the field, ResourceInfo the thing that is not there, RetryInfo
says when to come again. They travel as metadata, of which some proxies take 8 KB, so messages are kept short.
"""

import dataclasses
import math
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2 as codes
from google.rpc.error_details_pb2 import BadRequest, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

from colorflow_rt.errors import (
    Cancelled,
    ColorflowError,
    DamagedPackError,
    ImageError,
    MissingExtraError,
    OptionError,
    OutputError,
    PackError,
    ReferencesError,
    UnavailableError,
    UnknownPackError,
)
from colorflow_rt.options import ColorizeOptions
from colorflow_server.events import DeadlineExceeded, Refused

LONGEST = 1000  # characters of a message
_OPTIONS = tuple(field.name for field in dataclasses.fields(ColorizeOptions))


class Rejected(Exception):
    """A call or page that the server itself refuses, with its status."""

    def __init__(self, code: int, message: str, *details: Message) -> None:
        super().__init__(message)
        self.status = make_status(code, message, *details)


def make_status(code: int, message: str, *details: Message) -> Status:
    """A google.rpc.Status of one short line."""
    status = Status(code=code, message=" ".join(message.split())[:LONGEST])
    for detail in details:
        status.details.add().Pack(detail)
    return status


def invalid(field: str, message: str) -> Rejected:
    """A field of the request is not as it must be."""
    return Rejected(codes.INVALID_ARGUMENT, message, _bad_request(field, message))


def not_found(kind: str, name: str, message: str) -> Rejected:
    """The thing that the request names is not there; kind is "pack", "reference set" or "reference"."""
    return Rejected(codes.NOT_FOUND, message, _resource(kind, name, message))


def exists(kind: str, name: str, message: str) -> Rejected:
    """What the request would make is there already."""
    return Rejected(codes.ALREADY_EXISTS, message, _resource(kind, name, message))


def later(code: int, message: str, seconds: float) -> Rejected:
    """Not now, but in so many seconds."""
    return Rejected(code, message, retry_info(seconds))


def retry_info(seconds: float) -> RetryInfo:
    """Come again in so many seconds."""
    wait = Duration()
    wait.FromMilliseconds(math.ceil(1000 * max(0.0, seconds)))
    return RetryInfo(retry_delay=wait)


def status_of(error: Exception) -> Status | None:
    """The status of an error that was raised on purpose; None for any other: that is a fault of ours."""
    match error:
        case Rejected():
            return error.status
        case Refused():
            code = codes.UNAVAILABLE if error.reason == "draining" else codes.RESOURCE_EXHAUSTED
            return make_status(code, str(error), retry_info(error.retry_after_s))
        case DeadlineExceeded():
            return make_status(codes.DEADLINE_EXCEEDED, str(error) or "the page's deadline has passed")
        case ColorflowError():
            return _of_runtime(error)
        case DecodeError():
            message = "the request is no message of this protocol: make clients from proto/colorflow/v1/colorflow.proto"
            return make_status(codes.INVALID_ARGUMENT, message, _bad_request("request", message))
        case MemoryError():
            return make_status(codes.RESOURCE_EXHAUSTED, "the server is out of memory: try again", retry_info(5.0))
    return None


def _of_runtime(error: ColorflowError) -> Status:
    message = str(error)
    match error:
        case OptionError():
            name = next((f"options.{name}" for name in _OPTIONS if message.startswith(name)), "options")
            return make_status(codes.INVALID_ARGUMENT, message, _bad_request(name, message))
        case ImageError():
            return make_status(codes.INVALID_ARGUMENT, message, _bad_request("image", message))
        case UnknownPackError():
            return make_status(codes.NOT_FOUND, message, _resource("pack", "", message))
        case DamagedPackError():
            return make_status(codes.DATA_LOSS, message)
        case ReferencesError() | PackError() | OutputError() | MissingExtraError() | UnavailableError():
            return make_status(codes.FAILED_PRECONDITION, message)
        case Cancelled():
            return make_status(codes.CANCELLED, message)
    return make_status(codes.INTERNAL, message)  # EngineError: nothing that the client could change


def _bad_request(field: str, message: str) -> BadRequest:
    return BadRequest(field_violations=[BadRequest.FieldViolation(field=field, description=message[:LONGEST])])


def _resource(kind: str, name: str, message: str) -> ResourceInfo:
    return ResourceInfo(resource_type=kind, resource_name=name[:200], description=message[:LONGEST])


def details_of(status: Any, kind: type[Message]) -> Message | None:
    """The detail of a kind (BadRequest, RetryInfo, ResourceInfo) in a status or PageError, or None."""
    for packed in status.details:
        if packed.Is(kind.DESCRIPTOR):
            detail = kind()
            packed.Unpack(detail)
            return detail
    return None
