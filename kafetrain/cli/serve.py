"""`kafetrain serve`: run the retry service."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["serve"]


def serve(
    host: Annotated[str | None, typer.Option("--host", help="Where to listen; else HTTP_HOST, or 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Else HTTP_PORT, or 8080.")] = None,
    store: Annotated[
        str | None, typer.Option("--store", help="Else STORE_URL, or sqlite:///kafetrain.db.", metavar="URL")
    ] = None,
) -> None:
    """Run the retry service: tasks over HTTP, delivered to Kafka or webhooks with backoff.

    All settings are environment variables; `docs/` lists them. Ends on SIGTERM, within SHUTDOWN_TIMEOUT.
    """
    from kafetrain.service.extra import needs_extra

    with needs_extra():
        from kafetrain.service.server import serve as run
        from kafetrain.service.settings import ServiceSettings

    given = {"http_host": host, "http_port": port, "store_url": store}
    run(ServiceSettings(**{name: value for name, value in given.items() if value is not None}))
