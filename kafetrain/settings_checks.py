"""What a setting may be: one small function per kind of value, and the checks across settings.

Each takes what was written, in code or as text from a file or the environment, and returns the value or raises
`ValueError`. No error text here repeats a value that may be secret.
"""

from __future__ import annotations

import difflib
import json
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from kafetrain.backoff_policy import backoff_from
from kafetrain.breaker import Breaker, breaker_from
from kafetrain.record import BackoffPolicy

__all__ = [
    "FORMAT_FIELDS",
    "LEGAL_IN_TOPICS",
    "breaker",
    "check_prefixes",
    "group",
    "json_mapping",
    "nearest",
    "none_or",
    "path",
    "policy",
    "positive",
    "replicas",
    "servers",
    "texts",
    "topic_format",
    "topic_prefix",
    "up_to_a_day",
    "whole_number",
]

LEGAL_IN_TOPICS = re.compile(r"[a-zA-Z0-9._-]+")
FORMAT_FIELDS = ("prefix", "topic", "group")


def nearest(name: str, known: Iterable[str], variable_prefix: str = "") -> str:
    """`; did you mean a or b?`, or nothing where no known name is near. With a prefix: as environment variables."""
    matches = difflib.get_close_matches(name.lower().replace(".", "_"), list(known), n=2, cutoff=0.75)
    if variable_prefix:
        matches = [f"{variable_prefix}{match.upper()}" for match in matches]
    return f"; did you mean {' or '.join(matches)}?" if matches else ""


def texts(value: object) -> list[str] | None:
    """Comma-separated text or several texts as a list without empty ones; None for anything else."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, Iterable) or isinstance(value, bytes | Mapping):
        return None
    items = list(value)
    return [item.strip() for item in items if item.strip()] if all(isinstance(i, str) for i in items) else None


def servers(value: object) -> list[str]:
    """Addresses of brokers, each `host:port` or `[v6 address]:port`."""
    addresses = texts(value)
    if addresses is None:
        raise ValueError(f"{type(value).__name__} is no list of addresses")
    if not addresses:
        raise ValueError("no address is given")
    for address in addresses:
        if "://" in address:
            raise ValueError(
                f"{address!r} has a scheme; leave {address.split('://')[0]}:// away (see security_protocol)"
            )
        host, colon, port = address.rpartition(":")
        if not colon or address.endswith("]"):
            raise ValueError(f"{address!r} has no port (Kafka's own default is 9092)")
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError(f"{address!r} has port {port!r}, which is not a number from 1 to 65535")
        if not host or any(char.isspace() for char in host):
            raise ValueError(f"{address!r} has no host name before its port")
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            raise ValueError(f"{address!r} has several colons; an IPv6 address is written as [::1]:9092")
    return addresses


def group(value: str) -> str:
    """The name of a consumer group."""
    if value != value.strip():
        raise ValueError("it begins or ends with a blank, which would make it another group")
    return value


def path(value: object) -> object:
    """As text."""
    return str(value) if hasattr(value, "__fspath__") else value


def whole_number(value: object) -> object:
    """Refuses what would become a number by accident: booleans."""
    if isinstance(value, bool):
        raise ValueError("a yes or no is not a number")
    return value


def none_or(parse: Callable[[object], object]) -> Callable[[object], object]:
    """None, also as text, or what `parse` makes of it."""

    def read(value: object) -> object:
        is_none = value is None or (isinstance(value, str) and value.strip().lower() in ("none", "null"))
        return None if is_none else parse(value)

    return read


def positive(value: timedelta | None) -> timedelta | None:
    if value is not None and value <= timedelta(0):
        raise ValueError("it is out of bounds")
    return value


def up_to_a_day(value: timedelta) -> timedelta:
    if not timedelta(0) < value <= timedelta(days=1):
        raise ValueError("it is out of bounds")
    return value


def replicas(value: int) -> int:
    """Of a topic; -1: the broker's default."""
    if value != -1 and not 1 <= value <= 32767:
        raise ValueError("it is out of bounds")
    return value


def topic_prefix(value: str) -> str:
    if not LEGAL_IN_TOPICS.fullmatch(value):
        raise ValueError("it has characters that Kafka does not allow in topic names")
    return value


def topic_format(value: str) -> str:
    """A pattern of literal text, `{prefix}`, `{topic}` and perhaps `{group}`."""
    used = []
    try:
        parts = list(string.Formatter().parse(value))
    except ValueError as error:
        raise ValueError(f"its braces do not match ({error})") from None
    for literal, name, spec, conversion in parts:
        if literal and not LEGAL_IN_TOPICS.fullmatch(literal):
            raise ValueError(f"{literal!r} has characters that Kafka does not allow in topic names")
        if name is None:
            continue
        if name not in FORMAT_FIELDS or spec or conversion:
            raise ValueError(f"{{{name}}} is unknown{nearest(name, FORMAT_FIELDS)}")
        used.append(name)
    if missing := [f"{{{name}}}" for name in ("prefix", "topic") if name not in used]:
        raise ValueError(f"{' and '.join(missing)} must be in it, or different topics would get the same name")
    return value


def json_mapping(value: object) -> dict[str, Any]:
    """A mapping as it is, or read from JSON text. The error never repeats the text: it may hold a secret."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError("the text is not JSON") from None
    if not isinstance(value, Mapping):
        raise ValueError(f"{type(value).__name__} is no mapping")
    if not all(isinstance(name, str) for name in value):
        raise ValueError("a name in it is not text")
    return dict(value)


def policy(value: object) -> BackoffPolicy:
    """A policy as it is, or the one that a mapping (also as JSON text) describes."""
    if isinstance(value, type):
        raise ValueError(f"{value.__name__} is a class; write {value.__name__}(...)")
    if callable(value):
        return value
    return backoff_from(json_mapping(value))


def breaker(value: object) -> Breaker:
    """A breaker as it is, or the one that a mapping (also as JSON text) describes."""
    return value if isinstance(value, Breaker) else breaker_from(json_mapping(value))


def check_prefixes(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The three kinds of topics must not become one."""
    fields = ("retry_topic_prefix", "redirect_topic_prefix", "dlq_topic_prefix")
    for position, field in enumerate(fields):
        for earlier in fields[:position]:
            # Kafka itself takes "." and "_" for the same, in the names of its metrics.
            if _folded(values.get(field)) == _folded(values.get(earlier)) is not None:
                yield field, f"{values[field]!r} is {earlier} already; the three prefixes must differ"


def _folded(prefix: str | None) -> str | None:
    return None if prefix is None else prefix.replace(".", "_")
