"""`kafetrain serve`: the process."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys

import uvicorn
from prometheus_client import disable_created_metrics

from kafetrain.errors import KafetrainError
from kafetrain.service.adapters.web.protocol import ServiceProtocol
from kafetrain.service.application.service import RetryService
from kafetrain.service.logs import set_up_logs
from kafetrain.service.settings import ServiceSettings
from kafetrain.service.wiring import wire

__all__ = ["serve"]

OBJECTS_UNTIL_COLLECTED = 50_000

SWITCH_INTERVAL_S = 0.001
"""How long the event loop may keep a thread of a store or of Kafka waiting; Python's own 5 ms make them crawl."""


def serve(settings: ServiceSettings) -> None:
    """Run until SIGTERM or SIGINT. Raises `ConfigurationError` or `StoreError` where it cannot start."""
    set_up_logs(settings)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types; names like ..._created_created
    app, service = wire(settings)
    asyncio.run(_probe(settings))
    config = uvicorn.Config(
        app,
        host=settings.http_host,
        port=settings.http_port,
        http=ServiceProtocol,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, int(settings.shutdown_timeout.total_seconds())),
        backlog=2048,
    )
    server = _Server(config, service, settings.shutdown_timeout.total_seconds())
    # Outside of the server's own time this ends the process; after it the server raises what it was ended with again.
    signal.signal(signal.SIGTERM, _end)
    _quiet_the_collector()
    try:
        server.run()
    except _EndedError:
        return
    except SystemExit as error:
        raise KafetrainError(
            f"cannot listen on {settings.http_host}:{settings.http_port}; is another program there? HTTP_PORT and "
            "HTTP_HOST set where"
        ) from error
    if not server.started:
        raise KafetrainError("the service could not start; the log says why")


class _Server(uvicorn.Server):
    """Open requests and deliveries have the same time to end, not one after the other."""

    def __init__(self, config: uvicorn.Config, service: RetryService, grace_s: float) -> None:
        super().__init__(config)
        self._service, self._grace_s = service, grace_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.stop_delivering(self._grace_s)
        await super().shutdown(sockets)


class _EndedError(BaseException):
    """SIGTERM."""


def _end(number: int, frame: object) -> None:
    raise _EndedError


def _quiet_the_collector() -> None:
    """Tasks that wait for their delivery are many and no garbage: looking through them all the time took a tenth."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_UNTIL_COLLECTED, 20, 50)


async def _probe(settings: ServiceSettings) -> None:
    """Open the store once, so that what is wrong with it is one sentence and not a failed start-up."""
    from kafetrain.service.plugins import make_store

    store = make_store(settings)
    try:
        await store.open()
    finally:
        await store.close()
