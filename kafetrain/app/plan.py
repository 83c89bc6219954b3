"""From handlers to consumers: which topics each handler serves, and which handlers share a consumer.

Handlers with the same settings share one, so an app with ten of them has one member in its group and not ten. Those
with settings of their own have a consumer of their own, in the same group.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from loguru import logger

from kafetrain.app.router import TopicSpec, is_pattern, matcher
from kafetrain.errors import ConfigurationError
from kafetrain.record import Handler, Middleware
from kafetrain.settings import Settings
from kafetrain.topics import AuxiliaryTopics

__all__ = ["Planned", "Route", "plan"]


@dataclass(frozen=True)
class Route:
    """A handler as it was registered."""

    name: str
    handler: Handler
    topics: tuple[TopicSpec, ...]
    """None: those that are configured."""
    settings: Settings
    retry: bool
    middlewares: tuple[Middleware, ...]


@dataclass
class Planned:
    """One consumer."""

    settings: Settings
    retry: bool
    middlewares: tuple[Middleware, ...]
    handlers: dict[str, Handler] = field(default_factory=dict)
    """By topic."""

    def fits(self, route: Route) -> bool:
        return (self.retry, self.middlewares, self.settings) == (route.retry, route.middlewares, route.settings)


def plan(routes: Sequence[Route], configured: Sequence[str], existing: Callable[[], Collection[str]]) -> list[Planned]:
    """The consumers. `configured`: topics that are to be served. `existing`: asks the cluster for its topics.

    An exact name comes before a pattern, and a pattern before a handler of the configured topics. Raises
    `ConfigurationError` where there is nothing to consume.
    """
    if not routes:
        raise ConfigurationError("the app has no handler: write @app.handler(...) above a function")
    served: dict[str, Route] = {}
    for route in routes:
        served.update({f"{topic}": route for topic in route.topics if not is_pattern(topic)})
    patterned = [(topic, route) for route in routes for topic in route.topics if is_pattern(topic)]
    if patterned:
        candidates = [*configured, *_without_auxiliaries(existing(), patterned[0][1].settings)]
        for topic, route in patterned:
            matches = matcher(topic)
            served.update({name: route for name in candidates if name not in served and matches(name)})
    _serve_configured(routes, configured, served)
    if not served:
        raise ConfigurationError(f"no topic of the cluster matches {', '.join(_text(topic) for topic, _ in patterned)}")
    return _grouped(routes, served)


def _serve_configured(routes: Sequence[Route], configured: Iterable[str], served: dict[str, Route]) -> None:
    rest = [topic for topic in configured if topic not in served]
    (general, *_) = [route for route in routes if not route.topics] or (None,)
    if general is None:
        for topic in rest:
            logger.bind(topic=topic).warning("no handler is for topic {}: its records are skipped", topic)
    elif not rest:
        raise ConfigurationError(
            f"handler {general.name} serves the configured topics, and none is left for it: set topics (KAFKA_TOPICS), "
            f"or name them in @app.handler(...)"
        )
    else:
        served.update(dict.fromkeys(rest, general))


def _grouped(routes: Sequence[Route], served: dict[str, Route]) -> list[Planned]:
    consumers: list[Planned] = []
    for route in routes:
        topics = [topic for topic, server in served.items() if server is route]
        if not topics:
            logger.warning("handler {} matches no topic, and is not called", route.name)
            continue
        for consumer in consumers:
            if consumer.fits(route):
                break
        else:
            consumer = Planned(route.settings, route.retry, route.middlewares)
            consumers.append(consumer)
        consumer.handlers.update(dict.fromkeys(topics, route.handler))
    return consumers


def _without_auxiliaries(names: Collection[str], settings: Settings) -> list[str]:
    """Without the retry, redirect and dead-letter topics of the others: `orders-*` is not to mean those."""
    auxiliary: set[str] = set()
    for name in names:
        try:
            auxiliary.update(AuxiliaryTopics.of(settings, name).auxiliary)
        except ConfigurationError:
            continue  # a name too long to have any
    return sorted(set(names) - auxiliary)


def _text(topic: TopicSpec) -> str:
    return topic if isinstance(topic, str) else topic.pattern
