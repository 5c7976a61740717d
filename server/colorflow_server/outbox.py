"""Events of pages on their way to one client, from threads of the scheduler to the event loop."""

import asyncio
import itertools
from collections.abc import Callable

from colorflow_server.events import END, Preview, Told

Key = tuple[str, int]
_PREVIEW = -1


class Outbox:
    """In order, except that of each page at most one preview waits, the latest, and none once the page has ended.

    So a client that reads slowly holds no more than a few events for each page under way. on_drop: called for
    every preview that is not sent. Made inside the loop; `post` may be called from any thread.
    """

    def __init__(self, on_drop: Callable[[], None] = lambda: None) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: dict[Key, Told] = {}
        self._count = itertools.count()
        self._ready = asyncio.Event()
        self._on_drop = on_drop

    def post(self, page: str, event: Told) -> None:
        """Take an event; never blocks. Lost where the loop has ended: nobody reads any more."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._put, page, event)

    def post_end(self, page: str, event: Told) -> None:
        """`post`, but of the page's last event alone: the others would only wake a call that does not tell them."""
        if isinstance(event, END):
            self.post(page, event)

    def _put(self, page: str, event: Told) -> None:
        if isinstance(event, Preview | END) and (page, _PREVIEW) in self._events:
            del self._events[page, _PREVIEW]
            self._on_drop()
        key = _PREVIEW if isinstance(event, Preview) else next(self._count)
        self._events[page, key] = event
        self._ready.set()

    def wake(self) -> None:
        """Let `next` return None, if it has nothing better."""
        self._ready.set()

    async def next(self) -> tuple[str, Told] | None:
        """The oldest event and its page, waited for; None after `wake`."""
        if not self._events:
            await self._ready.wait()
        self._ready.clear()
        if not self._events:
            return None
        key = next(iter(self._events))
        event = self._events.pop(key)
        if self._events:
            self._ready.set()
        return key[0], event

    def __len__(self) -> int:
        return len(self._events)
