"""The journal finds what it is there to find, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta

import pytest

from kafetrain import Pause, Record
from kafetrain.testing.events import BrokenPromise, Event, Kind, Written
from kafetrain.testing.journal import Journal


@dataclass(frozen=True)
class FakeRecord:
    offset: int
    key: bytes | None = b"a"
    headers: tuple[tuple[str, bytes | None], ...] = ()
    topic: str = "orders"
    partition: int = 0
    value: bytes | None = None
    timestamp: int = 0


WRITTEN = [Written(0, 0, b"a"), Written(0, 1, b"a"), Written(0, 2, b"a")]


KINDS: dict[str, Kind] = {"+": "started", ".": "ended", "!": "failed", "~": "abandoned"}


def history(text: str) -> Journal:
    """A journal from words: `+0` offset 0 of key `a` started, `.0` ended, `!0` failed, `~0` abandoned, `#` interrupted.

    `b+0` is of key `b`, `-+0` of a record without a key.
    """

    def events() -> Iterator[Event]:
        failures: Counter[int] = Counter()
        for word in text.split():
            if word == "#":
                yield Event("interrupted")
                continue
            key, word = ("a", word) if word[0] in KINDS else (word[0], word[1:])
            kind, offset = KINDS[word[0]], int(word[1:])
            yield Event(kind, None if key == "-" else key.encode(), 0, offset, failures[offset])
            failures[offset] += kind == "failed"

    return Journal(events())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+0 .0 +1 .1 +2 .2",
        "+0 !0 +0 !0 +0 .0 +1 .1",
        "+0 b+1 .0 b.1",  # different keys, side by side
        "-+0 -+1 -.1 -.0",  # no key, no order
        "+0 ~0 +0 .0 +1 .1",
        "+0 .0 +1 # +0 .0 +1 .1",  # a replay from an earlier point
        "+0 .0 +1 .1 # +1 .1 +2 .2",
        "+0 .0 +1 .1 # +0 .0 +2 .2",  # 1 is known to have ended
        "+0 # +0 .0 # +0 .0",
    ],
)
def test_legal_histories_keep_the_order_of_keys(text: str) -> None:
    history(text).key_order()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("+0 +1 .0 .1", "before offset 0 of its key had ended"),
        ("+0 !0 +1 .1 +0 .0", "before offset 0 of its key had ended"),
        ("+0 ~0 +1", "before offset 0 of its key had ended"),
        ("+0 +0", "runs twice at the same time"),
        ("+1 .1 +0 .0", "nothing was interrupted"),
        ("+0 .0 +0 .0", "ran again after it had ended"),
        ("+0 .0 +1 .1 +0 .0", "nothing was interrupted"),
        ("+0 # +1 .1", "before offset 0 of its key had ended"),
        ("+0 .0 +1 .1 # +1 .1 +0 .0", "nothing was interrupted"),  # backwards inside of a replay
        ("+0 .0 +1 !1 # +0 .0 +2", "before offset 1 of its key had ended"),
    ],
)
def test_histories_that_break_the_order_of_keys_are_found(text: str, why: str) -> None:
    with pytest.raises(BrokenPromise, match=why):
        history(text).key_order()


def test_a_written_record_that_never_started_holds_up_the_later_ones_of_its_key() -> None:
    skipped = history("+0 .0 +2 .2")
    skipped.key_order()
    with pytest.raises(BrokenPromise, match="before offset 1 "):
        skipped.key_order(WRITTEN)


def test_a_dead_letter_ends_its_record_with_the_last_failure() -> None:
    dead = {(0, 0)}
    history("+0 !0 +0 !0 +1 .1 +2 .2").key_order(WRITTEN, dead)
    with pytest.raises(BrokenPromise, match="before offset 0 "):
        history("+0 !0 +1 .1 +0 !0").key_order(WRITTEN, dead)


def test_a_parked_record_holds_up_nothing() -> None:
    history("+0 !0 +2 .2").key_order(WRITTEN, {(0, 0), (0, 1)})


def test_an_interruption_ends_what_its_own_instance_runs_and_no_other() -> None:
    started = Event("started", b"a", 0, 0, instance="one")
    again = Event("started", b"a", 0, 0, instance="two")
    Journal([started, Event("interrupted", instance="one"), again]).key_order()
    with pytest.raises(BrokenPromise, match="twice"):
        Journal([started, Event("interrupted", instance="two"), again]).key_order()


def test_every_written_record_ends_or_is_a_dead_letter() -> None:
    journal = history("+0 .0 +1 !1 +2")
    journal.no_loss(WRITTEN[:1])
    journal.no_loss(WRITTEN, dead_letters={(0, 1), (0, 2)})
    with pytest.raises(BrokenPromise, match="neither succeeded nor dead: 0@2"):
        journal.no_loss(WRITTEN, dead_letters={(0, 1)})
    with pytest.raises(BrokenPromise, match="and 90 more"):
        journal.no_loss([Written(1, offset) for offset in range(100)])


def test_attempts_are_the_failures_so_far() -> None:
    history("+0 !0 +0 ~0 +0 !0 +0 .0").honest_attempts()
    with pytest.raises(BrokenPromise, match="has failed 1 times"):
        Journal([*history("+0 !0").events, Event("started", b"a", 0, 0, attempt=2)]).honest_attempts()


def test_what_ran_once_is_told_from_what_ran_again() -> None:
    history("+0 !0 +0 .0").once()
    with pytest.raises(BrokenPromise, match="ran again"):
        history("+0 .0 # +0 .0").once()


def test_a_recorded_handler_leaves_its_events_and_keeps_its_outcome() -> None:
    journal = Journal()
    errors = iter([ValueError("no"), Pause(timedelta(0)), SystemExit(), None])

    def handle(record: Record) -> object:
        if (error := next(errors)) is not None:
            raise error
        return "done"

    recorded = journal.recording(handle, "one")
    for error in (ValueError, Pause, SystemExit):
        with pytest.raises(error):
            recorded(FakeRecord(7, headers=(("x-retry-attempt", b"3"),)))
    assert recorded(FakeRecord(7)) == "done"

    kinds = [event.kind for event in journal.events]
    assert kinds == ["started", "failed", "started", "abandoned", "started", "abandoned", "started", "ended"]
    assert journal.attempts(7) == [3, 3, 3, 0]
    assert journal.offsets("ended", b"a") == [7]
    assert journal.offsets("ended", b"b") == []
    assert {event.instance for event in journal.events} == {"one"}


def test_a_recorded_future_ends_its_record_when_it_is_done() -> None:
    journal = Journal()
    futures: list[Future[str]] = [Future(), Future()]
    recorded = journal.recording(lambda record: futures[record.offset])
    first, second = recorded(FakeRecord(0)), recorded(FakeRecord(1, b"b"))
    assert isinstance(first, Future)
    assert isinstance(second, Future)
    assert journal.places("ended") == journal.places("failed") == []
    futures[0].set_result("done")
    futures[1].set_exception(ValueError("no"))
    assert (first.result(), type(second.exception())) == ("done", ValueError)
    assert (journal.places("ended"), journal.places("failed")) == ([(0, 0)], [(0, 1)])
