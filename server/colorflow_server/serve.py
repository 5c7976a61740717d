"""A whole server: packs, scheduler, sets and the gRPC front, started, drained and stopped together."""

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from colorflow_rt.errors import OutputError
from colorflow_rt.pipeline import Colorizer as Runtime
from colorflow_rt.pixels import Limits
from colorflow_server.access import Certificates, Tokens
from colorflow_server.calls import Calls
from colorflow_server.config import ServerConfig
from colorflow_server.log import event
from colorflow_server.metrics import Metrics
from colorflow_server.packs import Packs
from colorflow_server.pages import Shop
from colorflow_server.pb import colorflow_pb2 as pb
from colorflow_server.pb.colorflow_pb2_grpc import add_ColorizerServicer_to_server
from colorflow_server.service import Colorizer, own_version
from colorflow_server.sets import Sets
from colorflow_server.tracing import Tracer

if TYPE_CHECKING:
    from colorflow_server.scheduler import Scheduler

LOG = logging.getLogger("colorflow.serve")
SERVICE = pb.DESCRIPTOR.services_by_name["Colorizer"].full_name
WATCH_S = 0.5
LAST_WRITES_S = 0.5  # what ended calls have for their last bytes
MakeScheduler = Callable[[Mapping[str, Runtime], ServerConfig], "Scheduler"]


def make_scheduler(colorizers: Mapping[str, Runtime], config: ServerConfig) -> "Scheduler":
    """The scheduler that a configuration describes."""
    from colorflow_server.scheduler import Scheduler, SchedulerOptions

    return Scheduler(
        colorizers, SchedulerOptions(max_queue=config.max_queue, slots=config.slots, workers=config.workers)
    )


