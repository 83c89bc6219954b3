"""What a setting may be: one small function per kind of value, and the checks across settings.

Each takes what was written, in code or as text from a file or the environment, and returns the value or raises
`ValueError`. No error text here repeats a value that may be secret.
"""

from __future__ import annotations

import builtins
import difflib
import importlib
import json
import re
import string
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from kafetrain.backoff_policy import backoff_from
from kafetrain.breaker import Breaker, breaker_from
from kafetrain.record import BackoffPolicy

__all__ = [
    "FORMAT_FIELDS",
    "LEGAL_IN_TOPICS",
    "breaker",
    "check_client_options",
    "check_delivery",
    "check_prefixes",
    "check_security",
    "error_classes",
    "json_mapping",
    "nearest",
    "policy",
    "servers",
    "texts",
    "topic_format",
    "whole_number",
]

LEGAL_IN_TOPICS = re.compile(r"[a-zA-Z0-9._-]+")
FORMAT_FIELDS = ("prefix", "topic", "group")

# Typed settings, by the name that kafka-python has for the same thing.
_SHORTCUTS = {
    "security_protocol": "security_protocol",
    "sasl_mechanism": "sasl_mechanism",
    "sasl_plain_username": "sasl_username",
    "sasl_plain_password": "sasl_password",
    "ssl_cafile": "ssl_cafile",
    "ssl_certfile": "ssl_certfile",
    "ssl_keyfile": "ssl_keyfile",
}
_TRANSACTION_TIMEOUT_MS = 10_000  # as the client has it
_ABORTED_WITHIN = timedelta(seconds=10)  # how often brokers look for transactions that have timed out
_NEEDS_LOGIN = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


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


def whole_number(value: object) -> object:
    """Refuses what would become a number by accident: booleans."""
    if isinstance(value, bool):
        raise ValueError("a yes or no is not a number")
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


def error_classes(value: object) -> tuple[type[Exception], ...]:
    """Exception classes, or their dotted names (`requests.exceptions.Timeout`; built-in ones without dots)."""
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",") if name.strip()]
    items = [value] if isinstance(value, type) else value
    if not isinstance(items, Iterable) or isinstance(items, bytes | Mapping):
        raise ValueError(f"{type(value).__name__} is no list of error classes")
    return tuple(_error_class(item) for item in items)


def _error_class(item: object) -> type[Exception]:
    found = _named(item) if isinstance(item, str) else item
    if not isinstance(found, type):
        raise ValueError(f"{item!r} is not a class")
    if not issubclass(found, Exception):
        why = "never reaches a retry" if issubclass(found, BaseException) else "is no error class"
        raise ValueError(f"{found.__name__} {why}; only subclasses of Exception can be retried")
    return found


def _named(name: str) -> object:
    if "." not in name and hasattr(builtins, name):
        return getattr(builtins, name)
    parts = name.split(".")
    # The longest importable beginning is the module, the rest are names in it: pkg.module.Outer.Inner.
    for split in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:split])
        try:
            found: object = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
                continue
            raise ValueError(f"{name}: importing {module} failed: {error}") from None
        except Exception as error:
            raise ValueError(f"{name}: importing {module} failed: {type(error).__name__}: {error}") from None
        for part in parts[split:]:
            if not hasattr(found, part):
                raise ValueError(f"{name}: {module} has no {'.'.join(parts[split:])}")
            found = getattr(found, part)
        return found
    hint = "" if "." in name else f"; only built-in errors have no dots{_nearest_builtin(name)}"
    raise ValueError(f"{name} cannot be imported{hint}")


