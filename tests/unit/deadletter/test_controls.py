"""What operators ask of a key, and what is written for it: planned from the topics, waited for in the redirect log."""

from __future__ import annotations

from datetime import timedelta

import pytest
from loguru import logger

from kafetrain.client.ports import ClientError
from kafetrain.core.control import Action
from kafetrain.deadletter import DeadLetters, Effect
from kafetrain.errors import ConfigurationError, KafetrainError
from tests.unit.deadletter.conftest import RETRY, World


class TestControls:
    def test_release_is_one_control_record_in_the_partition_of_the_key(
        self, world: World, letters: DeadLetters
    ) -> None:
        world.die(1, b"other")
        world.die(5, b"a", partition=2)
        result = letters.release("a", by="ada@desk", why="a fixed account")
        (record,) = world.sent
        (control,) = world.controls
        assert (record.topic, record.partition, record.key, record.value) == (RETRY, 0, b"a", b"")
        assert (control.action, control.id, control.lock_offset) == (Action.RELEASE, world.id(5, 2), 1)
        assert (control.audit.by, control.audit.why) == ("ada@desk", "a fixed account")
        assert (control.audit.command, control.audit.at_ms) == (result.command, world.clock.now_ms())
        assert [change.effect for change in result.changes] == [Effect.DONE]

    def test_done_again_it_finds_nothing_and_writes_nothing(self, world: World, letters: DeadLetters) -> None:
        world.die(5, b"a")
        letters.release("a")
        again = letters.release("a")
        assert again.changes == ()
        assert again.plan.nothing == ("key a is not dead: nothing to release",)
        assert len(world.sent) == 1

    @pytest.mark.parametrize(
        ("plan", "sentence"),
        [
            ("plan_release", "key ada is in retry, and not dead: nothing to release"),
            ("plan_replay", "key ada is not dead: nothing to replay"),
        ],
    )
    def test_a_key_in_retry_is_not_dead(self, world: World, letters: DeadLetters, plan: str, sentence: str) -> None:
        world.wait(5, b"ada")
        found = getattr(letters, plan)(key=b"ada")
        assert (found.targets, found.nothing) == ((), (sentence,))

    def test_a_key_that_lives_in_several_partitions_is_meant_in_all(self, world: World, letters: DeadLetters) -> None:
        for partition in range(3):
            world.die(5, b"a", partition=partition)
        letters.release(b"a")
        assert sorted(control.id.partition for control in world.controls) == [0, 1, 2]
        assert sorted(record.partition for record in world.sent) == [0, 0, 1]

    def test_a_record_without_a_key_is_named_by_its_id(self, world: World, letters: DeadLetters) -> None:
        world.die(5, None)
        world.die(6, None)
        letters.release(id="billing/orders/0/6")
        assert [control.id.offset for control in world.controls] == [6]
        assert world.sent[0].key is None

    def test_by_reason_and_all(self, world: World, letters: DeadLetters) -> None:
        world.die(1, b"a", error="no account")
        world.die(2, b"b", error="timeout")
        world.wait(3, b"c")
        assert [target.key for target in letters.plan_release(reason="bankerror: NO acc").targets] == [b"a"]
        assert [target.key for target in letters.plan_release(all=True).targets] == [b"a", b"b"]
        sentence = "no key with an error like 'disk' is dead: nothing to release"
        assert letters.plan_release(reason="disk").nothing == (sentence,)

    @pytest.mark.parametrize("choice", [{}, {"key": "a", "all": True}])
    def test_which_keys_are_meant_is_said_in_one_way(self, letters: DeadLetters, choice: dict[str, object]) -> None:
        with pytest.raises(ConfigurationError, match="say which keys are meant"):
            letters.plan_release(**choice)

    def test_retry_now_acts_on_a_key_that_waits(self, world: World, letters: DeadLetters) -> None:
        world.wait(1, b"a")
        world.wait(2, b"due", due_ms=0)
        world.die(3, b"dead")
        assert letters.retry_now("a").count(Effect.DONE) == 1
        assert letters.plan_retry_now(key="due").nothing == ("key due is due already: nothing to hurry",)
        assert letters.plan_retry_now(key="none").nothing == ("key none is not in retry: nothing to hurry",)
        (sentence,) = letters.plan_retry_now(key="dead").nothing
        assert sentence == "key dead is dead: nothing to hurry. Use dlq release or dlq replay"

    def test_skip_names_the_head(self, world: World, letters: DeadLetters) -> None:
        world.wait(1, b"a")
        world.wait(4, b"a", attempt=0, due_ms=0)
        assert letters.skip("a").count(Effect.DONE) == 1
        assert [control.id.offset for control in world.controls] == [1]

    def test_what_nobody_obeys_in_time_is_late_and_stays_asked_for(self, world: World, letters: DeadLetters) -> None:
        world.die(1, b"a")
        world.obeys = False
        result = letters.release("a", patience=timedelta(seconds=7))
        assert [change.effect for change in result.changes] == [Effect.LATE]
        assert world.clock.seconds == pytest.approx(7, abs=0.5)
        assert len(world.sent) == 1

    def test_without_a_consumer_nothing_is_waited_for(self, world: World, letters: DeadLetters) -> None:
        world.die(1, b"a")
        world.obeys = False
        world.cluster.members.clear()
        assert letters.release("a").count(Effect.LATER) == 1
        assert letters.release("a", wait=False).count(Effect.WRITTEN) == 1
        assert world.clock.seconds == 0

    def test_where_members_are_not_told_it_waits(self, world: World, letters: DeadLetters) -> None:
        world.die(1, b"a")
        world.cluster.failures["group_members"] = [ClientError("not authorized")]
        assert letters.release("a").count(Effect.DONE) == 1

    def test_a_control_record_that_is_not_written_is_an_error(self, world: World, letters: DeadLetters) -> None:
        world.die(1, b"a")
        world.refusal = ClientError("no broker answers")
        with pytest.raises(KafetrainError, match=r"0 of 1 control records are written .* no broker answers"):
            letters.release("a")

    def test_each_change_is_a_log_event_without_the_key(self, world: World, letters: DeadLetters) -> None:
        world.die(1, b"secret-key")
        lines: list[str] = []
        logger.enable("kafetrain")
        sink = logger.add(lambda message: lines.append(f"{message} {message.record['extra']}"), level="INFO")
        try:
            letters.release("secret-key", by="ada@desk")
        finally:
            logger.remove(sink)
            logger.disable("kafetrain")
        (line,) = [line for line in lines if "an operator asks for release" in line]
        assert "'by': 'ada@desk'" in line
        assert "'offset': 1" in line
        assert not [line for line in lines if "secret-key" in line]
