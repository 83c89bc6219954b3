"""Why a first connection failed, in words that name the setting; and which failures no second try can mend."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from kafka import errors as kafka_errors

from kafetrain.client.kafka_python_errors import AUTH_ERRORS
from kafetrain.client.ports import ClientError
from kafetrain.errors import first_line

__all__ = ["check_files", "explained", "is_final"]

_NOT_TRUSTED = "CERTIFICATE_VERIFY_FAILED"
_ALERT = "_ALERT_"
_TLS_ALERT = f"{0x15030300}"
_HUNG_UP = ("socket disconnected", "Handshake failed", "Unable to bootstrap")


def check_files(options: Mapping[str, Any]) -> None:
    """Raise `ClientError` for a file of certificates that cannot be read; the library's error does not name it."""
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile"):
        if path := options.get(name):
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise ClientError(f"{name}: {path} cannot be read: {error.strerror}") from error


def is_final(failure: BaseException | None) -> bool:
    """Whether the broker, or we, would say the same again: a login or a certificate was refused."""
    if isinstance(failure, kafka_errors.KafkaConnectionError):
        return _NOT_TRUSTED in str(failure) or _ALERT in str(failure)
    return isinstance(failure, (*AUTH_ERRORS, ssl.SSLError)) or _speaks_tls(failure)


def _speaks_tls(failure: BaseException | None) -> bool:
    # What TLS answers to a request in plain text, taken for the length of a response.
    return isinstance(failure, kafka_errors.InvalidReceiveError) and _TLS_ALERT in str(failure)


def explained(failure: BaseException, options: Mapping[str, Any]) -> BaseException:
    """`failure` with the setting to look at, where that can be told; else `failure` itself."""
    unchanged, text = failure, str(failure)
    protocol, servers = options.get("security_protocol", "PLAINTEXT"), ",".join(options["bootstrap_servers"])
    if isinstance(failure, ssl.SSLError):
        return ClientError(f"ssl_cafile, ssl_certfile or ssl_keyfile cannot be used: {first_line(failure)}")
    if not isinstance(failure, kafka_errors.KafkaError):
        return failure
    if _speaks_tls(failure):
        return ClientError(
            f"Kafka at {servers} speaks TLS there, and security_protocol is {protocol}; use SSL or SASL_SSL"
        )
    if _NOT_TRUSTED in text:
        return ClientError(
            f"the certificate of Kafka at {servers} is not trusted; check ssl_cafile, and whether the certificate "
            f"names this host: {text}"
        )
    if _ALERT in text:
        return ClientError(f"Kafka at {servers} refused our certificate; check ssl_certfile and ssl_keyfile: {text}")
    if isinstance(failure, kafka_errors.RequestTimedOutError) or any(sign in text for sign in _HUNG_UP):
        hint = f"{text}. Does this listener speak {protocol}? Check security_protocol"
        return ClientError(f"could not connect to Kafka at {servers}: {hint}", retriable=True)
    return unchanged
