"""A server in a process of its own, for campaigns: on a free port, its log in a file."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).parent
START_S = 120.0


class ServerProcess:
    """`colorflow-server`; pack "fake" is slowed down by fake_server.py. A context manager that kills what is left.

    log: file of its JSON lines, added to. environment: FAKE_STEP_MS and so on. flags: as of the command line.
    """

    def __init__(self, log: Path, pack: str = "fake", environment: dict[str, str] | None = None, *flags: str) -> None:
        self.log, self.metrics_port = log, free_port()
        script = [str(HERE / "fake_server.py")] if pack == "fake" else ["-m", "colorflow_server"]
        command = [sys.executable, *script, "--pack", pack, "--port", "0", "--metrics-port", str(self.metrics_port)]
        self._from = log.stat().st_size if log.exists() else 0
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [*command, *flags], stderr=file, stdout=file, env=os.environ | (environment or {})
            )
        self.address = ""

    def __enter__(self) -> "ServerProcess":
        limit = time.monotonic() + START_S
        while not self.address:
            if self.process.poll() is not None or time.monotonic() > limit:
                raise SystemExit(f"error: the server did not start; its log is {self.log}")
            self.address = next((f"127.0.0.1:{line['port']}" for line in self.lines() if _says_serving(line)), "")
            time.sleep(0.02)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def lines(self) -> list[dict[str, Any]]:
        """What this process has logged so far."""
        with self.log.open("rb") as file:
            file.seek(self._from)
            return [
                json.loads(line) for line in file.read().splitlines() if line.startswith(b"{") and line.endswith(b"}")
            ]

    def terminate(self, limit_s: float = 60.0) -> float:
        """SIGTERM, and seconds until it has ended."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(limit_s)
        return time.monotonic() - start

    def rss_mb(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def metrics(self) -> dict[str, float]:
        """Prometheus samples by name and labels, as they stand in the text."""
        return scrape(f"http://127.0.0.1:{self.metrics_port}/metrics")


def scrape(url: str) -> dict[str, float]:
    """The samples of a page of metrics."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
    pairs = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _says_serving(line: dict[str, Any]) -> bool:
    return line.get("event", line.get("message")) == "serving" and "port" in line
