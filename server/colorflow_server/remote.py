"""A server in the place of a `Colorizer`, for `colorflow colorize --server`: same options, same files, same records."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from colorflow_rt.errors import UnknownPackError
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pack_config import PackConfig
from colorflow_rt.pixels import Limits, Picture
from colorflow_rt.pool import Pool
from colorflow_rt.references import AddReport, Reference
from colorflow_rt.result import Result
from colorflow_server.client import Client, RemoteSet


def connect(
    stack: ExitStack, given: Mapping[str, Any], limits: Limits, set_name: str | None, pool: Pool | None
) -> tuple["RemoteColorizer", Pool]:
    """A server and the references, by options of the command line. The stack hangs up."""
    names = {"token": "token", "tls_ca": "ca", "tls_cert": "cert", "tls_key": "key"}
    client = stack.enter_context(Client(given["server"], **{field: given[name] for name, field in names.items()}))
    colorizer = RemoteColorizer(client, given["pack"], limits)
    return colorizer, pool or RemotePool(client, set_name or "")


class RemotePool:
    """A set on the server, as the command line uses sets: to list, to look at, and to feed results back."""

    def __init__(self, client: Client, name: str) -> None:
        self._client, self.name = client, name
        self.notices: tuple[str, ...] = ()
        client.references(name)  # ReferencesError at once if it is not there

    def list(self) -> list[Reference]:
        """Its pictures."""
        return self._client.references(self.name)

    def picture(self, which: Reference) -> Picture:
        """The pixels of a picture."""
        return self._client.picture(self.name, which.id)

    def search(self, *_: Any, **__: Any) -> Any:
        """The server does that itself."""
        raise NotImplementedError

    def add(self, items: Iterable[Any], *, source: str = "added", limits: Limits | None = None) -> AddReport:
        """Add pictures."""
        return self._client.add_references(self.name, items, approved=source == "approved")

    def remove(self, which: Iterable[Reference]) -> int:
        """Remove pictures."""
        return self._client.remove_references(self.name, [reference.id for reference in which])


class RemoteColorizer:
    """Colours pages one after another in one call of ColorizeSequence, so that references travel once.

    pack: a name of the server's. UnknownPackError if it has none of this name.
    """

    def __init__(self, client: Client, pack: str, limits: Limits) -> None:
        self._client, self.limits = client, limits
        served = {found.name: found for found in client.packs()}
        if pack not in served:
            raise UnknownPackError(f"pack {pack!r} is not served there: choose one of {', '.join(served)}")
        self.pack = SimpleNamespace(config=PackConfig.from_toml(served[pack].toml))
        self._job: tuple[Any, ColorizeOptions] | None = None
        self._results: Iterator[Any] = iter(())
        self._page: Any = None
        self._cancelled: Callable[[], bool] = bool

    def colorize(
        self, page: Path, references: Any, options: ColorizeOptions, *, cancelled: Callable[[], bool] = bool
    ) -> Result:
        """As `Colorizer.colorize`."""
        if self._job is None or self._job[0] is not references or self._job[1] != options:
            self._job = (references, options)
            self._results = self._open(references, options)
        self._page, self._cancelled = page, cancelled
        try:
            outcome = next(self._results)
        except BaseException:
            self._job = None  # the call is over: the next page opens another
            raise
        if isinstance(outcome, Result):
            return outcome
        raise outcome.error

    def _open(self, references: Any, options: ColorizeOptions) -> Iterator[Any]:
        wanted = RemoteSet(references.name) if isinstance(references, RemotePool) else _pictures(references)
        return self._client.colorize_sequence(
            iter(lambda: self._page, object()),  # without end: each page is taken when the one before is through
            wanted,
            options,
            pack=self.pack.config.name,
            ahead=1,
            cancelled=lambda: self._cancelled(),
        )


def _pictures(pool: Any) -> list[tuple[str, Any]]:
    """Of a local pool, as arrays; alpha with them."""
    import numpy as np

    found = []
    for reference in pool.list():
        picture = pool.picture(reference)
        found.append(
            (reference.name, picture.rgb if picture.alpha is None else np.dstack([picture.rgb, picture.alpha]))
        )
    return found
