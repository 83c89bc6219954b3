"""What can keep an app from working, looked for one after the other, each with what to do about it.

Nothing is changed, no group is joined. `examine` yields as it goes, so that a look that takes long shows what was found
before it.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from kafetrain.client.kafka_python_cluster import ClusterDescription
from kafetrain.client.ports import AdminPort, ClientError
from kafetrain.record import TopicPartition
from kafetrain.settings import Settings
from kafetrain.topic_setup import verify_topics
from kafetrain.topics import AuxiliaryTopics

__all__ = ["FINE", "WARNING", "WRONG", "Cluster", "Finding", "examine"]

FINE, WARNING, WRONG = "fine", "warning", "wrong"


class Cluster(Protocol):
    """What is asked. Every answer may be a `ClientError` instead."""

    def unreachable(self, address: str) -> str | None: ...
    def describe(self) -> ClusterDescription: ...
    def topic_operations(self, topics: Collection[str]) -> Mapping[str, frozenset[str] | None]: ...
    def group_operations(self, groups: Collection[str]) -> Mapping[str, frozenset[str] | None]: ...
    def admin(self) -> AdminPort: ...


@dataclass(frozen=True)
class Finding:
    """`level` is FINE, WARNING (it works, but) or WRONG."""

    about: str
    level: str
    text: str


@dataclass(frozen=True)
class _Allowed:
    """What this user may do, by name; None: the brokers do not tell. Topics that do not exist are absent."""

    topics: Mapping[str, frozenset[str] | None]
    groups: Mapping[str, frozenset[str] | None]

    def hides(self, topic: str) -> bool:
        operations = self.topics.get(topic)
        return operations is not None and "DESCRIBE" not in operations

    def hides_offsets(self, group: str) -> bool:
        return self.groups.get(group) == frozenset()


def examine(cluster: Cluster, settings: Settings, topics: Sequence[str]) -> Iterator[Finding]:
    """Brokers, versions, topics, permissions, lag. Raises `ConfigurationError` for names that cannot be topics."""
    names = [AuxiliaryTopics.of(settings, topic) for topic in topics]
    yield from _versions()
    reachable = False
    for address in settings.bootstrap_servers:
        why = cluster.unreachable(address)
        reachable = reachable or why is None
        yield (
            Finding("brokers", FINE, f"{address} accepts connections")
            if why is None
            else Finding(
                "brokers", WARNING, f"{address}: {why}. Is the address right, and does a firewall let it through?"
            )
        )
    if not reachable:
        yield Finding("brokers", WRONG, "no broker can be reached, so nothing else can be looked at")
        return
    try:
        described = cluster.describe()
        yield from _brokers(cluster, described, settings)
        allowed = _Allowed(
            cluster.topic_operations([name for topic in names for name in (topic.source, *topic.auxiliary)]),
            cluster.group_operations((settings.group_id, settings.retry_group_id)),
        )
        admin = cluster.admin()
        try:
            for topic in names:
                yield from _topic(admin, settings, topic, allowed)
            yield from _permissions(allowed, described, settings, names)
            for topic in names:
                yield from _lag(admin, settings, topic, allowed)
        finally:
            admin.close()
    except ClientError as error:
        yield Finding("brokers", WRONG, str(error))
        return
    if not names:
        yield Finding(
            "topics", WARNING, "no topic is configured, so none was looked at: name them, or set KAFKA_TOPICS"
        )


def _versions() -> Iterator[Finding]:
    installed = []
    for package in ("kafetrain", "kafka-python"):
        try:
            installed.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            installed.append(f"{package} (not installed, run from its sources)")
    yield Finding("versions", FINE, ", ".join([*installed, f"Python {platform.python_version()}"]))


def _brokers(cluster: Cluster, described: ClusterDescription, settings: Settings) -> Iterator[Finding]:
    count = len(described.brokers)
    yield Finding(
        "brokers",
        FINE,
        f"{count} broker{'s' * (count != 1)}, controller {described.controller}, protocol of Kafka {described.version}",
    )
    # A broker answers at the address one has, and then names another one: the most frequent of all mistakes.
    for number, address in sorted(described.brokers.items()):
        if address not in settings.bootstrap_servers and (why := cluster.unreachable(address)) is not None:
            yield Finding(
                "brokers",
                WRONG,
                f"broker {number} tells clients to use {address}, which cannot be reached: {why}. Set its "
                f"advertised.listeners to an address that works from here",
            )


def _topic(admin: AdminPort, settings: Settings, names: AuxiliaryTopics, allowed: _Allowed) -> Iterator[Finding]:
    if hidden := [name for name in (names.source, *names.auxiliary) if allowed.hides(name)]:
        text = f"{names.source} was not looked at: this user may not Describe {', '.join(hidden)}"
        yield Finding("topics", WARNING, text)
        return
    described = admin.describe_topics([names.source, *names.auxiliary])
    source = described.get(names.source)
    if source is None:
        yield Finding("topics", WRONG, f"{names.source} does not exist")
        return
    yield Finding("topics", FINE, f"{names.source} has {source.partitions} partitions")
    missing = [name for name in names.auxiliary if name not in described]
    if missing and settings.auto_create_topics:
        yield Finding("topics", FINE, f"{', '.join(missing)} will be created at the first start")
    for problem in verify_topics(admin, settings, names.source):
        if problem.topic in missing and settings.auto_create_topics:
            continue
        command = f". Put it right with: {problem.command}" if problem.command else ""
        yield Finding("topics", WARNING if problem.is_warning else WRONG, f"{problem}{command}")


def _permissions(
    allowed: _Allowed, described: ClusterDescription, settings: Settings, names: Sequence[AuxiliaryTopics]
) -> Iterator[Finding]:
    needed: dict[str, tuple[str, ...]] = {}
    for topic in names:
        needed[topic.source] = ("READ", "DESCRIBE")
        needed[topic.retry] = needed[topic.redirect] = ("READ", "WRITE", "DESCRIBE")
        needed[topic.dlq] = ("WRITE", "DESCRIBE")
    purged = {name for topic in names for name in (topic.retry, topic.redirect)}
    found: list[Finding] = []
    for name, operations in needed.items():
        told = allowed.topics.get(name)
        found += _lacking(f"topic {name}", operations, told)
        if not allowed.hides(name):
            found += _lacking(f"topic {name}", ("DESCRIBE_CONFIGS",), told, "it cannot be verified", WARNING)
            if name in purged:
                found += _lacking(f"topic {name}", ("DELETE",), told, "what is done is not purged", WARNING)
    for name in (settings.group_id, settings.retry_group_id):
        found += _lacking(f"group {name}", ("READ", "DESCRIBE"), allowed.groups.get(name))
    if settings.auto_create_topics and needed.keys() - allowed.topics.keys():
        so = "missing topics cannot be created, unless it may Create those of their names"
        found += _lacking("the cluster", ("CREATE",), described.operations, so, WARNING)
    yield from found or [Finding("permissions", FINE, "nothing that is needed is forbidden, as far as brokers tell")]


def _lacking(
    what: str, needed: Collection[str], allowed: frozenset[str] | None, so: str = "", level: str = WRONG
) -> list[Finding]:
    """Nothing where the brokers do not tell."""
    if allowed is None:
        return []
    missing = [name.replace("_", " ").title().replace(" ", "") for name in needed if name not in allowed]
    text = f"this user may not {' and '.join(missing)} on {what}{f': {so}' if so else ''}"
    return [Finding("permissions", level, text)] if missing else []


def _lag(admin: AdminPort, settings: Settings, names: AuxiliaryTopics, allowed: _Allowed) -> Iterator[Finding]:
    described = admin.describe_topics([name for name in (names.source, names.retry) if not allowed.hides(name)])
    for group, topic in ((settings.group_id, names.source), (settings.retry_group_id, names.retry)):
        if topic not in described or allowed.hides_offsets(group):
            continue
        places = [TopicPartition(topic, number) for number in range(described[topic].partitions)]
        committed, ends = admin.committed(group, places), admin.end_offsets(places)
        if not committed:
            yield Finding("lag", FINE, f"group {group} has committed nothing of {topic} yet")
            continue
        lags = {place: max(0, ends[place] - at.next_offset) for place, at in committed.items()}
        worst = max(lags, key=lambda place: lags[place])
        note = ", whatever of it has ended" if topic == names.retry else ""
        total = sum(lags.values())
        text = f"group {group} is {total} record{'s' * (total != 1)} behind in {topic}{note}"
        if lags[worst]:
            text += f", {lags[worst]} of them in partition {worst.partition}"
        yield Finding("lag", FINE, text)
