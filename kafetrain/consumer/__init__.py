"""Layer 3: the poll loop, key-ordered workers, middleware."""

from kafetrain.consumer.consumer import KafkaConsumer
from kafetrain.consumer.middleware import ErrorHandlingMiddleware, LoggingMiddleware
from kafetrain.consumer.resilient import ResilientConsumer

__all__ = ["ErrorHandlingMiddleware", "KafkaConsumer", "LoggingMiddleware", "ResilientConsumer"]
