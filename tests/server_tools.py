"""Servers in this process for tests: in a thread with a loop of its own, on a free port, over real sockets."""

import asyncio
import io
import json
import logging
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
from colorflow_server.config import ServerConfig
from colorflow_server.events import Accepted, Cancelled, Failed, Finished, PageJob, Preview, Refused
from colorflow_server.log import JsonLines
from colorflow_server.pb import colorflow_pb2 as pb
from colorflow_server.pb.colorflow_pb2_grpc import ColorizerStub
from colorflow_server.serve import Server, make_scheduler
from grpc_status import rpc_status

from colorflow_rt import Colorizer, errors
from colorflow_rt.pack import fake_pack
from colorflow_rt.pixels import encode_png

CONFIG = ServerConfig(packs=("fake",), port=0, reload_s=0.0, grace_s=5.0, slots=2)


def slow(seconds: float = 0.05) -> Any:
    """The real scheduler on a fake engine whose step takes so long."""

    def make(colorizers: Mapping[str, Any], config: ServerConfig) -> Any:
        return make_scheduler({"fake": Colorizer(fake_pack(cost={"denoise_step": lambda batch: seconds}))}, config)

    return make


class Plain:
    """A scheduler of a few lines for tests of the front: one page at a time, in a thread; `refuse` as it is told."""

    def __init__(self, colorizers: Mapping[str, Any], config: ServerConfig) -> None:
        self._colorizers, self._config = dict(colorizers), config
        self._jobs: list[tuple[PageJob, threading.Event]] = []
        self._wake, self._lock, self.gate = threading.Event(), threading.Lock(), threading.Event()
        self.gate.set()
        self.refuse: Refused | None = None
        self.counts = dict.fromkeys(("finished", "failed", "cancelled", "refused"), 0)
        self.alive, self._running, self.jobs = True, 0, list[PageJob]()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, job: PageJob) -> threading.Event:
        with self._lock:
            if self.refuse or len(self._jobs) >= self._config.max_queue:
                raise self.refuse or Refused("queue_full", "the queue is full: try again", 0.2)
            cancelled = threading.Event()
            self.jobs.append(job)
            job.on_event(Accepted(len(self._jobs), 0.1))
            self._jobs.append((job, cancelled))
        self._wake.set()
        return cancelled

    def cancel(self, ticket: threading.Event) -> None:
        ticket.set()

    def replace(self, pack: str, colorizer: Any) -> None:
        self._colorizers[pack] = colorizer

    def drain(self, grace_s: float) -> None:
        self.refuse = Refused("draining", "the server is shutting down", 1.0)
        deadline = threading.Event()
        for _ in range(int(grace_s * 100)):
            if not self._jobs and not self._running:
                return
            deadline.wait(0.01)

    def close(self) -> None:
        self.alive = False
        self._wake.set()
        self._thread.join(5)

    def snapshot(self) -> Any:
        state = {"slots": 1, "slots_used": self._running, "steps": 0, "page_steps": 0, "previews_dropped": 0}
        state |= {"waiting": len(self._jobs), "running": self._running, "alive": self.alive}
        return SimpleNamespace(**state, **self.counts)

    def _work(self) -> None:
        while self.alive:
            self._wake.wait(0.2)
            self._wake.clear()
            while self._jobs and self.alive:
                self._running = 1
                self._one(*self._jobs.pop(0))
                self._running = 0

    def _one(self, job: PageJob, cancelled: threading.Event) -> None:
        step = 0

        def preview(page: int, done: int, steps: int, image: Any) -> None:
            nonlocal step
            step = done
            job.on_event(Preview(done, steps, image))

        def asked() -> bool:
            while not self.gate.wait(0.01):
                if cancelled.is_set():
                    return True
            return cancelled.is_set()

        try:
            pool = job.references() if callable(job.references) else job.references
            colorizer = self._colorizers[job.pack]
            result = colorizer.colorize(job.page, pool, job.options, on_preview=preview, cancelled=asked)
            job.on_event(Finished(result, 0.0))
        except errors.Cancelled:
            job.on_event(Cancelled(step))
        except Exception as error:
            job.on_event(Failed(error))


