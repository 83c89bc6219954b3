"""What `kafetrain run` writes to stderr: kafetrain's events, the app's own, and those of the Kafka client."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TYPE_CHECKING

from loguru import logger

if TYPE_CHECKING:
    from loguru import Message, Record

__all__ = ["LEVELS", "show_logs"]

SAY_AGAIN_AFTER_S = 60.0
MOST_REMEMBERED = 1000

SELECTOR, BUSY = "kafka.net.selector", "blocking the event loop"
"""kafka-python says so of itself whenever the machine is busy, each time in other words: nothing to act on."""

LEVELS = ("trace", "debug", "info", "warning", "error", "critical")


def show_logs(level: str, *, as_json: bool) -> None:
    """From now on, events of this level and above: as lines, or as one JSON object a line."""
    name = level.upper()
    if as_json:
        logger.configure(handlers=[{"sink": _write_json, "level": name}])
    else:
        # Not diagnose: it would show the values of variables, payloads among them.
        logger.configure(handlers=[{"sink": sys.stderr, "level": name, "format": _line, "diagnose": False}])
    logger.enable("kafetrain")
    # The client says the same again in its own words, and more of it: only what is serious.
    logging.basicConfig(handlers=[_Forwarding()], level=max(logging.WARNING, logger.level(name).no), force=True)


def _line(event: Record) -> str:
    fields = " {extra}" if event["extra"] else ""
    return f"{{time:YYYY-MM-DD HH:mm:ss.SSS}} {{level: <8}} {{message}}{fields}\n{{exception}}"


def _write_json(message: Message) -> None:
    event = message.record
    fields = {
        "time": event["time"].isoformat(timespec="milliseconds"),
        "level": event["level"].name.lower(),
        "message": event["message"],
        "logger": event["name"],
        **event["extra"],
    }
    if event["exception"] is not None and event["exception"].type is not None:
        fields["error_type"] = event["exception"].type.__name__
    sys.stderr.write(json.dumps(fields, default=str, ensure_ascii=False) + "\n")


class _Forwarding(logging.Handler):
    """Of the standard library's logging, to loguru. The client's events once a minute each: while no broker answers it
    has several for each of its tries."""

    def __init__(self) -> None:
        super().__init__()
        self._say_again_at: dict[tuple[str, str], float] = {}  # `emit` is called under the handler's lock

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == SELECTOR and BUSY in record.getMessage():
            return
        if record.name.partition(".")[0] == "kafka" and not self._is_news(record):
            return
        name = record.levelname if record.levelname in {known.upper() for known in LEVELS} else "WARNING"
        logger.bind(logger=record.name).log(name, "{}", record.getMessage())

    def _is_news(self, record: logging.LogRecord) -> bool:
        now, what = time.monotonic(), (record.name, str(record.msg))
        if now < self._say_again_at.get(what, 0.0):
            return False
        if len(self._say_again_at) >= MOST_REMEMBERED:
            self._say_again_at.clear()
        self._say_again_at[what] = now + SAY_AGAIN_AFTER_S
        return True
