"""Which handler a record goes to: by its topic's name, else by the first pattern that matches it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from fnmatch import translate
from typing import TypeAlias

from loguru import logger

from kafetrain.errors import ConfigurationError
from kafetrain.handlers import check_handler
from kafetrain.record import Handler, Record
from kafetrain.topics import MAX_NAME_LENGTH

__all__ = ["Router", "TopicSpec", "is_pattern", "matcher"]

TopicSpec: TypeAlias = "str | re.Pattern[str]"
"""A topic's name; a pattern with `*`, `?` or `[...]`, which no topic's name has; or a compiled regular expression."""


def is_pattern(topic: TopicSpec) -> bool:
    return isinstance(topic, re.Pattern) or any(char in topic for char in "*?[")


def matcher(pattern: TopicSpec) -> Callable[[str], bool]:
    """Does the whole name of a topic match?"""
    compiled = pattern if isinstance(pattern, re.Pattern) else re.compile(translate(pattern))
    return lambda name: compiled.fullmatch(name) is not None


class Router:
    """A handler made of others. A record of a topic that none is for is skipped, with one warning a topic.

    For `KafkaConsumer`; an `App` makes its own. Any thread.
    """

    def __init__(self, routes: Mapping[TopicSpec, Handler]) -> None:
        if not routes:
            raise ConfigurationError("a router without routes would skip every record: give it a topic and a handler")
        self._exact: dict[str, Handler] = {}
        self._patterns: list[tuple[Callable[[str], bool], Handler]] = []
        for topic, handler in routes.items():
            check_handler(handler)
            check_topic(topic)
            if is_pattern(topic):
                self._patterns.append((matcher(topic), handler))
            else:
                self._exact[str(topic)] = handler
        self._mutex = threading.Lock()  # guards _unknown
        self._unknown: set[str] = set()

    def __call__(self, record: Record) -> object:
        handler = self.handler_of(record.topic)
        if handler is not None:
            return handler(record)
        with self._mutex:
            is_new = record.topic not in self._unknown
            self._unknown.add(record.topic)
        if is_new:
            logger.bind(topic=record.topic).warning("no handler is for topic {}: its records are skipped", record.topic)
        return None

    def handler_of(self, topic: str) -> Handler | None:
        """An exact name before any pattern, patterns in the order in which they were given."""
        exact = self._exact.get(topic)
        if exact is not None:
            return exact
        return next((handler for matches, handler in self._patterns if matches(topic)), None)


def check_topic(topic: object) -> None:
    """Raises `ConfigurationError` for what can be no topic and no pattern."""
    if isinstance(topic, re.Pattern) or (isinstance(topic, str) and 0 < len(topic) <= MAX_NAME_LENGTH):
        return
    raise ConfigurationError(f"a topic is a name, a pattern such as 'orders-*', or a compiled one, not {topic!r:.80}")
