"""Creating, growing and verifying the auxiliary topics of a source topic.

Several instances do this at the same moment, whenever an application starts. Nothing here relies on being the only
one: what another has created or grown meanwhile is fine, and what counts is what the cluster says afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from loguru import logger

from kafetrain.client.ports import AdminPort, ClientError, TopicDescription, TopicSpec
from kafetrain.clock import Clock, SystemClock
from kafetrain.errors import ConfigurationError, TransientError, first_line
from kafetrain.record import TopicPartition
from kafetrain.settings import Settings
from kafetrain.topic_rules import TopicProblem, TopicState, commands_for, find_problems, spec_for, without_wishes
from kafetrain.topics import AuxiliaryTopics, partition_for

__all__ = ["PreparedTopics", "prepare_topics", "verify_topics"]

_PATIENCE = timedelta(seconds=30)
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class PreparedTopics:
    """The topics of a source topic, as they were when they were found to be good."""

    names: AuxiliaryTopics
    source_partitions: int
    partitions: Mapping[str, int]
    """Partition counts of the auxiliary topics, by name."""
    topic_id: str
    """The source topic's; empty where the broker does not tell. A topic that was created again has another one."""
    retry_topic_partitions: int = 0
    created: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def partition_for(self, source_partition: int) -> int | None:
        """The partition for a source partition's records, the same in all auxiliary topics; None while they lack it."""
        return partition_for(source_partition, self.width, self.retry_topic_partitions)

    @cached_property
    def width(self) -> int:
        """How many partitions all auxiliary topics have."""
        return min(self.partitions.values())

    def redirect_for(self, source_partition: int) -> TopicPartition | None:
        """The redirect partition with the locks of a source partition; None while it has no partner there."""
        found = self._redirects.get(source_partition)
        if found is None and (number := self.partition_for(source_partition)) is not None:
            found = self._redirects[source_partition] = TopicPartition(self.names.redirect, number)
        return found

    @cached_property
    def _redirects(self) -> dict[int, TopicPartition]:
        return {}  # asked for with every write


