"""Dead letters that run again: replayed in their order, changed, or appended behind what the key does now."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kafetrain.core.control import Action
from kafetrain.core.dead_letter import decode_dead_letter
from kafetrain.core.headers import DeadLetterState
from kafetrain.deadletter import DeadLetters, Effect, TransformError
from kafetrain.errors import ConfigurationError
from kafetrain.record import Record, TopicPartition
from tests.unit.deadletter.conftest import DLQ, RETRY, World

Open = Callable[..., DeadLetters]


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
