"""The training loop that every stage shares: EMA, learning rate, checkpoints, resume, progress.

Several processes train one network when `torchrun --nproc-per-node N -m colorflow_export train ...` starts them: each
draws its own samples, gradients are averaged. On a CPU one process a core is a third faster than one process with a
thread a core: between two averages nobody waits.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from colorflow_export.train.config import TrainOptions

Loss = Callable[[int], Tensor]


def checkpoint_path(work: Path, stage: str) -> Path:
    return work / f"{stage}.pt"


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def save(path: Path, state: dict[str, Any]) -> None:
    """torch.save through a temporary name, so that an interrupted run leaves the checkpoint before."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def learning_rate(step: int, options: TrainOptions) -> float:
    """Linear warm-up, constant, linear to zero over the last fifth."""
    left = (options.steps - step) / (0.2 * options.steps)
    return options.learning_rate * min(1.0, (step + 1) / options.warmup, max(left, 0.0))


class Trainer:
    """Trains `net` by `loss(step)` from the last checkpoint of the stage to `options.steps`."""

    def __init__(self, net: nn.Module, work: Path, options: TrainOptions) -> None:
        self.net, self.options = net, options
        self.rank, self.processes = _join()
        self.path = checkpoint_path(work, options.stage)
        groups = _decay_groups(net, options.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.99))
        self.ema = {k: v.detach().clone().float() for k, v in net.state_dict().items()}
        self.step = 0
        if self.path.exists():
            self._resume()

    def _resume(self) -> None:
        state = torch.load(self.path, map_location=device(), weights_only=True)
        self.net.load_state_dict(state["model"])
        if state["optimizer"] is not None:  # None: weights of a pack, to be trained further
            self.optimizer.load_state_dict(state["optimizer"])
        self.ema, self.step = state["ema"], state["step"]

    def save(self) -> None:
        if self.rank > 0:
            return
        state = {"model": self.net.state_dict(), "ema": self.ema, "optimizer": self.optimizer.state_dict()}
        save(self.path, {**state, "step": self.step})

    def run(self, loss: Loss, minutes: float | None = None) -> None:
        """Train until `options.steps`, the time limit, or SIGINT/SIGTERM; the checkpoint is always left whole."""
        deadline = time.monotonic() + 60 * minutes if minutes else float("inf")
        self.net.train()
        with _stop_flag() as stopped, _progress() as progress:
            bar = progress.add_task(self.options.stage, total=self.options.steps, completed=self.step, loss="")
            while self.step < self.options.steps and not self._agree(stopped() or time.monotonic() >= deadline):
                value = self._update(loss)
                if self.step % 20 == 0:
                    progress.update(bar, completed=self.step, loss=f"loss {value:.4f}")
                if self.step % self.options.save_every == 0:
                    self.save()
                    print(f"{time.strftime('%X')} {self.options.stage} step {self.step} loss {value:.4f}", flush=True)
        self.save()

    def _agree(self, stop: bool) -> bool:
        """Whether any process wants to stop: all do, then, or the others would wait for it."""
        if self.processes == 1:
            return stop
        wish = torch.tensor(float(stop), device=device())
        torch.distributed.all_reduce(wish)
        return bool(wish > 0)

    def _update(self, loss: Loss) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.options)
        value = loss(self.step)
        value.backward()  # type: ignore[no-untyped-call]
        self._share_gradients()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._average()
        return float(value.detach())

    def _share_gradients(self) -> None:
        if self.processes == 1:
            return
        gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients]) / self.processes
        torch.distributed.all_reduce(flat)
        means = torch.split(flat, [g.numel() for g in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def _average(self) -> None:
        decay = min(self.options.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.net.state_dict().items():
            self.ema[name].lerp_(value.detach().float(), 1 - decay)


def _join() -> tuple[int, int]:
    """(rank, processes) of this training; joins the others when torchrun started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    if not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _decay_groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    trained = [p for p in net.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} {task.fields[loss]}"),
    )
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn())


@contextmanager
def _stop_flag() -> Iterator[Callable[[], bool]]:
    """Turns SIGINT and SIGTERM into a request to stop after the step at hand."""
    seen: list[int] = []
    before = {s: signal.signal(s, lambda number, _: seen.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