def prepare_topics(
    admin: AdminPort,
    settings: Settings,
    topic: str,
    *,
    clock: Clock | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> PreparedTopics:
    """Make sure that the auxiliary topics of `topic` exist and keep the promises.

    Effect: with `auto_create_topics`, missing ones are created and short ones grown; on return all of them are
        visible. What else is wrong is never changed. Warnings are logged, and returned.
    Raises: `ConfigurationError` for a source topic that does not exist, and for everything at once that would break a
        promise, with the commands that put it right; nothing has been changed then, unless a creation was refused.
        `TransientError` when the cluster does not answer, or does not show what was created, for half a minute.
    Threads: any; other instances may do the same at the same time.
    """
    setup = _Setup(admin, settings, AuxiliaryTopics.of(settings, topic), clock or SystemClock(), wait)
    return setup.run()


def verify_topics(admin: AdminPort, settings: Settings, topic: str) -> list[TopicProblem]:
    """Everything that is wrong with the topics of `topic`, warnings included; changes nothing.

    Raises `ConfigurationError` for names that cannot be, and the client's `ClientError`.
    """
    return find_problems(_look(admin, AuxiliaryTopics.of(settings, topic)), settings)


class _Setup:
    def __init__(
        self, admin: AdminPort, settings: Settings, names: AuxiliaryTopics, clock: Clock, wait: Callable[[float], None]
    ) -> None:
        self._admin, self._settings, self._names = admin, settings, names
        self._clock, self._wait = clock, wait
        self._warnings: list[str] = []

    def run(self) -> PreparedTopics:
        state = self._look_until("the topics are described", lambda state: True)
        if state.source is None:
            raise ConfigurationError(str(find_problems(state, self._settings)[0]))
        self._refuse_errors(state, ours=self._can_mend)
        created = state.missing
        for name in created:
            self._create(spec_for(name, state, state.source, self._settings))
        if created:
            told = not state.unreadable
            # A broker that has not heard of them yet tells no settings either.
            state = self._look_until(
                f"{', '.join(created)} can be seen",
                lambda state: not state.missing and not (told and state.unreadable),
            )
        short = [p for p in find_problems(state, self._settings) if p.setting == "partitions" and self._can_mend(p)]
        for problem in short:
            self._grow(problem.topic, int(problem.needed))
        state = self._look_until("the topics are complete", self._is_mended)
        self._refuse_errors(state, ours=lambda problem: False)
        return self._result(state, created)

    def _can_mend(self, problem: TopicProblem) -> bool:
        """True for what creating and growing will put right."""
        is_ours = problem.setting in ("topic", "partitions") and problem.command is not None
        return is_ours and not problem.is_warning and self._settings.auto_create_topics

    def _is_mended(self, state: TopicState) -> bool:
        return state.source is not None and not any(map(self._can_mend, find_problems(state, self._settings)))

    def _refuse_errors(self, state: TopicState, ours: Callable[[TopicProblem], bool]) -> None:
        problems = find_problems(state, self._settings)
        errors = [problem for problem in problems if not problem.is_warning and not ours(problem)]
        if not errors:
            return
        lines = [f"the topics of {self._names.source} are not as kafetrain needs them:"]
        lines += [f"  {error}" for error in errors]
        raise ConfigurationError("\n".join(lines + _advice(commands_for(errors, self._settings))))

    def _create(self, spec: TopicSpec) -> None:
        logger.info("creating topic {} with {} partitions", spec.name, spec.partitions)
        try:
            self._admin.create_topics([spec])
        except ClientError as error:
            modest = without_wishes(spec)
            if error.retriable or modest is None:
                raise self._refused(error, "create", spec.name) from error
            try:
                self._admin.create_topics([modest])
            except ClientError as second:
                raise self._refused(second, "create", spec.name) from second
            left_out = ", ".join(key for key in spec.configs if key not in modest.configs)
            self._warnings.append(
                f"{spec.name}: created without {left_out}, which the broker refused: {first_line(error)}"
            )

    def _grow(self, topic: str, partitions: int) -> None:
        logger.info("growing topic {} to {} partitions", topic, partitions)
        try:
            self._admin.grow_topic(topic, partitions)
        except ClientError as error:
            raise self._refused(error, "grow", topic) from error

    def _refused(self, error: ClientError, what: str, topic: str) -> Exception:
        if error.retriable:
            return TransientError(f"could not {what} topic {topic}: {first_line(error)}. Is the cluster healthy?")
        problems = find_problems(_look(self._admin, self._names), self._settings)
        lines = [
            f"could not {what} topic {topic}: {first_line(error)}. Where this user may not, have an operator do it, "
            f"and set auto_create_topics to false."
        ]
        commands = commands_for([problem for problem in problems if self._can_mend(problem)], self._settings)
        return ConfigurationError("\n".join(lines + _advice(commands)))

    def _look_until(self, goal: str, reached: Callable[[TopicState], bool]) -> TopicState:
        """Ask until the answer is as hoped: brokers learn of a new topic one after the other."""
        deadline = self._clock.monotonic() + _PATIENCE.total_seconds()
        while True:
            failure = "the cluster still shows the former state"
            try:
                state = _look(self._admin, self._names)
                if reached(state):
                    return state
            except ClientError as error:
                if not error.retriable:
                    raise
                failure = first_line(error)
            if self._clock.monotonic() >= deadline:
                seconds = f"{_PATIENCE.total_seconds():.0f} s"
                raise TransientError(f"waited {seconds} until {goal}: {failure}. Is the cluster healthy?")
            self._wait(_PAUSE_SECONDS)

    def _result(self, state: TopicState, created: list[str]) -> PreparedTopics:
        source: TopicDescription = state.described[self._names.source]
        self._warnings += map(str, find_problems(state, self._settings))
        for warning in self._warnings:
            logger.bind(topic=source.name).warning("{}", warning)
        return PreparedTopics(
            names=self._names,
            source_partitions=source.partitions,
            partitions={name: state.described[name].partitions for name in self._names.auxiliary},
            topic_id=source.topic_id,
            retry_topic_partitions=self._settings.retry_topic_partitions,
            created=tuple(created),
            warnings=tuple(self._warnings),
        )


def _look(admin: AdminPort, names: AuxiliaryTopics) -> TopicState:
    described = admin.describe_topics([names.source, *names.auxiliary])
    try:
        return TopicState(names, described, admin.topic_configs(list(described)) if described else {})
    except ClientError as error:
        if error.retriable:
            raise
    # Rights to describe topics often come without those to describe the settings of each: work on, and say so.
    configs: dict[str, Mapping[str, str]] = {}
    unreadable: dict[str, str] = {}
    for name in described:
        try:
            configs |= admin.topic_configs([name])
        except ClientError as error:
            if error.retriable:
                raise
            unreadable[name] = first_line(error)
    return TopicState(names, described, configs, unreadable)


def _advice(commands: list[str]) -> list[str]:
    return ["put it right with:", *(f"  {command}" for command in commands)] if commands else []
