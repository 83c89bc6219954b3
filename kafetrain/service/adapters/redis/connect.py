"""A client for one server, for the master that Sentinels name, or for a cluster.

TLS is checked against the certificates that the system trusts, or those of `SSL_CERT_FILE`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialBackoff

__all__ = ["RedisAddress", "connect"]

TIMEOUT_S = 5.0
SENTINEL_PORT = 26379


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """`hosts`: `host:port`, several of Sentinels or of a cluster."""

    hosts: tuple[str, ...] = ("localhost:6379",)
    username: str | None = None
    password: str | None = None
    db: int = 0
    pool_size: int = 100
    sentinel_master: str | None = None
    is_cluster: bool = False
    is_tls: bool = False

    def __str__(self) -> str:
        return ",".join(self.hosts)  # never the password

    def __repr__(self) -> str:
        return f"RedisAddress({self})"


def connect(address: RedisAddress) -> Any:
    """A client that has not connected yet. One lost connection is tried again at once."""
    common: dict[str, Any] = {
        "username": address.username,
        "password": address.password,
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "socket_keepalive": True,
        "decode_responses": True,
    }
    if address.is_tls:
        common |= {"ssl": True, "ssl_check_hostname": True}
    if address.is_cluster:
        nodes = [ClusterNode(*_host_and_port(one, 6379)) for one in address.hosts]
        return RedisCluster(startup_nodes=nodes, max_connections=address.pool_size, **common)
    common |= {"db": address.db, "max_connections": address.pool_size, "retry": Retry(ExponentialBackoff(), 1)}
    if address.sentinel_master:
        sentinels = [_host_and_port(one, SENTINEL_PORT) for one in address.hosts]
        watch: Any = Sentinel(sentinels, socket_timeout=TIMEOUT_S)  # type: ignore[no-untyped-call]  # it has no types
        return watch.master_for(address.sentinel_master, **common)
    host, port = _host_and_port(address.hosts[0], 6379)
    return Redis(host=host, port=port, **common)


def _host_and_port(text: str, default: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return text.strip("[]"), default
    return host.strip("[]"), int(port)
