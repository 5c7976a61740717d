"""One place for what every call has: an id, a client, a span, a line in the log, a count, and its errors' status.

`Calls` is the server's only interceptor. A handler raises what went wrong and never aborts a call itself.
"""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import code_pb2 as codes
from google.rpc.status_pb2 import Status

from colorflow_server.access import Tokens
from colorflow_server.log import event
from colorflow_server.metrics import Metrics
from colorflow_server.status import Rejected, make_status, status_of
from colorflow_server.tracing import Tracer

LOG = logging.getLogger("colorflow.calls")
REQUEST_ID = "x-request-id"
DETAILS = "grpc-status-details-bin"
OURS = "/colorflow.v1.Colorizer/"
OPEN_TO_ALL = ("/grpc.health.v1.Health/",)  # probes bear no token
Handler = Callable[[Any, Any], Awaitable[Any]]
Decode = Callable[[bytes], Any]
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_ID = re.compile(r"[!-~]{1,128}")


@dataclass
class Call:
    """A call under way. client: the name of its token, else its certificate's, else its address."""

    id: str
    method: str
    client: str
    start: float = field(default_factory=time.monotonic)


CALL: ContextVar[Call] = ContextVar("call")


class Calls(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Wraps every handler of the service; other services (reflection, health) only meet the check of the token."""

    def __init__(self, metrics: Metrics, tokens: Tokens | None, tracer: Tracer) -> None:
        self._metrics, self._tokens, self._tracer = metrics, tokens, tracer
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def all_ended(self) -> None:
        """Until no call of ours is under way; those of health and reflection, which have no end, do not count."""
        await self._idle.wait()

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """The handler of a call, wrapped."""
        handler = await continuation(details)
        method = details.method
        if handler is None or method.startswith(OPEN_TO_ALL):
            return handler
        if method.startswith(OURS):
            return self._wrapped(handler, method)
        allowed = self._tokens is None or self._tokens.client(dict(details.invocation_metadata)) is not None
        return handler if allowed else _refusing(handler)

    def _wrapped(self, handler: Any, method: str) -> Any:
        behaviour, kind = behaviour_of(handler)

        decode = None if handler.request_streaming else handler.request_deserializer

        async def around(request: Any, context: Any) -> Any:
            return await self._run(method, behaviour, request, context, decode)

        # Bytes that are no message: grpc would end a unary call itself, with UNKNOWN and uncounted.
        return kind(around, None if decode else handler.request_deserializer, handler.response_serializer)

    async def _run(self, method: str, handler: Handler, request: Any, context: Any, decode: Decode | None) -> Any:
        call = self._begin(method, context)
        name, code = method.removeprefix(OURS), "UNKNOWN"
        open_calls = self._metrics.open_calls.labels(name)
        open_calls.inc()
        self._open += 1
        self._idle.clear()
        try:
            with self._tracer.call(name, call.id, context.invocation_metadata()):
                self._authenticate(call, context)
                response = await handler(decode(request) if decode else request, context)
            code = "OK"
            self._count(call, name, code)
            return response
        except asyncio.CancelledError:
            left = context.time_remaining()
            code = "CANCELLED" if left is None or left > 0 else "DEADLINE_EXCEEDED"
            self._count(call, name, code)
            raise
        except Exception as error:
            status = self._status(call, error)
            code = _CODES[status.code].name
            self._count(call, name, code, status.message)
            await _abort(context, status)
        finally:
            open_calls.dec()
            self._open -= 1
            if not self._open:
                self._idle.set()

    def _begin(self, method: str, context: Any) -> Call:
        metadata = dict(context.invocation_metadata() or ())
        given = str(metadata.get(REQUEST_ID, ""))
        call = Call(given if _ID.fullmatch(given) else secrets.token_hex(8), method, address(context))
        CALL.set(call)
        context.set_trailing_metadata(((REQUEST_ID, call.id),))
        return call

    def _authenticate(self, call: Call, context: Any) -> None:
        common_name = context.auth_context().get("x509_common_name")
        if common_name:
            call.client = common_name[0].decode("utf-8", "replace")
        if self._tokens is None:
            return
        client = self._tokens.client(dict(context.invocation_metadata() or ()))
        if client is None:
            raise Rejected(codes.UNAUTHENTICATED, UNAUTHENTICATED)
        call.client = client

    def _status(self, call: Call, error: Exception) -> Status:
        status = status_of(error)
        if status is None:
            LOG.error(
                "unexpected error", exc_info=error, extra={"fields": {"request_id": call.id, "method": call.method}}
            )
            status = make_status(codes.INTERNAL, f"unexpected {type(error).__name__}: the log says more of {call.id}")
        return status

    def _count(self, call: Call, name: str, code: str, error: str = "") -> None:
        """Before the status is sent: who has read it finds it counted."""
        seconds = time.monotonic() - call.start
        self._metrics.requests.labels(name, code).inc()
        self._metrics.request_seconds.labels(name).observe(seconds)
        fields = {
            "request_id": call.id,
            "method": name,
            "client": call.client,
            "code": code,
            "seconds": round(seconds, 4),
        }
        event(LOG, logging.INFO, "call", **fields, **({"error": error} if error else {}))


UNAUTHENTICATED = "no valid token: send the metadata `authorization: Bearer TOKEN`"


def address(context: Any) -> str:
    """The host part of the peer: "ipv4:127.0.0.1:4711" is "127.0.0.1"."""
    peer = str(context.peer())
    return peer.partition(":")[2].rpartition(":")[0] or peer


def behaviour_of(handler: Any) -> tuple[Handler, Any]:
    """A handler's function, and what makes a handler of that kind again."""
    if handler.request_streaming:
        if handler.response_streaming:
            return handler.stream_stream, grpc.stream_stream_rpc_method_handler
        return handler.stream_unary, grpc.stream_unary_rpc_method_handler
    if handler.response_streaming:
        return handler.unary_stream, grpc.unary_stream_rpc_method_handler
    return handler.unary_unary, grpc.unary_unary_rpc_method_handler


def _refusing(handler: Any) -> Any:
    async def refuse(request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, UNAUTHENTICATED)

    kind = behaviour_of(handler)[1]
    return kind(refuse, handler.request_deserializer, handler.response_serializer)


async def _abort(context: Any, status: Status) -> None:
    """End a call with a status and its details."""
    metadata = (*context.trailing_metadata(), (DETAILS, status.SerializeToString()))
    await context.abort(_CODES[status.code], status.message, metadata)
