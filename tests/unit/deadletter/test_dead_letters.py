"""What operators ask for, and what is written for it: planned from the topics, and waited for in the redirect log."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from loguru import logger

from kafetrain.client.ports import ClientError
from kafetrain.core.control import Action
from kafetrain.core.dead_letter import decode_dead_letter
from kafetrain.core.headers import DeadLetterState
from kafetrain.deadletter import DeadLetters, Effect, Filter, TransformError
from kafetrain.errors import ConfigurationError, KafetrainError, TransientError
from kafetrain.record import Record, TopicPartition
from tests.unit.deadletter.conftest import DLQ, REDIRECT, RETRY, World

Open = Callable[..., DeadLetters]


class TestScan:
    def test_letters_come_in_the_order_of_time_from_all_partitions(self, world: World, letters: DeadLetters) -> None:
        world.letter(1, b"a", at_ms=30)
        world.letter(2, b"b", partition=1, at_ms=10)
        world.letter(3, b"c", partition=1, at_ms=40)
        assert [letter.key for letter in letters.scan()] == [b"b", b"a", b"c"]
        assert [letter.key for letter in letters.scan(newest_first=True)] == [b"c", b"a", b"b"]

    def test_a_long_partition_is_read_whole_both_ways(self, world: World, letters: DeadLetters) -> None:
        for offset in range(2500):
            world.letter(offset, b"a", at_ms=offset)
        seen: list[tuple[int, int]] = []
        offsets = [letter.offset for letter in letters.scan(progress=lambda done, total: seen.append((done, total)))]
        assert offsets == list(range(2500))
        assert seen[-1] == (2500, 2500)
        assert [letter.offset for letter in letters.scan(newest_first=True)] == list(reversed(range(2500)))

    def test_what_was_purged_or_compacted_is_passed(self, world: World, letters: DeadLetters) -> None:
        world.letter(1, b"gone")
        world.letter(2, b"a")
        world.beginning[TopicPartition(DLQ, 0)] = 1
        world.append(DLQ, 0, b"x", b"not ours", gap=5000)
        assert [(letter.key, letter.state) for letter in letters.scan()] == [(b"a", "exhausted"), (b"x", "unknown")]

    def test_a_letter_is_the_record_as_it_was_and_why_it_died(self, world: World, letters: DeadLetters) -> None:
        world.letter(7, b"a", value=b"v", own=[("tag", b"1"), ("none", None), ("x-dlq-state", b"its own")])
        (letter,) = letters.scan()
        assert letter.headers == (("tag", b"1"), ("none", None), ("x-dlq-state", b"its own"))
        assert (letter.id, letter.key, letter.value) == (world.id(7), b"a", b"v")
        assert (letter.state, letter.attempts, letter.error) == ("exhausted", 3, "BankError: no answer")
        assert (letter.at_ms, letter.first_failure_ms, letter.source_timestamp_ms) == (1000, 500, 77)

    @pytest.mark.parametrize(
        ("wanted", "offsets"),
        [
            (Filter(), [0, 1, 2, 3]),
            (Filter(key=b"a"), [0, 2]),
            (Filter(states=["parked"]), [2]),
            (Filter(reason="bankerror: no ANS"), [0]),
            (Filter(reason="typeerror"), [1]),
            (Filter(since_ms=20), [1, 2, 3]),
            (Filter(until_ms=20), [0]),
            (Filter(key=b"a", since_ms=20, until_ms=31), [2]),
            (Filter(marks=True), [0, 1, 2, 3, 4]),
            (Filter(states=["transformed"]), [4]),
        ],
    )
    def test_filters(self, world: World, letters: DeadLetters, wanted: Filter, offsets: list[int]) -> None:
        world.letter(1, b"a", at_ms=10)
        world.letter(2, b"b", at_ms=20, error_type="TypeError")
        world.parked(3, b"a", at_ms=30)
        world.letter(4, b"c", at_ms=40, state="malformed", error_type="Malformed", reason="x")
        world.letter(1, b"a", at_ms=50, state="transformed", reason=None, error_type=None)
        world.letter(9, b"a", at_ms=60, group="shipping")
        assert [letter.offset for letter in letters.scan(wanted)] == offsets

    def test_no_progress_is_an_error_that_says_where(self, world: World, letters: DeadLetters) -> None:
        world.letter(1, b"a")
        world.stalled = True
        with pytest.raises(TransientError, match=r"reading dlq-orders\[0\] made no progress: at offset 0 of 1"):
            list(letters.scan())

    def test_a_topic_that_never_failed_has_no_dead_letters(self, world: World, letters: DeadLetters) -> None:
        for name in (DLQ, REDIRECT, RETRY):
            del world.cluster.topics[name]
        assert list(letters.scan()) == []
        assert letters.locks() == []
        assert letters.history("a") == []
        assert letters.plan_replay(key="a").nothing == ("no key of orders has ever failed: nothing to replay",)
        assert letters.plan_release(key="a").targets == ()

    def test_a_topic_that_does_not_exist_is_wrong(self, world: World, letters: DeadLetters) -> None:
        world.cluster.topics.clear()
        with pytest.raises(ConfigurationError, match="orders does not exist"):
            list(letters.scan())

    def test_one_letter_by_its_place(self, world: World, letters: DeadLetters) -> None:
        world.letter(1, b"a")
        place = world.letter(2, b"b")
        assert letters.show(*place).key == b"b"

    @pytest.mark.parametrize("place", [(0, 1), (2, 0), (-1, 0)])
    def test_a_place_without_a_letter_is_an_error(
        self, world: World, letters: DeadLetters, place: tuple[int, int]
    ) -> None:
        world.letter(1, b"a")
        with pytest.raises(KafetrainError, match="there is no dead letter at dlq-orders"):
            letters.show(*place)


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


class TestReplay:
    def test_the_dead_one_and_what_is_parked_behind_it_in_order(self, world: World, letters: DeadLetters) -> None:
        world.parked(2, b"a")  # behind one that died before, and was released
        world.die(5, b"a")
        world.parked(7, b"a")
        world.parked(6, b"b")
        world.parked(9, b"a")
        world.parked(7, b"a")  # twice: a crash came between letter and tombstone
        world.parked(8, b"a", partition=2)  # the same key in another source partition
        world.parked(8, b"a", group="shipping")
        plan = letters.plan_replay(key="a")
        (target,) = plan.targets
        assert [letter.id for letter in target.letters] == [world.id(5), world.id(7), world.id(9)]
        assert plan.records == 3
        letters.carry_out(plan)
        assert [(control.action, control.id) for control in world.controls] == [(Action.REPLAY, world.id(5))]

    def test_without_its_dead_letter_a_key_is_not_replayed(self, world: World, letters: DeadLetters) -> None:
        world.die(5, b"a")
        world.parked(6, b"a")
        world.beginning[TopicPartition(DLQ, 0)] = 1
        plan = letters.plan_replay(key="a")
        assert plan.targets == ()
        assert plan.nothing == (
            "key a is dead, but its dead letter was deleted, or is a former topic's: nothing to replay. Release it "
            "instead",
        )

    def test_what_died_in_a_former_topic_of_the_name_does_not_run_in_this_one(
        self, world: World, letters: DeadLetters
    ) -> None:
        world.letter(1, b"a", topic_id="former")
        world.die(5, b"a")
        world.parked(6, b"a", topic_id="former")
        world.parked(7, b"a", topic_id="this")
        (target,) = letters.plan_replay(key="a").targets
        assert [letter.id for letter in target.letters] == [world.id(5), world.id(7)]
        world.letter(8, b"b", topic_id="former")
        (sentence,) = letters.plan_replay(key="b", append=True).nothing
        assert sentence.endswith("; left alone, being in retry or no records of this topic: 1")

    def test_all_is_one_scan_and_controls_without_waiting_between(self, world: World, letters: DeadLetters) -> None:
        for offset in range(300):
            world.die(offset, b"k%d" % offset, partition=offset % 3)
        plan = letters.plan_replay(all=True, with_payloads=False)
        readers = len(world.readers)
        assert readers == 2, "one for the locks, one for the dead letters"
        assert {letter.value for target in plan.targets for letter in target.letters} == {None}
        result = letters.carry_out(plan)
        assert result.count(Effect.DONE) == 300
        assert len(world.readers) == readers

    def test_a_rate_spreads_the_records(self, world: World, letters: DeadLetters) -> None:
        for offset in (1, 3, 5):
            world.die(offset, b"k%d" % offset)
            world.parked(offset + 1, b"k%d" % offset)
        letters.replay(all=True, rate=1.0)
        assert [control.audit.at_ms for control in world.controls] == [0, 0, 0]
        assert world.clock.seconds == pytest.approx(4, abs=0.5), (
            "two records a key: the third begins after four seconds"
        )

    def test_dead_again_at_once_has_taken_effect(self, world: World, letters: DeadLetters) -> None:
        world.die(5, b"a")
        world.obeys = False
        plan = letters.plan_replay(key="a")
        world.die(5, b"a")
        assert letters.carry_out(plan).count(Effect.DONE) == 1


class TestTransform:
    def test_each_payload_is_changed_in_a_copy_and_the_original_stays(self, world: World, letters: DeadLetters) -> None:
        own = [("tag", b"1"), ("none", None)]
        place = world.die(5, b"a")
        world.log[TopicPartition(DLQ, 0)][0].value = b"bad"
        world.parked(6, b"a", value=b"bad too", own=own)
        world.parked(7, b"a", value=b"good")

        def repair(record: Record) -> str:
            assert (record.topic, record.partition, record.key) == ("orders", 0, b"a")
            return str(record.value.decode().replace("bad", "mended"))

        result = letters.replay("a", transform=repair)
        *copies, control = world.sent
        assert [record.topic for record in world.sent] == [DLQ, DLQ, RETRY]
        assert [copy.value for copy in copies] == [b"mended", b"mended too"]
        infos = [decode_dead_letter(copy) for copy in copies]
        assert [info.id for info in infos] == [world.id(5), world.id(6)]
        assert {(info.state, info.command) for info in infos} == {(DeadLetterState.TRANSFORMED, result.command)}
        assert infos[1].user_headers == tuple(own)
        assert (infos[0].attempts, infos[0].source_timestamp_ms) == (3, 77)
        name = f"{__name__}:TestTransform.test_each_payload_is_changed_in_a_copy_and_the_original_stays.<locals>.repair"
        assert infos[0].transform == world.controls[0].audit.transform == name
        assert letters.show(*place).value == b"bad"
        assert control is world.control_records[0]

    def test_an_error_in_it_is_told_before_anything_is_written(self, world: World, letters: DeadLetters) -> None:
        world.die(5, b"a")
        world.parked(6, b"a", value=b"the secret payload")

        def repair(record: Record) -> bytes:
            if record.offset == 6:
                raise LookupError(record.value)
            return b"changed"

        with pytest.raises(TransformError) as caught:
            letters.replay("a", transform=repair)
        sentence = "the transform raised LookupError for dlq-orders[0]@1 (orders[0]@6): nothing was changed"
        assert str(caught.value) == sentence
        assert world.sent == []

    def test_it_gives_bytes_text_or_none(self, world: World, letters: DeadLetters) -> None:
        world.die(5, b"a")
        with pytest.raises(TransformError, match="gave a dict for dlq-orders"):
            letters.replay("a", transform=lambda record: {})
        letters.replay("a", transform=lambda record: None)
        assert (world.sent[0].topic, world.sent[0].value) == (DLQ, None)

    def test_a_null_without_a_key_travels_as_empty(self, world: World, letters: DeadLetters) -> None:
        place = world.die(5, None)
        letters.replay(id=world.id(5), transform=lambda record: None)
        assert (world.sent[0].value, decode_dead_letter(world.sent[0]).null_value) == (b"", True)
        copy = letters.show(place[0], world.sent[0].offset)
        assert copy.value is None

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("nowhere", "is named module:function"),
            ("no_such_module_here:f", "there is no module no_such_module_here"),
            ("json:no_such", "json has no no_such"),
            ("math:pi", "it is a float, not a function"),
        ],
    )
    def test_a_wrong_name_is_a_wrong_usage(self, world: World, letters: DeadLetters, name: str, error: str) -> None:
        world.die(5, b"a")
        with pytest.raises(ConfigurationError, match=error):
            letters.replay("a", transform=name)
        assert world.sent == []


class TestAppend:
    def test_each_dead_letter_that_was_not_replayed_since(self, world: World, open_letters: Open) -> None:
        letters = open_letters(free_on_dlq=True)
        world.letter(5, b"a")
        place = world.letter(9, b"a")
        world.parked(7, b"a")
        world.letter(8, b"b")
        world.letter(6, b"a", state="malformed")
        result = letters.replay("a")
        assert [(control.action, control.id.offset) for control in world.controls] == [
            (Action.APPEND, 5),
            (Action.APPEND, 7),
            (Action.APPEND, 9),
        ]
        assert world.controls[2].dead_at == place
        assert (result.plan.appended, result.count(Effect.DONE)) == (3, 3)
        again = letters.replay("a")
        assert again.changes == ()
        (sentence,) = again.plan.nothing
        assert sentence.startswith(
            "key a is not dead: nothing to replay, and there is no dead letter of it that was not"
        )

    def test_what_died_again_since_is_a_new_dead_letter(self, world: World, open_letters: Open) -> None:
        letters = open_letters()
        world.letter(5, b"a")
        letters.replay("a", append=True)
        place = world.letter(5, b"a")
        letters.replay("a", append=True)
        assert [control.dead_at for control in world.controls] == [(0, 0), place]

    def test_a_mark_for_a_changed_copy_is_one_for_the_original(self, world: World, open_letters: Open) -> None:
        letters = open_letters(free_on_dlq=True)
        world.letter(5, b"a", value=b"bad")
        letters.replay("a", transform=lambda record: b"good")
        assert world.controls[0].dead_at == (0, world.sent[0].offset)
        assert letters.replay("a").changes == ()

    def test_what_is_in_retry_or_behind_a_dead_one_is_left_alone(self, world: World, open_letters: Open) -> None:
        letters = open_letters()
        world.letter(5, b"a")
        world.wait(5, b"a")
        world.letter(1, b"dead")
        world.die(2, b"dead")
        plan = letters.plan_replay(all=True, append=True)
        assert [(target.action, target.id.offset) for target in plan.targets] == [(Action.REPLAY, 2)]

    def test_without_it_dead_letters_of_live_keys_stay(self, world: World, letters: DeadLetters) -> None:
        world.letter(5, b"a")
        assert letters.plan_replay(key="a").nothing == ("key a is not dead: nothing to replay",)

    def test_it_waits_until_the_redirect_log_shows_the_new_lock(self, world: World, open_letters: Open) -> None:
        letters = open_letters(free_on_dlq=True)
        world.letter(5, b"a")
        world.obeys = False
        assert letters.replay("a").count(Effect.LATE) == 1


class TestHistory:
    def test_a_keys_story_from_all_topics(self, world: World, letters: DeadLetters) -> None:
        world.wait(5, b"a")
        world.die(5, b"a")
        world.die(6, b"b")
        letters.release("a", by="ada@desk", why="never mind")
        events = letters.history("a")
        assert {event.id for event in events} == {world.id(5)}
        kinds = [event.kind for event in events]
        assert sorted(kinds) == ["control", "dead-letter", "lock", "lock", "unlock"]
        (control,) = [event for event in events if event.kind == "control"]
        assert (control.by, control.why) == ("ada@desk", "never mind")
        assert control.text == "release (never mind), asked by ada@desk"
        assert [event.at_ms for event in events] == sorted(event.at_ms for event in events)
