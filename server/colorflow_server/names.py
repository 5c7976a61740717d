"""Words of the Python API and numbers of the protocol's enums: STYLE_LINEART is "lineart", 0 is what is not set."""

from typing import Any

from colorflow_server.pb import colorflow_pb2 as pb

STYLE, FIT, LUMINANCE, CONTEXT = pb.Style, pb.Fit, pb.Luminance, pb.Context
FORMAT, STATE = pb.ImageFormat, pb.ReferenceState


def word(enum: Any, number: int, unset: str) -> str | None:
    """The word of a number; None for one that this version does not know."""
    if number == 0:
        return unset
    try:
        name: str = enum.Name(number)
    except ValueError:
        return None
    return name.removeprefix(_prefix(enum)).lower()


def number(enum: Any, word: str, unset: str) -> int:
    """The number of a word. KeyError for one that the protocol does not have."""
    if word == unset:
        return 0
    found: dict[str, int] = dict(enum.items())
    return found[_prefix(enum) + word.upper()]


def words(enum: Any) -> list[str]:
    """All words."""
    return [name.removeprefix(_prefix(enum)).lower() for name, value in enum.items() if value]


def _prefix(enum: Any) -> str:
    first: str = enum.Name(0)
    return first.removesuffix("UNSPECIFIED")