class Server:
    """One server; `start`, then `stop`, both in one event loop. port: the one that it listens on, once started."""

    def __init__(self, config: ServerConfig, make: MakeScheduler = make_scheduler) -> None:
        self._config, self._make = config, make
        self._background: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        """Load the packs, measure, listen, say so. OptionError, PackError, EngineError or OutputError."""
        config = self._config
        self._metrics, self._tracer = Metrics(), Tracer(config.trace_endpoint)
        self._tokens = Tokens(Path(config.tokens)) if config.tokens else None
        certificates = Certificates(config) if config.tls_cert else None
        self.shop = await self._open_shop()
        self._metrics.watch(self.shop.scheduler.snapshot)
        self._calls = Calls(self._metrics, self._tokens, self._tracer)
        self._grpc = grpc.aio.server(
            interceptors=[self._calls],
            options=channel_options(config),
            maximum_concurrent_rpcs=config.max_calls,
        )
        self._add_services()
        self.port = self._listen(certificates)
        self._metrics_http = self._serve_metrics()
        await self._grpc.start()
        await self._say(health_pb2.HealthCheckResponse.SERVING)
        self._in_background(self._watch_engine())
        if config.reload_s:
            self._in_background(self._watch_files())
        event(
            LOG,
            logging.INFO,
            "serving",
            version=own_version(),
            host=config.host,
            port=self.port,
            tls=bool(certificates),
        )

    async def _open_shop(self) -> Shop:
        config, limits = self._config, Limits(max_pixels=self._config.max_pixels)
        on_reload = self._count_reload
        packs = await asyncio.to_thread(Packs, config, on_reload)
        scheduler = await asyncio.to_thread(self._make, packs.colorizers, config)
        encoders = ThreadPoolExecutor(config.workers, "encode")
        sets = Sets(config.sets, limits)
        return Shop(config, packs, sets, scheduler, self._metrics, self._tracer, encoders, asyncio.Event())

    def _count_reload(self, pack: str, outcome: str) -> None:
        self._metrics.reloads.labels(pack, outcome).inc()

    def _add_services(self) -> None:
        self._health = health.aio.HealthServicer()
        add_ColorizerServicer_to_server(Colorizer(self.shop), self._grpc)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._grpc)

    def _listen(self, certificates: Certificates | None) -> int:
        address = f"{self._config.host}:{self._config.port}"
        try:
            if certificates:
                port: int = self._grpc.add_secure_port(address, certificates.credentials())
            else:
                port = self._grpc.add_insecure_port(address)
        except RuntimeError as error:
            raise OutputError(
                f"cannot listen on {address}: another process has the port, or the address is not here"
            ) from error
        return port

    def _serve_metrics(self) -> Any:
        config = self._config
        if not config.metrics_port:
            return None
        try:
            return self._metrics.serve(config.metrics_host, config.metrics_port)[0]
        except OSError as error:
            where = f"{config.metrics_host}:{config.metrics_port}"
            raise OutputError(f"cannot serve metrics on {where} ({error.strerror}): choose another port") from error

    async def _say(self, status: int) -> None:
        for service in ("", SERVICE):
            await self._health.set(service, status)

    def _in_background(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _watch_engine(self) -> None:
        """Health follows the engine's thread."""
        serving = True
        while True:
            await asyncio.sleep(WATCH_S)
            alive = self.shop.scheduler.snapshot().alive
            if alive != serving:
                serving = alive
                status = health_pb2.HealthCheckResponse
                await self._say(status.SERVING if alive else status.NOT_SERVING)
                event(LOG, logging.ERROR, "engine thread", alive=alive)

    async def _watch_files(self) -> None:
        while True:
            await asyncio.sleep(self._config.reload_s)
            await self.reload(force=False)

    async def reload(self, force: bool = True) -> None:
        """Take over what has changed in packs and tokens (force: in any case); certificates do so by themselves."""
        if self._tokens:
            await asyncio.to_thread(self._tokens.reload, force)
        await asyncio.to_thread(self.shop.packs.reload, self.shop.scheduler.replace, force)

    async def stop(self, grace_s: float | None = None) -> None:
        """Say NOT_SERVING, take nothing new, give the pages under way so many seconds (None: as configured), end."""
        grace = self._config.grace_s if grace_s is None else grace_s
        event(LOG, logging.INFO, "draining", grace_s=grace)
        await self._health.enter_graceful_shutdown()
        self.shop.draining.set()
        for task in self._background:
            task.cancel()
        stopping = asyncio.create_task(self._grpc.stop(grace))
        await asyncio.to_thread(self.shop.scheduler.drain, grace)
        ended = asyncio.create_task(self._calls.all_ended())
        await asyncio.wait({stopping, ended}, return_when="FIRST_COMPLETED")
        ended.cancel()
        await self._grpc.stop(LAST_WRITES_S)  # a probe that watches the health would have it wait to the end
        await stopping
        await asyncio.to_thread(self.shop.scheduler.close)
        self.shop.encoders.shutdown(wait=False, cancel_futures=True)
        if self._metrics_http is not None:
            await asyncio.to_thread(self._metrics_http.shutdown)
            self._metrics_http.server_close()
        await asyncio.to_thread(self._tracer.close)
        event(LOG, logging.INFO, "stopped")


def channel_options(config: ServerConfig) -> list[tuple[str, int]]:
    """Limits and keepalive of the transport."""
    milliseconds = int(config.keepalive_s * 1000)
    answer = min(milliseconds, 20_000)
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", 4 * config.max_message_bytes),
        ("grpc.so_reuseport", 0),  # else a second server on the port would take half the calls
        ("grpc.keepalive_time_ms", milliseconds),
        ("grpc.keepalive_timeout_ms", answer),
        ("grpc.http2.ping_timeout_ms", answer),  # else a minute
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", min(milliseconds, 10_000)),
        ("grpc.http2.max_ping_strikes", 0),
    ]


async def serve(config: ServerConfig) -> None:
    """Serve until SIGTERM or Ctrl-C, which drains; a second one stops at once. SIGHUP reloads."""
    loop, signals = asyncio.get_running_loop(), asyncio.Queue[int]()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, signals.put_nowait, number)
    server = Server(config)
    await server.start()
    while await signals.get() == signal.SIGHUP:
        await server.reload()
    stopping = asyncio.create_task(server.stop())
    impatient = asyncio.create_task(_next_stop(signals))
    await asyncio.wait({stopping, impatient}, return_when="FIRST_COMPLETED")
    if not stopping.done():
        await server.stop(0)
    impatient.cancel()
    await asyncio.wait({stopping})


async def _next_stop(signals: asyncio.Queue[int]) -> None:
    while await signals.get() == signal.SIGHUP:
        pass
