"""Layer 2: running retries when they are due."""

from kafetrain.retry.manager import RetryManager

__all__ = ["RetryManager"]
