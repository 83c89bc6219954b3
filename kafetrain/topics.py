"""Names of the three auxiliary topics, and where a source partition's records go in them.

Every topic name comes from here. Making and checking the topics themselves is `topic_setup.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kafetrain.errors import ConfigurationError

if TYPE_CHECKING:
    from kafetrain.settings import Settings

__all__ = ["MAX_NAME_LENGTH", "AuxiliaryTopics", "partition_for"]

MAX_NAME_LENGTH = 249
"""Kafka's own limit: the name and the partition number must fit into the name of a directory."""

_LEGAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


@dataclass(frozen=True)
class AuxiliaryTopics:
    """A source topic and its three auxiliary topics, by name."""

    source: str
    retry: str
    redirect: str
    dlq: str

    @classmethod
    def of(cls, settings: Settings, topic: str) -> AuxiliaryTopics:
        """The names that `settings` give to the topics of `topic`.

        Raises one `ConfigurationError` with every name that Kafka would refuse or that is taken twice, and the setting
        that it comes from.
        """
        prefixes = {
            "retry": settings.retry_topic_prefix,
            "redirect": settings.redirect_topic_prefix,
            "dlq": settings.dlq_topic_prefix,
        }
        names = {
            role: settings.topic_format.format(prefix=prefix, topic=topic, group=settings.group_id)
            for role, prefix in prefixes.items()
        }
        if reason := _illegal(topic):
            raise ConfigurationError(f"the source topic's name {_short(topic)} {reason}")
        problems = []
        for role, name in names.items():
            if reason := _illegal(name):
                origin = f"topic_format {settings.topic_format!r} and {role}_topic_prefix {prefixes[role]!r}"
                if "{group}" in settings.topic_format:
                    origin += f", with group_id {settings.group_id!r}"
                problems.append(f"the {role} topic's name {_short(name)} {reason}; it is made by {origin}")
        taken = {_folded(topic): "source"}
        for role, name in names.items():
            other = taken.setdefault(_folded(name), role)
            if other != role:
                problems.append(
                    f"the {role} topic {name!r} would be the {other} topic too (Kafka takes '.' and '_' for the same); "
                    f"change {role}_topic_prefix or topic_format"
                )
        if problems:
            raise ConfigurationError("\n".join(problems))
        return cls(topic, **names)

    @property
    def auxiliary(self) -> tuple[str, str, str]:
        """Retry, redirect and dead-letter topic, in this order."""
        return (self.retry, self.redirect, self.dlq)

    def role_of(self, name: str) -> str:
        """`source`, `retry`, `redirect` or `dlq`. Raises `KeyError` for another topic."""
        return {self.source: "source", self.retry: "retry", self.redirect: "redirect", self.dlq: "dlq"}[name]


def partition_for(source_partition: int, auxiliary_partitions: int, retry_topic_partitions: int = 0) -> int | None:
    """The partition of an auxiliary topic for the records of a source partition; no client's partitioner takes part.

    With an explicit `retry_topic_partitions` it is `p % n`. Without, it is `p` itself, and None where the topic has no
    such partition yet: the source topic has grown, and this partition must not be handled before the auxiliary
    topics have grown too. Sharing another's partition meanwhile would move its locks later.
    """
    if source_partition < 0 or auxiliary_partitions < 1:
        raise ValueError(f"no partition {source_partition} of {auxiliary_partitions}")
    if retry_topic_partitions == 0 and source_partition >= auxiliary_partitions:
        return None
    return source_partition % auxiliary_partitions


def _illegal(name: str) -> str | None:
    if not name:
        return "is empty"
    if name in (".", ".."):
        return "is not allowed by Kafka"
    if wrong := sorted(set(name) - _LEGAL):
        shown = " ".join(repr(char) for char in wrong[:5])
        return f"has {shown}, but Kafka allows only letters, digits, '.', '_' and '-'"
    if len(name) > MAX_NAME_LENGTH:
        return f"has {len(name)} characters, but Kafka allows {MAX_NAME_LENGTH}"
    return None


def _folded(name: str) -> str:
    # A broker refuses a topic whose name differs from another's only in these two: its metrics would share a name.
    return name.replace(".", "_")


def _short(name: str) -> str:
    return repr(name) if len(name) <= 80 else f"{name[:60]!r}..."
