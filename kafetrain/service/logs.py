"""Logs: lines for people, or in production one JSON object a line. Neither ever holds a message or a secret."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING

from loguru import logger

from kafetrain.service.settings import ServiceSettings

if TYPE_CHECKING:
    from loguru import Message, Record

__all__ = ["set_up_logs"]

BOUND = ("task_id", "attempt", "max_retries")
FROM_OTHERS = {"uvicorn.error": logging.INFO, "uvicorn": logging.INFO, "asyncio": logging.WARNING}


def set_up_logs(settings: ServiceSettings) -> None:
    level = settings.log_level.upper()
    if settings.environment == "prod":
        logger.configure(handlers=[{"sink": _write_json, "level": level}])
    else:
        handler = {"sink": sys.stderr, "format": _line, "level": level, "diagnose": False, "backtrace": False}
        logger.configure(handlers=[handler])  # type: ignore[list-item]  # the stubs want the keys one by one
    logger.enable("kafetrain")
    for name, least in FROM_OTHERS.items():
        other = logging.getLogger(name)
        other.handlers, other.propagate = [_Forward()], False
        other.setLevel(least)


def _line(record: Record) -> str:
    bound = "".join(f" {name}={{extra[{name}]}}" for name in BOUND if name in record["extra"])
    return "{time:HH:mm:ss.SSS} {level: <7} {message}" + bound + "\n{exception}"


def _write_json(message: Message) -> None:
    record = message.record
    entry = {
        "level": record["level"].name.lower(),
        "ts": record["time"].isoformat(timespec="milliseconds"),
        "caller": f"{record['name']}:{record['line']}",
        "msg": record["message"],
        **{name: record["extra"][name] for name in BOUND if name in record["extra"]},
    }
    if record["exception"] is not None and record["exception"].type is not None:
        trace = record["exception"].traceback
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = "" if trace is None else f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        entry["error"] = f"{record['exception'].type.__name__}{where}"
    sys.stderr.write(json.dumps(entry, ensure_ascii=False) + "\n")


class _Forward(logging.Handler):
    """Records of the standard library's logging."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            logger.opt(exception=record.exc_info).log(record.levelname, record.getMessage())
        except Exception:  # a log line is not worth a failure
            self.handleError(record)
