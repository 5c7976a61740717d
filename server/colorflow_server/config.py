"""The configuration of a server: one frozen record, from flags, environment and a TOML file, in this order of rank.

Every field is a key of the file, a flag (`max_queue`: `--max-queue`) and a variable (`COLORFLOW_SERVER_MAX_QUEUE`).
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colorflow_rt.errors import OptionError, PackError, check_choice
from colorflow_rt.pack import ENGINES, Pack, open_pack
from colorflow_rt.records import read_record, write_toml

LOG_LEVELS = ("debug", "info", "warning", "error")
MIB = 1024 * 1024


def _field(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class ServerConfig:
    """What `colorflow-server` is told. OptionError where a value is out of range or files do not go together."""

    packs: tuple[str, ...] = _field(("mini",), "Model packs, by name or folder; the first is the default. Repeatable.")
    engine: str = _field(
        "auto", f"What computes: {', '.join(ENGINES)}; auto takes the fastest that was built and can run."
    )
    engines: str = _field("", "Folder of built engines, in place of where they are by default.")
    host: str = _field("127.0.0.1", "Address to listen on; 0.0.0.0 or [::] for all.")
    port: int = _field(50051, "Port to listen on; 0 takes a free one.")
    metrics_host: str = _field("127.0.0.1", "Address of the Prometheus metrics.")
    metrics_port: int = _field(0, "Port of the Prometheus metrics over HTTP; 0: none.")
    sets: str = _field("", "Folder of the reference sets; default: COLORFLOW_HOME/sets.")
    tls_cert: str = _field("", "Certificate chain (PEM); with --tls-key the port speaks TLS only.")
    tls_key: str = _field("", "Private key of the certificate (PEM).")
    tls_client_ca: str = _field("", "Certificates (PEM) that must have signed a client's: mutual TLS.")
    tokens: str = _field("", "File of bearer tokens: a line `NAME TOKEN` for each client.")
    max_message_mib: int = _field(32, "Limit of one message, either way.")
    max_pixels: int = _field(100_000_000, "Limit of a picture, seen before it is decoded.")
    max_queue: int = _field(64, "Pages that may wait; one more is refused at once.")
    slots: int = _field(0, "Batch slots of the engine; 0: measured at the start.")
    workers: int = _field(2, "Threads for what is done before and after the engine, and as many again for previews.")
    max_pages_in_flight: int = _field(8, "Pages of one ColorizeSequence that are under way at once.")
    max_inline_references: int = _field(64, "Pictures that a call may bring along.")
    max_calls: int = _field(256, "Calls that are open at once; one more is refused.")
    max_held_mib: int = _field(1024, "Bytes of requests held at once; a call that goes over it is refused.")
    idle_timeout_s: float = _field(300.0, "A stream whose client neither sends nor reads for so long is ended.")
    keepalive_s: float = _field(30.0, "A peer that does not answer a ping after so long is taken for dead.")
    grace_s: float = _field(30.0, "After SIGTERM, time for the pages under way.")
    reload_s: float = _field(2.0, "How often files of packs, certificates and tokens are looked at; 0: on SIGHUP only.")
    log_level: str = _field("info", "debug, info, warning or error; the log is JSON lines on stderr.")
    trace_endpoint: str = _field("", "OTLP/HTTP endpoint for OpenTelemetry traces; needs the extra `tracing`.")

    def __post_init__(self) -> None:
        check_choice("log_level", self.log_level, LOG_LEVELS)
        check_choice("engine", self.engine, ENGINES)
        _require("packs", self.packs, bool(self.packs) and all(self.packs), "at least one name or folder")
        _require("host", self.host, bool(self.host.strip()), "an address to listen on")
        for name in ("port", "metrics_port"):
            _require(name, getattr(self, name), 0 <= getattr(self, name) <= 65535, "0 to 65535")
        for name in ("slots", "reload_s", "grace_s"):
            _require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        _require("max_message_mib", self.max_message_mib, 1 <= self.max_message_mib <= 1024, "1 to 1024")
        _require(
            "max_held_mib", self.max_held_mib, self.max_held_mib >= self.max_message_mib, "max_message_mib or more"
        )
        for name in ("max_queue", "workers", "max_pages_in_flight", "max_inline_references", "max_calls"):
            _require(name, getattr(self, name), getattr(self, name) >= 1, "1 or more")
        _require("max_pixels", self.max_pixels, self.max_pixels >= 256, "256 or more")
        for name in ("idle_timeout_s", "keepalive_s"):
            _require(name, getattr(self, name), getattr(self, name) > 0, "more than 0")
        together = bool(self.tls_cert) == bool(self.tls_key)
        _require("tls_cert, tls_key", (self.tls_cert, self.tls_key), together, "both or neither")
        _require("tls_client_ca", self.tls_client_ca, bool(self.tls_cert) or not self.tls_client_ca, "tls_cert with it")

    @property
    def max_message_bytes(self) -> int:
        """Limit of one message."""
        return self.max_message_mib * MIB

    def open(self, pack: str) -> Pack:
        """One of the packs, on the engines that are configured. Raises what `open_pack` raises."""
        return open_pack(pack, self.engine, Path(self.engines) if self.engines else None)

    def to_toml(self) -> str:
        """The record as a file that `load_config` takes."""
        return write_toml(self)


def load_config(file: Path | None, given: Mapping[str, Any]) -> ServerConfig:
    """The record of a TOML file, if there is one, under what was given by flags and environment. OptionError."""
    where = str(file) if file else "configuration"
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8")) if file else {}
        return read_record(ServerConfig, table | dict(given))
    except OptionError as error:
        raise OptionError(f"{where}: {error}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, PackError) as error:
        raise OptionError(f"{where}: {error}") from error


def _require(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise OptionError(f"{name} is {value!r}, expected {expected}")
