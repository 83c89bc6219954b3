"""Tasks in Redis, for several processes."""

from kafetrain.service.adapters.redis.store import RedisStore

__all__ = ["RedisStore"]
