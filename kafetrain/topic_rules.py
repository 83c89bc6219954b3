"""What the auxiliary topics must be like: the settings they are created with, and what is wrong with existing ones.

Pure: it decides from descriptions, and words the commands an operator would type. `topic_setup.py` does the asking
and the doing. An *error* would break a promise; a *warning* makes something slower, dearer or less durable.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kafetrain.client.ports import TopicDescription, TopicSpec
from kafetrain.settings import Settings
from kafetrain.topics import AuxiliaryTopics

__all__ = ["HEADER_ROOM", "TopicProblem", "TopicState", "commands_for", "find_problems", "spec_for", "without_wishes"]

HEADER_ROOM = 65_536
"""Bytes that a record may grow by on its way to the retry or dead-letter topic: our headers, errors included."""

_LARGEST_INT = 2**31 - 1

# A broker's default for bytes would expire locks just as one for time would.
_KEEP_ALL = {"retention.ms": "-1", "retention.bytes": "-1"}
# Small segments are a wish: only closed ones are compacted, but some providers refuse them.
_WISHES = {"segment.ms": "3600000", "segment.bytes": "33554432"}
# Both exceed the longest lag of a reader, so that none misses an entry or a tombstone.
_COMPACTION = {"min.compaction.lag.ms": "600000", "delete.retention.ms": "86400000"}


@dataclass(frozen=True)
class TopicState:
    """What the cluster said about a source topic and its auxiliary topics; absent is what does not exist.

    `unreadable` has the topics whose settings the cluster does not tell, and why; they are absent from `configs`.
    """

    names: AuxiliaryTopics
    described: Mapping[str, TopicDescription]
    configs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)

    @property
    def source(self) -> TopicDescription | None:
        return self.described.get(self.names.source)

    @property
    def missing(self) -> list[str]:
        return [name for name in self.names.auxiliary if name not in self.described]


@dataclass(frozen=True)
class TopicProblem:
    """One thing that is not as it should be. `command` puts it right, where one command can."""

    topic: str
    setting: str
    value: str
    needed: str
    reason: str
    is_warning: bool = False
    command: str | None = None
    configs: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        if self.setting == "topic":
            return f"{self.topic} {self.value}: {self.reason}"
        verb = "should" if self.is_warning else "must"
        return f"{self.topic}: {self.setting} is {self.value} and {verb} be {self.needed}: {self.reason}"

    def as_json(self) -> dict[str, Any]:
        return {
            "topic": self.topic,
            "setting": self.setting,
            "value": self.value,
            "needed": self.needed,
            "reason": self.reason,
            "level": "warning" if self.is_warning else "error",
            "command": self.command,
        }


def spec_for(name: str, state: TopicState, source: TopicDescription, settings: Settings) -> TopicSpec:
    """How an auxiliary topic is to be created."""
    configs = dict(_KEEP_ALL)
    if name == state.names.redirect:
        configs |= {"cleanup.policy": "compact,delete", **_COMPACTION, **_WISHES}
    else:
        configs["cleanup.policy"] = "delete"
        # Unknown: the broker's default, since a guess could be below it.
        if limit := _number(state, state.names.source, "max.message.bytes"):
            configs["max.message.bytes"] = str(_with_room(limit))
    partitions = settings.retry_topic_partitions or source.partitions
    return TopicSpec(name, partitions, settings.replication_factor, configs)


def without_wishes(spec: TopicSpec) -> TopicSpec | None:
    """The same topic without what a broker may refuse and kafetrain can do without; None: it has no such wish."""
    configs = {key: value for key, value in spec.configs.items() if key not in _WISHES}
    if len(configs) == len(spec.configs):
        return None
    return TopicSpec(spec.name, spec.partitions, spec.replication_factor, configs)


def find_problems(state: TopicState, settings: Settings) -> list[TopicProblem]:
    """Everything that is wrong, errors and warnings, topic by topic."""
    source = state.source
    if source is None:
        return [
            TopicProblem(
                state.names.source,
                "topic",
                "does not exist",
                "to exist",
                f"the cluster at {','.join(settings.bootstrap_servers)} does not have it, or this user may not "
                f"describe it. Check the name and bootstrap_servers, or create it first",
            )
        ]
    problems: list[TopicProblem] = []
    for name, why in state.unreadable.items():
        reason = f"the cluster does not tell its settings ({why})"
        problems.append(TopicProblem(name, "topic", "is not verified", "readable settings", reason, is_warning=True))
    for name in state.names.auxiliary:
        if name in state.described:
            problems += _of_partitions(state.described[name], source, settings)
            problems += _of_configs(name, state, settings)
            problems += _of_durability(state.described[name], source, state, settings)
        else:
            command = create_command(spec_for(name, state, source, settings), settings)
            reason = "it is needed beside the source topic"
            problems.append(TopicProblem(name, "topic", "does not exist", "to exist", reason, command=command))
    return problems


def _of_partitions(topic: TopicDescription, source: TopicDescription, settings: Settings) -> Iterator[TopicProblem]:
    fixed = settings.retry_topic_partitions
    if fixed and topic.partitions != fixed:
        yield TopicProblem(
            topic.name,
            "partitions",
            str(topic.partitions),
            str(fixed),
            f"the count never changes while keys are locked, since their locks would be looked for elsewhere. Set "
            f"retry_topic_partitions to {topic.partitions}; or, once no key is locked any more, delete the auxiliary "
            f"topics and have them created again",
        )
    if not fixed and topic.partitions < source.partitions:
        yield TopicProblem(
            topic.name,
            "partitions",
            str(topic.partitions),
            str(source.partitions),
            f"{source.name} has {source.partitions}, and each needs its partner of the same number",
            command=grow_command(topic.name, source.partitions, settings),
        )


def _of_configs(name: str, state: TopicState, settings: Settings) -> Iterator[TopicProblem]:
    actual = state.configs.get(name, {})
    cleanup = actual.get("cleanup.policy")
    policy = {part.strip() for part in (cleanup or "").split(",") if part.strip()}

    def problem(setting: str, needed: str, reason: str, *, is_warning: bool = False) -> TopicProblem:
        change = {setting: needed}
        command = alter_command(name, change, settings)
        shown = actual[setting] or "empty"
        return TopicProblem(name, setting, shown, needed, reason, is_warning, command, change)

    if name == state.names.redirect:
        if cleanup is not None and "compact" not in policy:
            why = "without compaction every start reads all locks that ever were"
            yield problem("cleanup.policy", "compact,delete", why)
        elif cleanup is not None and "delete" not in policy:
            why = "its beginning can only be purged with both"
            yield problem("cleanup.policy", "compact,delete", why, is_warning=True)
        for setting, least in _COMPACTION.items():
            value = _number(state, name, setting)
            if value is not None and value < int(least):
                why = "a reader that lags further than this misses a change of a lock"
                yield problem(setting, least, why, is_warning=True)
    elif "compact" in policy:
        yield problem("cleanup.policy", "delete", "compaction drops all records of a key but the last")
    # Without "delete" retention has no effect. It is said all the same, so that nobody adds "delete", as we advise, and
    # has the locks expire by that.
    is_idle = name == state.names.redirect and policy == {"compact"}
    for setting, needed in _KEEP_ALL.items():
        if actual.get(setting, needed) != needed:
            what = "locks" if name == state.names.redirect else "records"
            when = " as soon as cleanup.policy has delete" if is_idle else ""
            yield problem(setting, needed, f"{what} would expire{when}, and be lost", is_warning=is_idle)
    limit, source_limit = (_number(state, topic, "max.message.bytes") for topic in (name, state.names.source))
    if name != state.names.redirect and limit is not None and source_limit is not None:
        needed_limit = _with_room(source_limit)
        if limit < needed_limit:
            why = f"a record of up to {source_limit} bytes comes here with more headers than it had"
            yield problem("max.message.bytes", str(needed_limit), why, is_warning=True)


def _of_durability(
    topic: TopicDescription, source: TopicDescription, state: TopicState, settings: Settings
) -> Iterator[TopicProblem]:
    if topic.replication_factor < source.replication_factor:
        actual, needed = str(topic.replication_factor), str(source.replication_factor)
        why = f"it is less durable than {source.name} (kafka-reassign-partitions.sh changes it)"
        yield TopicProblem(topic.name, "replication factor", actual, needed, why, is_warning=True)
    setting = "min.insync.replicas"
    own, other = (_number(state, name, setting) for name in (topic.name, source.name))
    if own is not None and other is not None and own < other:
        change = {setting: str(other)}
        command = alter_command(topic.name, change, settings)
        why = f"a write counts as durable earlier than in {source.name}"
        yield TopicProblem(topic.name, setting, str(own), str(other), why, True, command, change)


def commands_for(problems: Iterable[TopicProblem], settings: Settings) -> list[str]:
    """The commands that put all of them right: as few as possible, each once."""
    commands: list[str] = []
    changes: dict[str, dict[str, str]] = {}
    for problem in problems:
        if problem.configs:
            changes.setdefault(problem.topic, {}).update(problem.configs)
        elif problem.command is not None:
            commands.append(problem.command)
    return commands + [alter_command(topic, change, settings) for topic, change in changes.items()]


def create_command(spec: TopicSpec, settings: Settings) -> str:
    words = _tool("kafka-topics.sh", settings) + ["--create", "--if-not-exists", "--topic", spec.name]
    words += ["--partitions", str(spec.partitions)]
    if spec.replication_factor != -1:
        words += ["--replication-factor", str(spec.replication_factor)]
    for key, value in spec.configs.items():
        words += ["--config", f"{key}={value}"]
    return shlex.join(words)


def grow_command(topic: str, partitions: int, settings: Settings) -> str:
    words = _tool("kafka-topics.sh", settings) + ["--alter", "--topic", topic, "--partitions", str(partitions)]
    return shlex.join(words)


def alter_command(topic: str, configs: Mapping[str, str], settings: Settings) -> str:
    # The tool takes a comma for the beginning of the next setting, unless the value is in brackets.
    pairs = [f"{key}=[{value}]" if "," in value else f"{key}={value}" for key, value in configs.items()]
    words = _tool("kafka-configs.sh", settings) + ["--alter", "--entity-type", "topics", "--entity-name", topic]
    return shlex.join([*words, "--add-config", ",".join(pairs)])


def _tool(name: str, settings: Settings) -> list[str]:
    words = [name, "--bootstrap-server", ",".join(settings.bootstrap_servers)]
    protocol = settings.security_protocol or settings.client_options.get("security_protocol") or "PLAINTEXT"
    return words if protocol == "PLAINTEXT" else [*words, "--command-config", "client.properties"]


def _with_room(limit: int) -> int:
    return min(limit + HEADER_ROOM, _LARGEST_INT)


def _number(state: TopicState, topic: str, setting: str) -> int | None:
    try:
        return int(state.configs[topic][setting])
    except (KeyError, TypeError, ValueError):
        return None
