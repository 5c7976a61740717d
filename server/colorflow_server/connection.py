"""How a client reaches a server: address, credentials, tries, and what a call sends back."""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from colorflow_rt.errors import Cancelled, ColorflowError, OptionError
from colorflow_server import wire
from colorflow_server.wire import ServerError

POLL_S = 0.2


@dataclass(frozen=True)
class Connection:
    """How to reach a server. target: HOST:PORT. token: of the server's file. ca, cert, key: PEM files for TLS.

    tls: without `ca` the system's authorities are trusted. cert and key: of the client, for mutual TLS. timeout_s: of
    each call with all its tries; None: none. max_message_mib: of what the server sends.
    """

    target: str
    token: str | None = None
    tls: bool = False
    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None
    timeout_s: float | None = None
    retries: int = 5
    max_message_mib: int = 256

    def options(self) -> list[tuple[str, int]]:
        """Of the channel."""
        most = self.max_message_mib * 1024 * 1024
        return [
            ("grpc.max_receive_message_length", most),
            ("grpc.max_send_message_length", most),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 5000),
        ]

    def credentials(self) -> Any | None:
        """Of the channel; None: plain text. OptionError: a file cannot be read."""
        if not (self.tls or self.ca or self.cert):
            return None
        try:
            ca, key, cert = (Path(path).read_bytes() if path else None for path in (self.ca, self.key, self.cert))
        except OSError as error:
            raise OptionError(f"TLS file {error.filename} cannot be read ({error.strerror})") from error
        return grpc.ssl_channel_credentials(ca, key, cert)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Of each call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def channel(self, module: Any) -> Any:
        """A channel of `grpc` or `grpc.aio`."""
        credentials = self.credentials()
        if credentials is None:
            return module.insecure_channel(self.target, self.options())
        return module.secure_channel(self.target, credentials, self.options())


class Tries:
    """One call until it works, fails for good, or its time is over."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._attempt = connection, 0
        limit = connection.timeout_s
        self.deadline = None if limit is None else time.monotonic() + limit

    @property
    def timeout(self) -> float | None:
        """What is left of the time."""
        return None if self.deadline is None else max(0.001, self.deadline - time.monotonic())

    def wait_after(self, error: Any) -> float:
        """Seconds before the next try; the error itself, where there is none."""
        ours = wire.error_of_call(error)
        wait = wire.wait_before(ours, self._attempt)
        late = wait is not None and self.deadline is not None and time.monotonic() + wait >= self.deadline
        if wait is None or late or self._attempt >= self._connection.retries:
            raise ours from error
        self._attempt += 1
        return wait


class Received:
    """What a call sends, read by a thread, so that its user can be asked in between whether to stop."""

    def __init__(self, call: Any) -> None:
        self._call, self._queue = call, queue.Queue[Any](maxsize=64)
        threading.Thread(target=self._read, name="colorflow-client", daemon=True).start()

    def _read(self) -> None:
        try:
            for message in self._call:
                self._queue.put(message)
            self._queue.put(ServerError("the server ended the call before all pages were through", "UNAVAILABLE"))
        except grpc.RpcError as error:
            self._queue.put(error)

    def get(self, cancelled: Callable[[], bool]) -> Any:
        """The next message. What ended the call is raised; Cancelled if the user says so."""
        while True:
            if cancelled():
                raise Cancelled("cancelled by the caller")
            try:
                found = self._queue.get(timeout=POLL_S)
            except queue.Empty:
                continue
            if isinstance(found, grpc.RpcError | ColorflowError):
                raise found
            return found
