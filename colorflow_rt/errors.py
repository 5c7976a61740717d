"""Every error that ColorFlow RT raises on purpose.

    ColorflowError
    ├── OptionError          an option is unknown or out of range            (exit code 2)
    ├── ImageError           a picture cannot be read, or cannot be used
    ├── ReferencesError      a reference set is unknown, empty, locked or unusable
    ├── PackError            a model pack cannot be used
    │   ├── UnknownPackError     no pack of this name or at this path        (exit code 2)
    │   └── DamagedPackError     a file of the pack does not match its SHA-256
    ├── EngineError          an engine cannot be loaded or run
    │   └── UnavailableError     its hardware or library is not here         (exit code 3)
    ├── OutputError          a result cannot be written
    ├── MissingExtraError    an optional dependency is not installed         (exit code 2)
    └── Cancelled            the caller asked to stop

A message says what was wrong, what was expected and what to do, in one line.
"""


class ColorflowError(Exception):
    """Base of all errors above. `exit_code` is what the command line ends with."""

    exit_code = 1


class OptionError(ColorflowError, ValueError):
    """An option or argument is unknown or out of range; the message names the valid choices."""

    exit_code = 2


class ImageError(ColorflowError):
    """A picture cannot be read (truncated, not an image) or used (too large, too small, animated)."""


class ReferencesError(ColorflowError):
    """A reference set is unknown, empty, locked by another process, or cannot be used."""


class PackError(ColorflowError):
    """A model pack cannot be used: its description is invalid or a file is missing."""


class UnknownPackError(PackError):
    """No pack has this name, and no folder of this path holds a pack.toml."""

    exit_code = 2


class DamagedPackError(PackError):
    """A file of the pack does not match the SHA-256 written in pack.toml."""


class EngineError(ColorflowError):
    """An engine cannot be loaded or run, or was fed a tensor of the wrong name, dtype or shape."""


class UnavailableError(EngineError):
    """The hardware or the library that an engine needs is not here: no GPU, no TensorRT, no such provider."""

    exit_code = 3


class OutputError(ColorflowError):
    """A result cannot be written: the folder is read-only, full, or not a folder."""


class MissingExtraError(ColorflowError, ImportError):
    """An optional dependency is not installed; the message holds the command that installs it."""

    exit_code = 2


class Cancelled(ColorflowError):
    """The caller's cancellation was seen between two steps; nothing was written."""


def check_choice(what: str, value: object, choices: tuple[str, ...], error: type[ColorflowError] = OptionError) -> None:
    """`error`, naming the choices, if `value` is none of them."""
    if value not in choices:
        raise error(f"{what} {value!r} is unknown: choose one of {', '.join(choices)}")


def install_hint(extra: str) -> str:
    """The command that adds an extra to this installation (pip takes the installed colorflow-rt as it is)."""
    return f"pip install 'colorflow-rt[{extra}]'"


def missing_extra(command: str, extra: str, error: ImportError) -> MissingExtraError:
    """What to raise where the import of an optional package failed with `error`."""
    package = error.name or str(error)
    return MissingExtraError(f"{command} needs {package}, which is not installed: {install_hint(extra)}")
