"""Who may call: bearer tokens from a file, certificates of TLS and mutual TLS; both are read again when they change."""

import hashlib
import hmac
import logging
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc

from colorflow_rt.errors import OptionError
from colorflow_server.config import ServerConfig
from colorflow_server.log import event

LOG = logging.getLogger("colorflow.access")
Stamp = tuple[tuple[int, int, int] | None, ...]
SHORTEST_TOKEN = 16


def stamp(paths: list[Path]) -> Stamp:
    """Changes when one of the files is replaced or written to."""
    return tuple(_stamp(path) for path in paths)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


class Tokens:
    """The clients that a file names: a line `NAME TOKEN` each, `#` starts a comment. OptionError if it cannot be read.

    Only the SHA-256 of a token is kept. A file that turns bad while the server runs leaves the old tokens valid.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._stamp = path, stamp([path])
        self._names = read_tokens(path)

    def reload(self, force: bool = False) -> None:
        """Read the file again if it has changed."""
        now = stamp([self._path])
        if now == self._stamp and not force:
            return
        self._stamp = now
        try:
            self._names = read_tokens(self._path)
            event(LOG, logging.INFO, "tokens reloaded", clients=len(self._names))
        except OptionError as error:
            event(LOG, logging.ERROR, "tokens not reloaded, the old ones stay valid", error=str(error))

    def client(self, metadata: Mapping[str, str | bytes]) -> str | None:
        """The name of the client whose token the metadata bear; None: no token, or an unknown one."""
        header = metadata.get("authorization", "")
        scheme, _, token = str(header).partition(" ")
        digest = _digest(token.strip())
        found = None
        for known, name in self._names.items():  # all of them: the time taken tells nothing
            if hmac.compare_digest(known, digest):
                found = name
        return found if scheme.lower() == "bearer" else None


def read_tokens(path: Path) -> dict[bytes, str]:
    """Names by the SHA-256 of their tokens. OptionError names the line that is wrong, never the token."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"tokens {path}: {error}") from error
    names: dict[bytes, str] = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or len(words[1]) < SHORTEST_TOKEN:
            raise OptionError(
                f"tokens {path}, line {number}: expected NAME TOKEN, the token {SHORTEST_TOKEN} or longer"
            )
        if _digest(words[1]) in names:
            raise OptionError(f"tokens {path}, line {number}: another client has the same token")
        names[_digest(words[1])] = words[0]
    if not names:
        raise OptionError(f"tokens {path}: there is no token in it, expected lines NAME TOKEN")
    return names


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class Certificates:
    """The certificate of the server, and for mutual TLS those that clients are checked against."""

    def __init__(self, config: ServerConfig) -> None:
        self._cert, self._key, ca = Path(config.tls_cert), Path(config.tls_key), config.tls_client_ca
        self._ca = Path(ca) if ca else None
        self._paths = [self._cert, self._key, *([self._ca] if self._ca else [])]
        self._lock = threading.Lock()
        self._stamp = stamp(self._paths)
        self._first = self._read()

    def credentials(self) -> Any:
        """Server credentials that look at the files again at every handshake."""
        return grpc.dynamic_ssl_server_credentials(
            self._first, self._fetch, require_client_authentication=bool(self._ca)
        )

    def _read(self) -> Any:
        """The configuration of the files. OptionError if they cannot be read or do not belong together."""
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._cert, self._key, password=lambda: "")  # never asks at a terminal
            if self._ca:
                context.load_verify_locations(self._ca)
            pair = (self._key.read_bytes(), self._cert.read_bytes())
            return grpc.ssl_server_certificate_configuration([pair], self._ca.read_bytes() if self._ca else None)
        except (OSError, ssl.SSLError, ValueError) as error:
            where = ", ".join(map(str, self._paths))
            raise OptionError(f"TLS files {where} cannot be used: {error or type(error).__name__}") from error

    def _fetch(self) -> Any:
        """For gRPC, in its own threads: a new configuration, or None to go on with the old."""
        with self._lock:
            now = stamp(self._paths)
            if now == self._stamp:
                return None
            self._stamp = now
            try:
                fresh = self._read()
            except OptionError as error:
                event(LOG, logging.ERROR, "certificates not reloaded, the old ones serve on", error=str(error))
                return None
            event(LOG, logging.INFO, "certificates reloaded")
            return fresh
