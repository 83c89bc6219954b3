"""Which webhooks may be called.

Names are looked up here, and the connection goes to the addresses that were checked: a name that changes its address
between check and connection gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from kafetrain.service.ports.destination import RefusedError

__all__ = ["CheckedResolver", "HostRules"]

HINT = "name its host in ALLOWED_HTTP_HOSTS to allow it"
NAT64 = ipaddress.ip_network("64:ff9b::/96")
NOT_FOR_WEBHOOKS = (
    ipaddress.ip_network("192.0.0.0/24"),  # of protocols; Oracle's metadata are there, and older Pythons call it global
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's metadata
    ipaddress.ip_network("fec0::/10"),  # site-local, long deprecated
)


class HostRules:
    """`allowed`: hosts whose addresses do not matter. `allow_loopback`: this machine's own addresses are fine."""

    def __init__(self, allowed: Iterable[str] = (), *, allow_loopback: bool = False) -> None:
        self._allowed = frozenset(host.strip("[]").rstrip(".").lower() for host in allowed)
        self._allow_loopback = allow_loopback

    def check_host(self, host: str) -> None:
        """Of a URL, before any look-up: raises `RefusedError` for an address that is forbidden as it stands."""
        host = host.strip("[]").rstrip(".").lower()
        if host in self._allowed:
            return
        if host == "localhost" or host.endswith(".localhost"):
            self.check_address(host, "127.0.0.1")
        # 127.1 and 2130706433 are addresses too, of a kind that only the old parser knows.
        try:
            address = socket.inet_ntoa(socket.inet_aton(host)) if ":" not in host else host
        except OSError:
            return
        self.check_address(host, address)

    def check_address(self, host: str, address: str) -> None:
        host = host.strip("[]").rstrip(".").lower()
        if host in self._allowed:
            return
        found = _embedded(ipaddress.ip_address(address.partition("%")[0]))
        if found.is_loopback and self._allow_loopback:
            return
        is_kept_apart = any(found in network for network in NOT_FOR_WEBHOOKS if network.version == found.version)
        if is_kept_apart or not found.is_global or found.is_multicast or found.is_reserved:
            raise RefusedError(f"{host} is or has a private, link-local or loopback address; {HINT}")


def _embedded(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address that an IPv6 one stands for, where it does."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if int(address) >> 32 == 0 and int(address) > 1:  # ::a.b.c.d, long deprecated
            return ipaddress.IPv4Address(int(address))
    return address


class CheckedResolver(AbstractResolver):
    """Gives the allowed addresses of a name; raises `RefusedError` where one of them is not."""

    def __init__(self, rules: HostRules, inner: AbstractResolver | None = None) -> None:
        self._rules = rules
        self._inner = ThreadedResolver() if inner is None else inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for one in found:
            self._rules.check_address(host, one["host"])
        return found

    async def close(self) -> None:
        await self._inner.close()
