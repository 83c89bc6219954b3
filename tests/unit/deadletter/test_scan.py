"""Dead letters and the history of a key, as they are found in the topics."""

from __future__ import annotations

import pytest

from kafetrain.deadletter import DeadLetters, Filter
from kafetrain.errors import ConfigurationError, KafetrainError, TransientError
from kafetrain.record import TopicPartition
from tests.unit.deadletter.conftest import DLQ, REDIRECT, RETRY, World


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
