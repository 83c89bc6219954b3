"""Which webhooks may be called, by what they are and by what their names stand for."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from kafetrain.service.adapters.http_guard import CheckedResolver, HostRules
from kafetrain.service.ports.destination import RefusedError

FORBIDDEN = [
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "224.0.0.1",
    "[fe80::1]",
    "[fd00::1]",
    "[::]",
    "[::ffff:10.0.0.1]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::1]",
    "[::10.0.0.1]",
    "[fec0::1]",
    "[64:ff9b:1::a9fe:a9fe]",
    "168.63.129.16",
    "192.0.0.192",
    "0251.0376.0251.0376",
    "10.0.0.1.",
    "2852039166",
    "0xa9fea9fe",
    "10.1",
]
LOOPBACK = ["127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST.", "a.localhost", "[::1]", "[::ffff:127.0.0.1]", "127.1"]


@pytest.mark.parametrize("host", FORBIDDEN)
def test_private_addresses_are_refused_however_they_are_written(host: str) -> None:
    for rules in (HostRules(), HostRules(allow_loopback=True)):
        with pytest.raises(RefusedError, match="ALLOWED_HTTP_HOSTS"):
            rules.check_host(host)
    HostRules([host]).check_host(host)


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_is_for_development(host: str) -> None:
    with pytest.raises(RefusedError):
        HostRules().check_host(host)
    HostRules(allow_loopback=True).check_host(host)


@pytest.mark.parametrize("host", ["example.com", "8.8.8.8", "[2606:4700::1]", "metadata.internal"])
def test_public_addresses_and_names_are_fine_before_they_are_looked_up(host: str) -> None:
    HostRules().check_host(host)


class Names(AbstractResolver):
    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=one, port=port, family=family, proto=0, flags=0)
            for one in self._addresses
        ]

    async def close(self) -> None: ...


@pytest.mark.parametrize("addresses", [("10.0.0.1",), ("8.8.8.8", "169.254.169.254"), ("fe80::1%eth0",)])
def test_a_name_with_a_private_address_is_refused(addresses: tuple[str, ...]) -> None:
    with pytest.raises(RefusedError, match=r"^rebound.example .* ALLOWED_HTTP_HOSTS"):
        asyncio.run(CheckedResolver(HostRules(), Names(*addresses)).resolve("rebound.example"))


def test_a_name_that_is_allowed_may_have_any_address() -> None:
    resolver = CheckedResolver(HostRules(["Hooks.internal"]), Names("10.0.0.1"))
    assert [one["host"] for one in asyncio.run(resolver.resolve("hooks.internal"))] == ["10.0.0.1"]


def test_the_connection_goes_to_what_was_checked() -> None:
    """A name of its own with a public address is looked up once, and what was found is what is connected to."""
    found = asyncio.run(CheckedResolver(HostRules(), Names("8.8.8.8")).resolve("fine.example", 443))
    assert [(one["host"], one["port"]) for one in found] == [("8.8.8.8", 443)]
