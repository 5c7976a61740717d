"""Prometheus metrics: counted where things end, gauges read from the scheduler when they are asked for.

Names follow Triton (requests by outcome, queue and compute durations) and vLLM (`num_..._running`, `num_..._waiting`).
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.simple_server import WSGIServer

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from colorflow_server.pb import colorflow_pb2 as pb

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """All metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of: Any = {"registry": self.registry}
        self.requests = Counter("colorflow_requests", "Calls by method and gRPC status code.", ["method", "code"], **of)
        self.open_calls = Gauge("colorflow_num_requests_running", "Calls that are open.", ["method"], **of)
        self.request_seconds = Histogram(
            "colorflow_request_duration_seconds", "Calls, from start to status.", ["method"], buckets=SECONDS, **of
        )
        self.pages = Counter(
            "colorflow_pages",
            "Pages by outcome: finished, passed_through, failed, cancelled, refused.",
            ["outcome"],
            **of,
        )
        self.queue_seconds = Histogram(
            "colorflow_queue_duration_seconds", "Pages, from admission to first stage.", buckets=SECONDS, **of
        )
        self.stage_seconds = Histogram(
            "colorflow_stage_duration_seconds", "Stages of finished pages.", ["stage"], buckets=SECONDS, **of
        )
        self.reloads = Counter("colorflow_pack_reloads", "Packs replaced, or not.", ["pack", "outcome"], **of)
        self.dropped = Counter("colorflow_previews_dropped", "Previews not sent to clients that read slowly.", **of)
        ProcessCollector(registry=self.registry)

    def finished(self, result: pb.PageResult) -> None:
        """Count a page that is done."""
        self.pages.labels("passed_through" if result.passed_through else "finished").inc()
        self.queue_seconds.observe(result.queue_seconds)
        for stage, seconds in result.seconds.items():
            self.stage_seconds.labels(stage).observe(seconds)

    def watch(self, snapshot: Callable[[], Any]) -> None:
        """Also report the state of a scheduler."""
        self.registry.register(_Engine(snapshot))

    def serve(self, host: str, port: int) -> tuple[WSGIServer, threading.Thread]:
        """Answer GET /metrics, from a thread. OSError if the port cannot be had."""
        return start_http_server(port, host, registry=self.registry)


class _Engine(Collector):
    """The scheduler's state at the moment of the question."""

    def __init__(self, snapshot: Callable[[], Any]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Gauges and counters of SchedulerState, and the memory of the device."""
        state = self._snapshot()
        yield GaugeMetricFamily("colorflow_num_pages_waiting", "Pages that wait.", state.waiting)
        yield GaugeMetricFamily("colorflow_num_pages_running", "Pages under way.", state.running)
        yield GaugeMetricFamily("colorflow_num_slots", "Batch slots of the engine.", state.slots)
        yield GaugeMetricFamily("colorflow_num_slots_used", "Batch slots in use.", state.slots_used)
        batches = "Denoise steps of the engine, each of a whole batch."
        yield CounterMetricFamily("colorflow_denoise_batches", batches, state.steps)
        steps = "Denoise steps of pages; over colorflow_denoise_batches_total it is the mean batch."
        yield CounterMetricFamily("colorflow_denoise_steps", steps, state.page_steps)
        memory = GaugeMetricFamily("colorflow_device_memory_bytes", "Held by the engine's process.", labels=["device"])
        memory.add_metric(["cpu"], psutil.Process().memory_info().rss)
        yield memory
