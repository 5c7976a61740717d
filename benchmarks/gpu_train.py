"""What `gpu_train.sh` needs around a chunk of training: averaged weights out in small files, and in again.

give-back WORK OUT [STAGE ...]   writes OUT/<stage>.ema.<i>of<n>, each under 16 MB: the averaged weights in float16
take-up OUT WORK                 makes stages of WORK that have no checkpoint start from such files

Only weights travel, no optimizer: a later lease starts its moments anew, which costs some hundred steps.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from colorflow_export.train.loop import checkpoint_path, save
from safetensors.torch import load
from safetensors.torch import save as to_bytes

PART = 15_000_000
STAGES = ("vae", "clip", "unet", "gsrp")


def give_back(work: Path, out: Path, stages: tuple[str, ...] = STAGES) -> list[Path]:
    """Files of at most PART bytes for each stage that has a checkpoint; those of earlier chunks are replaced."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for stage in stages:
        path = checkpoint_path(work, stage)
        if path.exists():
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            data = to_bytes({name: _short(value) for name, value in state["ema"].items()}, {"step": str(state["step"])})
            for old in out.glob(f"{stage}.ema.*"):
                old.unlink()
            parts = [data[i : i + PART] for i in range(0, len(data), PART)]
            for i, part in enumerate(parts, start=1):
                written.append(out / f"{stage}.ema.{i}of{len(parts)}")
                written[-1].write_bytes(part)
    return written


def take_up(out: Path, work: Path) -> list[str]:
    """Stages that start from the files in `out`. SystemExit where a part is missing."""
    started = []
    for stage in STAGES:
        parts = sorted(out.glob(f"{stage}.ema.*"), key=lambda p: int(p.suffix[1:].split("of")[0]))
        if parts and not checkpoint_path(work, stage).exists():
            count = int(parts[0].suffix.split("of")[1])
            if len(parts) != count:
                raise SystemExit(f"{out} has {len(parts)} of {count} parts of {stage}: copy them all")
            weights = load(b"".join(part.read_bytes() for part in parts))
            ema = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
            work.mkdir(parents=True, exist_ok=True)
            save(checkpoint_path(work, stage), {"model": ema, "ema": ema, "optimizer": None, "step": 0})
            started.append(stage)
    return started


def _short(value: torch.Tensor) -> torch.Tensor:
    """float16 where nothing becomes infinite by it (running variances may)."""
    short = value.half()
    return short.contiguous() if bool(short.isfinite().all()) else value.contiguous()


def main(arguments: list[str]) -> None:
    command, first, second, *stages = arguments
    if command == "give-back":
        for path in give_back(Path(first), Path(second), tuple(stages) or STAGES):
            print(f"{path} {path.stat().st_size / 1e6:.1f} MB")
    elif command == "take-up":
        print("started from averaged weights:", ", ".join(take_up(Path(first), Path(second))) or "none")
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
