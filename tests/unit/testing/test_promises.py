"""Each promise finds the history that breaks it, and lets the one beside it pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from kafetrain.testing import (
    BrokenPromise,
    Event,
    HonestAttempts,
    Independence,
    Isolation,
    Journal,
    KeyOrder,
    NoLoss,
    NoZombieLocks,
    Progress,
    Promise,
    Standing,
    Written,
    all_promises,
)
from kafetrain.testing.events import Kind

RECORDS = (Written(0, 0, b"a"), Written(0, 1, b"a"), Written(0, 2, b"b"))
KINDS: dict[str, Kind] = {"+": "started", ".": "ended", "!": "failed", "~": "abandoned"}


def events(text: str) -> Iterator[Event]:
    """`+0` offset 0 started, `.0` ended, `!0` failed, `~0` abandoned, `#` interrupted; `+0:2` with attempt 2."""
    keys = {record.offset: record.key for record in RECORDS}
    for word in text.split():
        if word == "#":
            yield Event("interrupted", instance="another")
        else:
            offset, _, attempt = word[1:].partition(":")
            yield Event(KINDS[word[0]], keys[int(offset)], 0, int(offset), int(attempt or 0))


def feed(promise: Promise, text: str) -> Promise:
    for record in RECORDS:
        promise.wrote(record)
    for event in events(text):
        promise.see(event)
    return promise


def dead(*offsets: int) -> Callable[[tuple[int, int]], bool]:
    return lambda place: place[1] in offsets


def test_no_loss() -> None:
    promise = feed(NoLoss(), "+0 .0 +1 !1")
    promise.at_rest(Standing(RECORDS, {(0, 1): "exhausted", (0, 2): "parked"}))
    with pytest.raises(BrokenPromise, match="neither succeeded nor dead: 0@1, 0@2"):
        promise.at_rest(Standing(RECORDS))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("+1", "before offset 0 of its key had ended"),
        ("+0 !0 +1", "before offset 0 of its key had ended"),
        ("+0 # +0", "runs twice at the same time"),
        ("+0 .0 +1 # +0", "started while 0@1 of its key runs"),
        ("+0 .0 +1 .1 +0", "started after offset 1 of its key, and nothing was interrupted"),
    ],
)
def test_key_order(text: str, why: str) -> None:
    with pytest.raises(BrokenPromise, match=why):
        feed(KeyOrder(), text)
    feed(KeyOrder(), "+0 +2 !0 .2 +0:1 .0 +1 .1 # +0 .0 +1 .1")


def test_key_order_takes_a_dead_letter_for_an_end() -> None:
    feed(KeyOrder(dead(0)), "+0 !0 +1 .1")


def test_key_order_at_rest_wants_the_last_runs_in_order_too() -> None:
    promise = feed(KeyOrder(), "+0 .0 +1 .1 # +0 .0")
    with pytest.raises(BrokenPromise, match=r"offset 0 of .* ran again after 1 had run last"):
        promise.at_rest(Standing(RECORDS))
    feed(KeyOrder(), "+0 .0 +1 .1 # +0 .0 +1 .1").at_rest(Standing(RECORDS))


def test_independence() -> None:
    promise = feed(Independence(), "+0 !0")
    waiting = Standing(RECORDS, locks={(0, 0): "pending", (0, 1): "pending"})
    with pytest.raises(BrokenPromise, match="they did not run: 0@2"):
        promise.at_quiet(waiting)
    feed(promise, "+2 .2").at_quiet(waiting)


def test_progress() -> None:
    promise = Progress("orders")
    promise.at_quiet(Standing(uncommitted={"retry-orders[0]": 3}))
    with pytest.raises(BrokenPromise, match=r"behind: {'orders\[0\]': 1}"):
        promise.at_quiet(Standing(uncommitted={"orders[0]": 1, "retry-orders[0]": 3}))
    with pytest.raises(BrokenPromise, match="retry-orders"):
        promise.at_rest(Standing(uncommitted={"retry-orders[0]": 3}))


def test_no_zombie_locks() -> None:
    NoZombieLocks().at_rest(Standing(locks={(0, 0): "dead"}))
    with pytest.raises(BrokenPromise, match="nothing ends: 0@1"):
        NoZombieLocks().at_rest(Standing(locks={(0, 0): "dead", (0, 1): "pending"}))


@pytest.mark.parametrize(
    ("text", "is_honest"),
    [
        ("+0 !0 +0:1 ~0 +0:1 !0 +0:2", True),
        ("+0 !0 +0:2", False),  # a pause or a stop was counted
        ("+0 !0 +0", False),  # a failure was forgotten
        ("+0 !0 # +0 !0 +0:1", True),  # the crash came before it was written
        ("+0 # !0 +0 !0 +0:1", True),  # the partition was gone when it failed
        ("+0 !0 +0:1 # +0", False),  # it had been written
        ("+0 !0 +0:1 .0 # +0", True),  # from the beginning, as a new record
        ("+0 !0 +0:1 .0 # +0:3", False),
    ],
)
def test_honest_attempts(text: str, is_honest: bool) -> None:
    if is_honest:
        feed(HonestAttempts(), text)
    else:
        with pytest.raises(BrokenPromise, match="has failed"):
            feed(HonestAttempts(), text)


def test_isolation() -> None:
    ours = Event("started", b"a", 0, 0, group="ours", retried_by="ours")
    Isolation().see(ours)
    with pytest.raises(BrokenPromise, match="a retry of group theirs, was run by group ours"):
        Isolation().see(replace(ours, retried_by="theirs"))
    with pytest.raises(BrokenPromise, match=r"written by another group: retry-orders\[0\]@1 by other.1"):
        Isolation().at_rest(Standing(foreign_writes=("retry-orders[0]@1 by other.1",)))


def test_a_journal_feeds_its_promises_and_tells_what_broke_first() -> None:
    """A handler never sees it: there it would be one more failure."""
    journal = Journal(promises=all_promises("orders"))
    journal.wrote(RECORDS)

    class Late:
        topic, partition, offset, key, value, headers, timestamp = "orders", 0, 1, b"a", b"", (), 0

    handled = journal.recording(lambda record: None)
    journal.check()
    handled(Late)
    for check in (journal.check, lambda: journal.at_quiet(Standing()), lambda: journal.at_rest(Standing())):
        with pytest.raises(BrokenPromise, match="before offset 0"):
            check()


def test_a_journal_waits_for_records_and_names_those_that_did_not_come() -> None:
    journal = Journal(events("+0 .0"))
    journal.wait_until_ended(RECORDS[:1], timeout_s=0)
    with pytest.raises(TimeoutError, match="not within 0 s: the success of 0@1, 0@2"):
        journal.wait_until_ended(RECORDS, timeout_s=0)
