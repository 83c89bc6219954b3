"""kafetrain: retries that keep the order of each key, never block the partition, and need nothing but Kafka.

    Layer 3  KafkaConsumer   poll loop, key-ordered workers, middleware
    Layer 2  RetryManager    runs retries when they are due
    Layer 1  ErrorTracker    which keys are in retry

Silent until the application calls `loguru.logger.enable("kafetrain")`.
"""

from loguru import logger as _logger

from kafetrain.app import App
from kafetrain.backoff_policy import ConstantBackoff, ExponentialBackoff, LinearBackoff
from kafetrain.breaker import Breaker
from kafetrain.consumer import ErrorHandlingMiddleware, KafkaConsumer, LoggingMiddleware
from kafetrain.errors import (
    ConfigurationError,
    KafetrainError,
    NotRetriableError,
    NotTrackedError,
    Pause,
    RetriableError,
)
from kafetrain.outcome import Lock, Outcome
from kafetrain.record import (
    Handler,
    Middleware,
    Record,
    as_record,
    get_original_topic,
    get_retry_attempt,
    get_retry_reason,
    is_retry_message,
    json_of,
    text_of,
)
from kafetrain.retriable import is_retriable
from kafetrain.retry import RetryManager
from kafetrain.settings import Settings
from kafetrain.tracker import ErrorTracker

__all__ = [
    "App",
    "Breaker",
    "ConfigurationError",
    "ConstantBackoff",
    "ErrorHandlingMiddleware",
    "ErrorTracker",
    "ExponentialBackoff",
    "Handler",
    "KafetrainError",
    "KafkaConsumer",
    "LinearBackoff",
    "Lock",
    "LoggingMiddleware",
    "Middleware",
    "NotRetriableError",
    "NotTrackedError",
    "Outcome",
    "Pause",
    "Record",
    "RetriableError",
    "RetryManager",
    "Settings",
    "as_record",
    "get_original_topic",
    "get_retry_attempt",
    "get_retry_reason",
    "is_retriable",
    "is_retry_message",
    "json_of",
    "text_of",
]

_logger.disable("kafetrain")
