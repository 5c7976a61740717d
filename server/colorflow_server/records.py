"""What the scheduler is told, and what it tells of itself."""

from dataclasses import dataclass

from colorflow_rt.errors import OptionError, check_choice
from colorflow_server.turns import POLICIES


@dataclass(frozen=True)
class SchedulerOptions:
    """max_queue: pages that are admitted and not ended. slots: rows of a call; 0: chosen from what calls cost.

    workers: threads for the stages around the loop. max_open: pages between their first and last stage; the others
    wait as they came, which costs less memory. policy: "continuous", "whole" or "fifo" (`turns`).
    """

    max_queue: int = 256
    slots: int = 0
    workers: int = 2
    max_open: int = 32
    policy: str = "continuous"

    def __post_init__(self) -> None:
        check_choice("policy", self.policy, tuple(POLICIES))
        for name, least in (("max_queue", 1), ("slots", 0), ("workers", 1), ("max_open", 1)):
            if getattr(self, name) < least:
                raise OptionError(f"{name} is {getattr(self, name)}, expected {least} or more")


@dataclass(frozen=True)
class SchedulerState:
    """A moment of the scheduler. waiting, running: pages admitted and not ended, without and with a stage behind them.

    slots: rows of a full call (of the first pack), slots_used: of the call that runs now. steps: calls so far,
    page_steps: rows of all calls, batches: calls by rows. refused: by reason. alive: the engine's thread runs.
    backlog_s: device seconds of all steps still to be done. Counters never go down.
    """

    waiting: int
    running: int
    slots: int
    slots_used: int
    steps: int
    page_steps: int
    finished: int
    failed: int
    cancelled: int
    refused: int
    previews_dropped: int
    alive: bool
    draining: bool
    backlog_s: float
    batches: dict[int, int]
    refused_by: dict[str, int]
