"""Who goes next: which pages share the next call of the engine. Plain bookkeeping, no threads, no clock of its own.

The scheduler asks at every step boundary, and the simulation (benchmarks/scheduling.py) asks the same code.

`Continuous` gives each page a tag: the device time at which it would be done if all clients that have work shared the
device evenly, each serving its own pages in their order (weighted fair queueing; finishing in the order of the tags is
the "fair sojourn protocol" of Friedman and Henderson, 2003). Short pages of many clients pass long ones, a client
that sends a thousand pages delays nobody but itself, and where admission bounds the pages that are here no page waits
for ever: it has its share of the device, and once its tag is the least it is done.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

Rows = Callable[["Entry", int], int]
"""rows(the first page, pages that can share its call) -> how many are to share it"""


@dataclass(eq=False)
class Entry:
    """A page as far as turns are concerned.

    cost_s: device seconds of one of its steps, alone. look: steps until its first preview, 0 for none.
    key: pages of one key can share a call. tag: see above. order: of arrival.
    """

    client: str
    priority: int
    steps: int
    cost_s: float
    look: int = 0
    key: Hashable = None
    done: int = 0
    order: int = 0
    tag: float = field(default=0.0)

    @property
    def left_s(self) -> float:
        """Device seconds until it is done, alone."""
        return (self.steps - self.done) * self.cost_s


class Continuous:
    """Any page at any step boundary, by priority, then tag; a page's first preview goes before other work.

    The first `look` steps of a page jump the queue only where they are few (at most FIRST_LOOK).
    """

    FIRST_LOOK = 2

    def __init__(self) -> None:
        self._now = 0.0  # virtual: seconds of device time that every active client has had
        self._pages: dict[str, int] = {}
        self._last_tag: dict[str, float] = {}
        self._count = 0

    def enter(self, entry: Entry) -> None:
        """Give the page its tag and place."""
        entry.order = self._count = self._count + 1
        entry.tag = max(self._now, self._last_tag.get(entry.client, 0.0)) + entry.left_s
        self._last_tag[entry.client] = entry.tag
        self._pages[entry.client] = self._pages.get(entry.client, 0) + 1

    def leave(self, entry: Entry) -> None:
        """Forget the page; a client without pages keeps no credit and no debt."""
        self._pages[entry.client] -= 1
        if not self._pages[entry.client]:
            del self._pages[entry.client], self._last_tag[entry.client]

    def resize(self, entry: Entry, steps: int, cost_s: float) -> None:
        """The page is longer or shorter than was thought: now that it is open, its windows have been counted."""
        before = entry.left_s
        entry.steps, entry.cost_s = steps, cost_s
        entry.tag += entry.left_s - before
        self._last_tag[entry.client] = max(self._last_tag[entry.client], entry.tag)

    def place(self, entry: Entry) -> tuple[float, ...]:
        """Pages sort by it: in this order they are opened, and would be done if no more came."""
        return -entry.priority, entry.tag, entry.order

    def rank(self, entry: Entry) -> tuple[float, ...]:
        """Pages sort by it for the next step: as by place, but for first previews."""
        looks = entry.done < entry.look <= self.FIRST_LOOK
        return -entry.priority, not looks, entry.tag, entry.order

    def choose(self, ready: Sequence[Entry], rows: Rows) -> list[Entry]:
        """The first page by rank, and the next ones that can share its call."""
        return self._together(sorted(ready, key=self.rank), rows)

    def _together(self, ranked: list[Entry], rows: Rows) -> list[Entry]:
        alike = [entry for entry in ranked if entry.key == ranked[0].key]
        return alike[: rows(alike[0], len(alike))] if alike else []

    def served(self, seconds: float) -> None:
        """Device time was spent: every client that has pages had its even share of it."""
        self._now += seconds / max(1, len(self._pages))


class InOrder(Continuous):
    """First in, first out: a page keeps the device until it is done (within its priority)."""

    def __init__(self) -> None:
        super().__init__()
        self._batch: list[Entry] = []

    def place(self, entry: Entry) -> tuple[float, ...]:
        """By priority, then arrival."""
        return -entry.priority, entry.order

    rank = place

    def choose(self, ready: Sequence[Entry], rows: Rows) -> list[Entry]:
        """The batch that is under way, as long as one of it has steps left; then a new one."""
        there = set(map(id, ready))
        self._batch = [entry for entry in self._batch if id(entry) in there]
        if not self._batch:
            self._batch = self._begin(sorted(ready, key=self.rank), rows)
        return self._batch

    def _begin(self, ranked: list[Entry], rows: Rows) -> list[Entry]:
        return ranked[:1]


class WholeRequests(InOrder):
    """What servers of whole requests do: pages of one shape and step count start together and end together."""

    def _begin(self, ranked: list[Entry], rows: Rows) -> list[Entry]:
        return self._together([entry for entry in ranked if entry.steps == ranked[0].steps], rows)


POLICIES: dict[str, type[Continuous]] = {"continuous": Continuous, "whole": WholeRequests, "fifo": InOrder}
