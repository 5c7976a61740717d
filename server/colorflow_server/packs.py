"""The packs that a server serves, and their replacement while it serves.

A pack is ready when all its files match their SHA-256, all its engines are loaded, and a page went through them. So
no call ever meets a pack that is half there: a bad new one leaves the old one serving, and says why.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from colorflow_rt.errors import ColorflowError, OptionError
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pack import installed_packs
from colorflow_rt.pipeline import Colorizer
from colorflow_rt.pixels import Limits
from colorflow_server.access import Stamp, stamp
from colorflow_server.config import ServerConfig
from colorflow_server.log import event
from colorflow_server.status import not_found

LOG = logging.getLogger("colorflow.packs")
Replaced = Callable[[str, Colorizer], None]


@dataclass(frozen=True)
class Served:
    """A pack that serves. opened: what the configuration calls it; error: why the latest replacement was refused."""

    opened: str
    colorizer: Colorizer
    stamp: Stamp
    reloads: int = 0
    error: str = ""


class Packs:
    """The packs by name, the first the default. Raises what `Colorizer` raises where one cannot be used."""

    def __init__(self, config: ServerConfig, on_reload: Callable[[str, str], None]) -> None:
        self._config, self._on_reload = config, on_reload
        self._lock = threading.Lock()  # of reloads
        self._served: dict[str, Served] = {}
        for one in config.packs:
            served = Served(one, ready(one, config), _stamp(one))
            name = served.colorizer.pack.config.name
            if name in self._served:
                raise OptionError(f"packs: {name!r} is there twice")
            self._served[name] = served

    @property
    def served(self) -> list[Served]:
        """All packs, the default first."""
        return list(self._served.values())

    @property
    def colorizers(self) -> dict[str, Colorizer]:
        """By name."""
        return {name: served.colorizer for name, served in self._served.items()}

    def name(self, wanted: str) -> str:
        """The name of the pack wanted, "" the default. Rejected: it is not served."""
        name = wanted or next(iter(self._served))
        if name not in self._served:
            raise not_found(
                "pack", name, f"pack {name!r:.100} is not served here: choose one of {', '.join(self._served)}"
            )
        return name

    def colorizer(self, wanted: str) -> Colorizer:
        """Of the pack wanted."""
        return self._served[self.name(wanted)].colorizer

    def reload(self, replaced: Replaced, force: bool = False) -> None:
        """Replace the packs whose files have changed (force: all). Takes as long as loading them; never raises."""
        with self._lock:
            for name, served in list(self._served.items()):
                now = _stamp(served.opened)
                if force or now != served.stamp:
                    self._served[name] = self._replace(name, replace(served, stamp=now), replaced)
                    if not self._served[name].error:
                        version = self._served[name].colorizer.pack.config.version
                        event(LOG, logging.INFO, "pack reloaded", pack=name, version=version)

    def _replace(self, name: str, served: Served, replaced: Replaced) -> Served:
        try:
            fresh = ready(served.opened, self._config)
            if fresh.pack.config.name != name:
                raise OptionError(f"the new pack is named {fresh.pack.config.name!r}, expected {name!r}: name it so")
            replaced(name, fresh)
        except Exception as error:  # whatever it is, the old one serves on
            message = str(error) if isinstance(error, ColorflowError) else f"{type(error).__name__}: {error}"
            event(LOG, logging.ERROR, "pack not reloaded, the old one serves on", pack=name, error=message)
            self._on_reload(name, "refused")
            return replace(served, error=message)
        self._on_reload(name, "replaced")
        return replace(served, colorizer=fresh, reloads=served.reloads + 1, error="")


def ready(opened: str, config: ServerConfig) -> Colorizer:
    """A colorizer whose pack is proven: every hash checked, every engine loaded, a small page coloured."""
    colorizer = Colorizer(config.open(opened), limits=Limits(max_pixels=config.max_pixels))
    colorizer.pack.verify()
    colorizer.pack.prefetch()
    warm_up(colorizer)
    return colorizer


def warm_up(colorizer: Colorizer) -> None:
    """Run every engine once, on a page of one step. EngineError where one does not run."""
    size = colorizer.pack.config.pages.sizes[0]
    page = np.tile(np.linspace(0, 255, size[0]).astype(np.uint8), (size[1], 1))
    reference = np.zeros((size[1], size[0], 3), np.uint8)
    reference[..., 0] = page
    options = ColorizeOptions(steps=1, style=colorizer.pack.config.style.inputs[0], size=size)
    colorizer.colorize(page, [reference], options)
    if colorizer.pack.reuses:
        colorizer.colorize(page, [reference], replace(options, steps=3, guider_steps=2))


def _stamp(opened: str) -> Stamp:
    """Changes when a file of the pack does; of a pack without files it never does."""
    folder = Path(opened)
    if not (folder / "pack.toml").is_file():
        found = installed_packs().get(opened)
        if found is None:
            return ()
        folder = found
    return stamp([folder / "pack.toml", *sorted(path for path in folder.rglob("*") if path.is_file())])
