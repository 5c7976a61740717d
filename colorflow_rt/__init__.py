"""ColorFlow RT: colours the pages of a comic from coloured references (ColorFlow, arXiv 2412.11815).

    from colorflow_rt import Colorizer
    result = Colorizer().colorize("page.png", "references/")

Public are the names of `__all__`, nothing else. Importing this loads none of the runtime; using a name does.
"""

from typing import TYPE_CHECKING

from colorflow_rt.errors import (
    Cancelled,
    ColorflowError,
    DamagedPackError,
    EngineError,
    ImageError,
    MissingExtraError,
    OptionError,
    OutputError,
    PackError,
    ReferencesError,
    UnavailableError,
    UnknownPackError,
)

if TYPE_CHECKING:
    from colorflow_rt.options import ColorizeOptions
    from colorflow_rt.pack import open_pack
    from colorflow_rt.pipeline import Colorizer
    from colorflow_rt.result import Result

__all__ = [
    "Cancelled",
    "ColorflowError",
    "ColorizeOptions",
    "Colorizer",
    "DamagedPackError",
    "EngineError",
    "ImageError",
    "MissingExtraError",
    "OptionError",
    "OutputError",
    "PackError",
    "ReferencesError",
    "Result",
    "UnavailableError",
    "UnknownPackError",
    "open_pack",
]

_HOMES = {"Colorizer": "pipeline", "ColorizeOptions": "options", "Result": "result", "open_pack": "pack"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