@dataclass
class Running:
    """A server that runs: its address, the loop it runs in, and what it has logged."""

    server: Server
    loop: asyncio.AbstractEventLoop
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def do(self, work: Any, timeout: float = 30.0) -> Any:
        """Run a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)


class _Lines(logging.Handler):
    def __init__(self, lines: list[dict[str, Any]]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(json.loads(JsonLines().format(record)))


@contextmanager
def running(config: ServerConfig = CONFIG, make: Any = make_scheduler, **changes: Any) -> Iterator[Running]:
    """A server in a thread, stopped at the end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="server")
    thread.start()
    found = Running(Server(replace(config, **changes), make), loop)
    handler, logger = _Lines(found.log), logging.getLogger("colorflow")
    logger.addHandler(handler)
    level, _ = logger.level, logger.setLevel("DEBUG")
    try:
        found.do(found.server.start(), 300)
        yield found
    finally:
        try:
            if found.server.port:
                found.do(found.server.stop(2.0))
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


@contextmanager
def stub(address: str, credentials: Any = None) -> Iterator[ColorizerStub]:
    """A stock client."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    channel = (
        grpc.secure_channel(address, credentials, options) if credentials else grpc.insecure_channel(address, options)
    )
    with channel:
        yield ColorizerStub(channel)


def png(seed: int = 0, size: tuple[int, int] = (48, 64), colour: bool = False) -> bytes:
    """A page of gray blocks, or a picture of coloured stripes, that no other seed has."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    if not colour:
        blocks[...] = blocks[..., :1]
    return encode_png(np.kron(blocks, np.ones((8, 8, 1), np.uint8)))


def references(count: int = 1) -> pb.InlineReferences:
    """Inline references."""
    images = [pb.Image(name=f"ref{n}.png", encoded=png(100 + n, colour=True)) for n in range(count)]
    return pb.InlineReferences(images=images)


def request(**changes: Any) -> pb.ColorizeRequest:
    """A good request of a page."""
    given: dict[str, Any] = {
        "page": pb.Image(name="page.png", encoded=png()),
        "inline_references": references(),
        "options": pb.ColorizeOptions(steps=2),
    }
    return pb.ColorizeRequest(**given | changes)


def failure(call: Any) -> tuple[str, str, Any]:
    """Code, message and google.rpc.Status of a call that must fail."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name, error.details(), rpc_status.from_call(error)
    raise AssertionError("the call did not fail")


def certificates(folder: Path) -> dict[str, Path]:
    """A CA, a server's certificate for 127.0.0.1, and a client's named "studio", made by openssl."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.pem" for name in ("ca", "ca_key", "server", "server_key", "client", "client_key")}
    _openssl("req", "-x509", "-days", "2", "-subj", "/CN=test ca", "-keyout", paths["ca_key"], "-out", paths["ca"])
    for who, name in (("server", "127.0.0.1"), ("client", "studio")):
        request, extra = folder / f"{who}.csr", folder / f"{who}.ext"
        extra.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        _openssl("req", "-subj", f"/CN={name}", "-keyout", paths[f"{who}_key"], "-out", request)
        signing = ("-CA", paths["ca"], "-CAkey", paths["ca_key"], "-CAcreateserial", "-days", "2", "-extfile", extra)
        subprocess.run(
            ["openssl", "x509", "-req", "-in", request, "-out", paths[who], *signing], check=True, capture_output=True
        )
    return paths


def _openssl(*arguments: Any) -> None:
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    subprocess.run(["openssl", arguments[0], *key, *arguments[1:]], check=True, capture_output=True)


def pixels(image: pb.Image) -> Any:
    """Of an answer, as Pillow reads them."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(image.encoded)))
