"""The log: a line of JSON for each event, on stderr."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any


class JsonLines(logging.Formatter):
    """time (UTC), level, logger, event, and what the event brings."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in it."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "logger": record.name, "event": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def event(logger: logging.Logger, level: int, what: str, **fields: Any) -> None:
    """Log one event."""
    logger.log(level, "%s", what, extra={"fields": fields})


def set_up(level: str) -> None:
    """Send the log of this process to stderr, from this level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
