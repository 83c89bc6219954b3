"""The stores that come with the service, from its settings."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from kafetrain.errors import ConfigurationError
from kafetrain.service.ports.store import TaskStore
from kafetrain.service.settings import ServiceSettings

__all__ = ["redis_store", "sqlite_store"]


def sqlite_store(settings: ServiceSettings) -> TaskStore:
    """The entry point `sqlite`: `sqlite:///relative.db`, `sqlite:////absolute.db`."""
    from kafetrain.service.adapters.sqlite import SqliteStore

    parts = urlsplit(settings.store_url or "sqlite:///kafetrain.db")
    if parts.netloc or parts.path in ("", "/"):
        raise ConfigurationError("STORE_URL must be sqlite:///file or sqlite:////absolute/file")
    return SqliteStore(unquote(parts.path[1:]))


def redis_store(settings: ServiceSettings) -> TaskStore:
    """The entry points `redis` and `rediss`. `REDIS_ADDR`, `REDIS_PASSWORD` and `REDIS_DB` count before the URL."""
    try:
        from kafetrain.service.adapters.redis import RedisStore
        from kafetrain.service.adapters.redis.connect import RedisAddress
    except ImportError:
        raise ConfigurationError(
            "a Redis store needs the extra `redis`: pip install 'kafetrain[service,redis]'"
        ) from None
    try:
        parts = urlsplit(settings.store_url or "redis://")
        hosts = tuple(parts.netloc.rpartition("@")[2].split(",")) if parts.netloc else ()
        db = int(parts.path.strip("/") or 0)
    except ValueError:
        raise ConfigurationError("STORE_URL must be redis://[user:password@]host:port[,host:port][/db]") from None
    user, colon, password = parts.netloc.rpartition("@")[0].partition(":")
    chosen = settings.redis_password
    return RedisStore(
        RedisAddress(
            hosts=settings.redis_addr or hosts or ("localhost:6379",),
            username=unquote(user) or None,
            password=(unquote(password) if colon else None) if chosen is None else chosen.get_secret_value(),
            db=db if settings.redis_db is None else settings.redis_db,
            pool_size=settings.redis_pool_size,
            sentinel_master=settings.redis_sentinel_master,
            is_cluster=settings.redis_cluster,
            is_tls=parts.scheme == "rediss",
        )
    )
