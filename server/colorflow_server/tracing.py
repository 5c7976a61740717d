"""OpenTelemetry traces, where the extra `tracing` is installed and an endpoint is configured; else nothing at all.

A call is a span, child of the caller's `traceparent`; a page is a span in it, with its stages one after another.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from colorflow_rt.errors import missing_extra

NANOSECONDS = 1_000_000_000


class Tracer:
    """Makes spans; without an endpoint it makes none. MissingExtraError: OpenTelemetry is not installed."""

    def __init__(self, endpoint: str = "", exporter: Any = None) -> None:
        self._tracer: Any = None
        self._provider: Any = None
        if endpoint or exporter:
            try:
                self._set_up(endpoint, exporter)
            except ImportError as error:
                raise missing_extra("colorflow-server --trace-endpoint", "tracing", error) from error

    def _set_up(self, endpoint: str, exporter: Any) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter(endpoint)
        self._provider = TracerProvider(resource=Resource.create({"service.name": "colorflow-server"}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("colorflow_server")

    @contextmanager
    def call(self, method: str, request_id: str, metadata: Any) -> Iterator[None]:
        """The span of a call."""
        if self._tracer is None:
            yield
            return
        from opentelemetry.propagate import extract

        parent = extract({key: value for key, value in metadata or () if isinstance(value, str)})
        attributes = {"rpc.system": "grpc", "rpc.method": method, "colorflow.request_id": request_id}
        with self._tracer.start_as_current_span(method, parent, attributes=attributes):
            yield

    def page(self, page_id: str, queue_s: float, seconds: Mapping[str, float]) -> None:
        """The spans of a page that has just finished: its stages by their length, back from now."""
        if self._tracer is None:
            return
        from opentelemetry.trace import set_span_in_context

        end = time.time_ns()
        begin = end - int((queue_s + sum(seconds.values())) * NANOSECONDS)
        page = self._tracer.start_span("page", start_time=begin, attributes={"colorflow.page": page_id})
        inside = set_span_in_context(page)
        for stage, length in [("queue", queue_s), *seconds.items()]:
            span = self._tracer.start_span(stage, inside, start_time=begin)
            begin += int(length * NANOSECONDS)
            span.end(begin)
        page.end(end)

    def close(self) -> None:
        """Send what is left."""
        if self._provider is not None:
            self._provider.shutdown()
