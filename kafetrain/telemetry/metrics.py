"""Metrics for Prometheus: how long handlers take and what comes of records, and how much waits.

`kafetrain_oldest_pending_seconds` is the one to alert on: it grows while a key cannot go on, whatever else happens. The
lag of the retry group says little, since everything behind the oldest record that waits counts, ended or not.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from kafetrain.errors import NotTrackedError
from kafetrain.outcome import Lock, Outcome
from kafetrain.record import Handler, Record, TopicPartition
from kafetrain.telemetry.outcomes import observe
from kafetrain.tracker import ErrorTracker

__all__ = ["HasTrackers", "Metrics"]

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_DID_NOT_RUN = frozenset(
    outcome.value for outcome in (Outcome.SIDELINED, Outcome.PARKED, Outcome.ALREADY_ENDED, Outcome.NOT_DUE)
)


class HasTrackers(Protocol):
    """An `App`, say."""

    @property
    def trackers(self) -> Sequence[ErrorTracker]: ...


class Metrics:
    """A middleware, to be put outermost, and gauges of what `watch` is given. Any thread.

    `registry`: prometheus-client's default one if not given; two objects need two of them. Exposing it is the
    application's: `prometheus_client.start_http_server(9100)`. Costs the healthy path several microseconds a record.
    """

    skips_successes = False

    def __init__(self, registry: CollectorRegistry = REGISTRY, *, buckets_s: Iterable[float] = BUCKETS_S) -> None:
        self._duration = Histogram(
            "kafetrain_handler_seconds",
            "How long the handler took, until its future was done where it returned one.",
            ["topic"],
            buckets=tuple(buckets_s),
            registry=registry,
        )
        self._records = Counter(
            "kafetrain_records_total", "Records, by what came of them.", ["topic", "outcome"], registry=registry
        )
        self._dead_letters = Counter(
            "kafetrain_dead_letters_total", "Records that were given up.", ["topic"], registry=registry
        )
        self._gauges = _Gauges()
        registry.register(self._gauges)

    def __call__(self, record: Record, call_next: Handler) -> object:
        topic, began = record.topic, time.perf_counter()

        def tell(outcome: str, error: BaseException | None) -> None:
            self._records.labels(topic, outcome).inc()
            if outcome not in _DID_NOT_RUN:
                self._duration.labels(topic).observe(time.perf_counter() - began)

        return observe(record, call_next, tell)

    def on_dead_letter(self, record: Record, error: BaseException) -> None:
        """Counts one. For the hook of that name, of a tracker, a `KafkaConsumer.resilient` or an `App`."""
        self._dead_letters.labels(record.topic).inc()

    def watch(self, *sources: ErrorTracker | HasTrackers) -> Metrics:
        """Gauges of these from now on: trackers, or an `App`, which has some while it runs. Returns itself."""
        self._gauges.sources += sources
        return self


class _Gauges(Collector):
    """Asked at each scrape: nothing is kept up to date in between."""

    def __init__(self) -> None:
        self.sources: tuple[ErrorTracker | HasTrackers, ...] = ()

    def describe(self) -> list[GaugeMetricFamily]:
        return list(self._families().values())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        families = self._families()
        for source in self.sources:
            for tracker in [source] if isinstance(source, ErrorTracker) else source.trackers:
                for (topic, partition), locks in _by_partition(tracker).items():
                    labels = [topic, str(partition)]
                    pending = [lock for lock in locks if lock.state != "dead"]
                    families["pending"].add_metric(labels, sum(lock.pending for lock in locks))
                    families["oldest"].add_metric(labels, _oldest_s(pending))
                    families["dead"].add_metric(labels, len(locks) - len(pending))
                for topic, orphans, malformed, seconds in _of_topics(tracker):
                    for place, count in malformed.items():
                        families["malformed"].add_metric([topic, place.topic, str(place.partition)], count)
                    for partition, took_s in seconds.items():
                        families["orphans"].add_metric([topic, str(partition)], orphans.get(partition, 0))
                        families["restore"].add_metric([topic, str(partition)], took_s)
        yield from families.values()

    @staticmethod
    def _families() -> dict[str, GaugeMetricFamily]:
        return {
            "pending": GaugeMetricFamily(
                "kafetrain_pending_locks", "Records that wait for their next run.", labels=["topic", "partition"]
            ),
            "oldest": GaugeMetricFamily(
                "kafetrain_oldest_pending_seconds",
                "Since the first failure of the record that has waited longest; 0: none waits.",
                labels=["topic", "partition"],
            ),
            "dead": GaugeMetricFamily(
                "kafetrain_dead_keys", "Keys that stand still until somebody decides.", labels=["topic", "partition"]
            ),
            "orphans": GaugeMetricFamily(
                "kafetrain_orphans",
                "Locks released since the start because their record can never arrive.",
                labels=["topic", "partition"],
            ),
            "malformed": GaugeMetricFamily(
                "kafetrain_malformed_records",
                "Records of the redirect and the retry topic, read since the start, that are damaged or nobody's.",
                labels=["topic", "log", "partition"],
            ),
            "restore": GaugeMetricFamily(
                "kafetrain_restore_seconds",
                "How long restoring the locks took, the last time.",
                labels=["topic", "partition"],
            ),
        }


def _by_partition(tracker: ErrorTracker) -> dict[tuple[str, int], list[Lock]]:
    """Of the partitions that this instance works on, also those without a lock."""
    found: dict[tuple[str, int], list[Lock]] = defaultdict(list)
    with tracker.state.mutex:
        places = list(tracker.state.source_claims)
        topics = list(tracker.state.topics)
    for place in places:
        found[place.topic, place.partition] = []
    for topic in topics:
        try:
            locks = tracker.locks(topic)
        except NotTrackedError:
            continue  # it was closed a moment ago
        for lock in locks:
            found[lock.topic, lock.partition].append(lock)
    return found


def _of_topics(
    tracker: ErrorTracker,
) -> Iterator[tuple[str, dict[int, int], dict[TopicPartition, int], dict[int, float]]]:
    with tracker.state.mutex:
        topics = list(tracker.state.topics)
    for topic in topics:
        try:
            yield topic, tracker.orphans(topic), tracker.malformed(topic), tracker.restore_seconds(topic)
        except NotTrackedError:
            continue  # it was closed a moment ago


def _oldest_s(locks: Iterable[Lock]) -> float:
    first = min((lock.first_failure for lock in locks if lock.first_failure is not None), default=None)
    return 0.0 if first is None else max(0.0, time.time() - first.timestamp())