def _nearest_builtin(name: str) -> str:
    errors = [n for n, v in vars(builtins).items() if isinstance(v, type) and issubclass(v, Exception)]
    matches = difflib.get_close_matches(name, errors, n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


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


def check_security(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A login or certificate that the protocol would leave unused, or a login that it lacks."""
    options: Mapping[str, Any] = values.get("client_options") or {}

    def given(option: str) -> Any:
        typed = values.get(_SHORTCUTS[option])
        return options.get(option) if typed is None else typed

    for option, field in _SHORTCUTS.items():
        if option in options and values.get(field) is not None:
            yield field, f"it is in client_options too, as {option}; set it in one place"
    protocol, mechanism = given("security_protocol") or "PLAINTEXT", given("sasl_mechanism")
    encrypted, login = f"{protocol}".endswith("SSL"), f"{protocol}".startswith("SASL_")
    if login and mechanism is None:
        yield "sasl_mechanism", f"it is missing, and security_protocol {protocol} needs it"
    if not login and (mechanism or given("sasl_plain_username") or given("sasl_plain_password")):
        yield "security_protocol", f"{protocol} does not log in, but SASL settings are given; SASL_SSL does"
    if login and mechanism in _NEEDS_LOGIN:
        for option in ("sasl_plain_username", "sasl_plain_password"):
            if not given(option):
                yield _SHORTCUTS[option], f"it is missing, and sasl_mechanism {mechanism} needs it"
    if not encrypted and (given("ssl_cafile") or given("ssl_certfile") or given("ssl_keyfile")):
        yield "security_protocol", f"{protocol} does not encrypt, but certificates are given; SSL and SASL_SSL do"
    if given("ssl_keyfile") and not given("ssl_certfile"):
        yield "ssl_certfile", "it is missing, and ssl_keyfile is of no use without it"


def check_client_options(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names that no client knows, names that are not the user's to set, and deadlines that would break a promise."""
    if not options:
        return
    from kafetrain.client import kafka_python  # the client library is slow to import, and rarely needed here

    known: frozenset[str] = frozenset().union(*kafka_python.known_options().values())
    owned: Collection[str] = kafka_python.OWNED_OPTIONS
    for name in options:
        if name in owned:
            yield "client_options", f"{name} is set by kafetrain itself; leave it away"
        elif name not in known:
            yield "client_options", f"{name} is known to no kafka-python client{nearest(name, known - set(owned))}"
    yield from _check_deadlines(options, kafka_python.SESSION_TIMEOUT_MS, kafka_python.MAX_POLL_INTERVAL_MS)


def check_delivery(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What transactions need of other settings."""
    if values.get("delivery") != "transactional":
        return
    if (client := values.get("client")) not in (None, "kafka-python"):
        yield "delivery", f'it needs client="kafka-python", and client is {client!r}'
    timeout_ms = (values.get("client_options") or {}).get("transaction_timeout_ms", _TRANSACTION_TIMEOUT_MS)
    if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, int) or timeout_ms < 1000:
        yield "client_options", "transaction_timeout_ms must be a whole number of milliseconds, at least 1000"
        return
    least, restore = timedelta(milliseconds=timeout_ms) + _ABORTED_WITHIN, values.get("state_restore_timeout")
    if restore is not None and restore < least:
        yield (
            "state_restore_timeout",
            (
                f'it must be at least {least.total_seconds():g}s with delivery="transactional": for so long an open '
                f"transaction of an instance that died may hold up its successor"
            ),
        )


def _check_deadlines(options: Mapping[str, Any], session_ms: int, max_poll_ms: int) -> Iterator[tuple[str, str]]:
    wrong = False
    for name in ("delivery_timeout_ms", "session_timeout_ms", "max_poll_interval_ms", "request_timeout_ms"):
        value = options.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            wrong = True
            yield "client_options", f"{name} must be a whole number of milliseconds, at least 1"
    if wrong:
        return
    session = options.get("session_timeout_ms", session_ms)
    delivery = options.get("delivery_timeout_ms", session * 8 // 10)  # as the client derives it
    limits = {"session_timeout_ms": session, "max_poll_interval_ms": options.get("max_poll_interval_ms", max_poll_ms)}
    for name, limit in limits.items():
        if delivery >= limit:
            yield (
                "client_options",
                (
                    f"delivery_timeout_ms ({delivery}) must be below {name} ({limit}), or a late lock lands after the "
                    f"next owner of the partition has restored its locks"
                ),
            )
