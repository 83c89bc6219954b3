"""The source path: what is written for a record, in which order, and when its offset is complete."""

from __future__ import annotations

import json
import traceback
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import pytest

from kafetrain import NotRetriableError, Outcome, Pause, RetriableError
from kafetrain.core.entry import Entry, State
from kafetrain.errors import NotTrackedError, PartitionLostError, WriteFailedError
from kafetrain.tracker.state import Side
from tests.unit.tracker.conftest import Bench, record


def test_a_success_writes_nothing(bench: Bench) -> None:
    assert bench.submit(1) is Outcome.SUCCEEDED
    assert bench.producer.sent == []


def test_a_failure_is_complete_after_the_entry_and_behind_it_the_retry_record(bench: Bench) -> None:
    bench.fails[1] = ValueError("no")
    outcome, done = bench.submit(1)
    assert outcome is Outcome.REDIRECTED
    assert bench.producer.topics() == ["redirect"]  # the registration: others' purges look for it
    assert bench.producer.sent[0].key == b"group/billing"
    bench.producer.acknowledge()
    bench.sequencer.step()
    assert bench.producer.sent[1].key == b"billing/orders/0/1"
    assert not done.done()
    bench.producer.acknowledge()
    bench.sequencer.step()
    assert bench.producer.topics() == ["redirect", "redirect", "retry"]
    headers = dict(bench.producer.sent[2].headers)
    assert headers["x-retry-lock-offset"] == b"102"
    assert (headers["x-retry-attempt"], headers["x-retry-reason"]) == (b"1", b"no")
    assert int(headers["x-retry-due"] or b"") == bench.clock.ms + 5_000
    assert not done.done()
    bench.settle()
    assert done.result() is Outcome.REDIRECTED


def test_a_group_registers_once(bench: Bench) -> None:
    bench.fails = {1: ValueError(), 2: ValueError()}
    bench.submit(1, b"a")
    bench.settle()
    bench.submit(2, b"b")
    bench.settle()
    assert [r.key for r in bench.producer.sent].count(b"group/billing") == 1


def test_what_fails_while_the_group_registers_waits_for_the_one_registration(bench: Bench) -> None:
    bench.fails = {1: ValueError(), 2: ValueError()}
    pending = [bench.submit(1, b"a"), bench.submit(2, b"b")]
    assert [sent.key for sent in bench.producer.sent] == [b"group/billing"]
    bench.settle()
    assert [sent.key for sent in bench.producer.sent].count(b"group/billing") == 1
    assert [one.done.result() for one in pending] == [Outcome.REDIRECTED] * 2


def test_where_the_registration_fails_so_does_what_waits_for_it_and_the_next_tries_again(bench: Bench) -> None:
    bench.fails = {1: ValueError(), 2: ValueError(), 3: ValueError()}
    pending = [bench.submit(1, b"a").done, bench.submit(2, b"b").done]
    bench.producer.refuse()
    bench.sequencer.step()
    for done in pending:
        with pytest.raises(WriteFailedError, match="the broker said no"):
            done.result(0)
    third = bench.submit(3, b"c").done
    bench.settle()
    assert third.result() is Outcome.REDIRECTED


def test_a_later_record_of_the_key_sees_the_lock_at_once_and_is_written_behind_it(bench: Bench) -> None:
    bench.fails[1] = ValueError()
    first = bench.submit(1).done
    assert bench.path.may_not_run(record(2))
    assert not bench.path.may_not_run(record(3, b"other"))
    second = bench.submit(2)
    assert bench.runs == [1]

    def ids() -> list[bytes | None]:
        return [sent.key for sent in bench.producer.sent]

    bench.producer.acknowledge()
    bench.sequencer.step()
    assert b"billing/orders/0/2" not in ids()
    bench.settle()
    assert ids().index(b"billing/orders/0/1") < ids().index(b"billing/orders/0/2")
    assert first.result() is Outcome.REDIRECTED
    assert second.done.result() is Outcome.SIDELINED
    assert json.loads(bench.producer.sent[-2].value or b"")["attempt"] == 0


def test_a_later_record_of_the_key_waits_for_the_entry_and_not_for_the_retry_record(bench: Bench) -> None:
    bench.fails[1] = ValueError()
    first, second = bench.submit(1).done, bench.submit(2).done
    for _ in ("registration", "entry"):
        bench.producer.acknowledge()
        bench.sequencer.step()
    assert bench.producer.topics() == ["redirect", "redirect", "retry", "redirect"]
    assert not first.done()
    assert bench.claim.is_writing
    bench.producer.acknowledge(1)  # the second entry, before the first retry record
    bench.sequencer.step()
    assert bench.producer.topics()[-1] == "retry"
    bench.settle()
    assert (first.result(), second.result()) == (Outcome.REDIRECTED, Outcome.SIDELINED)
    assert not bench.claim.is_writing


def test_nothing_of_a_key_is_written_past_a_write_that_failed(bench: Bench) -> None:
    bench.fails[1] = ValueError()
    first, second = bench.submit(1).done, bench.submit(2).done
    bench.producer.refuse()
    bench.sequencer.step()
    for done in (first, second, bench.submit(3).done):
        bench.sequencer.step()
        with pytest.raises(WriteFailedError, match="the broker said no"):
            done.result(timeout=0)
    assert bench.runs == [1]
    assert len(bench.producer.sent) == 1


def test_an_error_that_many_records_pass_on_stays_short(bench: Bench) -> None:
    bench.fails[1] = ValueError()
    waiting = [bench.submit(offset).done for offset in range(1, 300)]
    bench.producer.refuse()
    bench.sequencer.step()
    late = bench.submit(300).done
    bench.sequencer.step()
    for done in (waiting[0], waiting[-1], late):
        error = done.exception(0)
        assert isinstance(error, WriteFailedError)
        assert len(traceback.extract_tb(error.__traceback__)) < 20


def test_a_redelivered_pending_record_gets_a_retry_record_and_never_a_second_entry(bench: Bench) -> None:
    bench.claim.locks.put(4, Entry(b"k", attempt=2, log_offset=33))
    outcome, done = bench.submit(4)
    bench.settle()
    assert (outcome, done.result(), bench.runs) == (Outcome.SIDELINED, Outcome.SIDELINED, [])
    assert bench.producer.topics() == ["retry"]
    assert dict(bench.producer.sent[0].headers)["x-retry-lock-offset"] == b"33"


def test_an_ended_record_is_complete_without_running(bench: Bench) -> None:
    bench.claim.locks.end(4, b"k", 50)
    for offset in (3, 4):
        assert bench.submit(offset).done.result() is Outcome.ALREADY_ENDED
    assert bench.submit(5) is Outcome.SUCCEEDED
    assert bench.runs == [5]


@pytest.mark.parametrize("error", [NotRetriableError("never"), RetriableError("x", retry=False)])
def test_what_may_not_be_retried_dies_at_once_and_its_key_stands_still(bench: Bench, error: Exception) -> None:
    bench.fails[1] = error
    outcome, done = bench.submit(1)
    assert outcome is Outcome.DEAD_LETTERED
    bench.settle()
    assert done.result() is Outcome.DEAD_LETTERED
    assert bench.producer.topics() == ["dlq", "redirect", "redirect"]
    assert dict(bench.producer.sent[0].headers)["x-dlq-state"] == b"not-retriable"
    assert bench.claim.locks.entries[1].state is State.DEAD
    assert bench.claim.locks.entries[1].dead_at == (0, 101)
    assert bench.submit(2).outcome is Outcome.SIDELINED


def test_where_dead_keys_are_freed_the_next_record_runs() -> None:
    bench = Bench(free_on_dlq=True, max_retries=0)
    bench.fails[1] = ValueError("first and last")
    assert bench.submit(1).outcome is Outcome.DEAD_LETTERED
    bench.settle()
    assert bench.producer.topics() == ["dlq"]
    assert dict(bench.producer.sent[0].headers)["x-dlq-state"] == b"exhausted"
    assert bench.submit(2) is Outcome.SUCCEEDED


def test_a_pause_is_raised_on_and_nothing_is_written(bench: Bench) -> None:
    bench.fails[1] = Pause(timedelta(seconds=1))
    with pytest.raises(Pause):
        bench.submit(1)
    assert bench.producer.sent == []


def test_an_interrupt_counts_nothing(bench: Bench) -> None:
    bench.fails[1] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        bench.submit(1)
    assert bench.producer.sent == []


def test_a_handlers_future_decides(bench: Bench) -> None:
    good: Future[None] = Future()
    bad: Future[None] = Future()
    succeeds = bench.submit(1, b"a", lambda record: good)
    fails = bench.submit(2, b"b", lambda record: bad)
    assert (succeeds.outcome, succeeds.done.done()) == (None, False)
    good.set_result(None)
    assert succeeds.done.result(timeout=0) is Outcome.SUCCEEDED
    bad.set_exception(ValueError())
    bench.settle()
    assert fails.done.result(timeout=0) is Outcome.REDIRECTED


def test_a_handlers_future_that_has_not_begun_can_be_called_off(bench: Bench) -> None:
    future: Future[None] = Future()
    pending = bench.submit(1, handler=lambda record: future)
    assert pending.done.cancel()
    assert future.cancelled()
    assert pending.done.cancelled()
    assert bench.producer.sent == []


def test_a_partition_that_goes_away_leaves_the_retry_record_to_its_next_owner(bench: Bench) -> None:
    bench.fails[1] = ValueError()
    done = bench.submit(1).done
    bench.producer.acknowledge()
    bench.sequencer.step()
    bench.state.release(Side.SOURCE, bench.topic)
    bench.producer.acknowledge()
    bench.sequencer.step()
    with pytest.raises(PartitionLostError, match="another instance"):
        done.result(timeout=0)
    assert bench.producer.topics() == ["redirect", "redirect"]


def test_a_partition_that_is_not_tracked_is_said_by_name(bench: Bench) -> None:
    bench.state.release(Side.SOURCE, bench.topic)
    with pytest.raises(NotTrackedError, match="start_tracking"):
        bench.submit(1)


def test_a_deserialized_key_is_refused_where_it_would_be_written(bench: Bench) -> None:
    bench.fails[1] = ValueError()
    text_key: Any = record(1)
    text_key.key = "k"
    with pytest.raises(TypeError, match="without deserializers"):
        bench.path.submit(text_key, bench.handler)


def test_a_record_without_key_and_value_leaves_as_it_came(bench: Bench) -> None:
    bench.path.redirect(record(1, None, None), None)
    bench.settle()
    sent = bench.producer.sent[-1]
    assert (sent.key, sent.value) == (None, b"")  # clients refuse to send nothing at all
    assert dict(sent.headers)["x-retry-null-value"] == b"1"


def test_a_record_without_a_timestamp_leaves_with_none_that_it_could_have(bench: Bench) -> None:
    """As clients deliver what a topic holds from before there were timestamps."""
    old: Any = record(1)
    old.timestamp = None
    bench.path.redirect(old, None)
    bench.settle()
    assert bench.producer.topics()[-1] == "retry"
    assert dict(bench.producer.sent[-1].headers)["x-retry-timestamp"] == b"-1"


def test_a_dead_letter_whose_partition_went_away_does_not_stop_the_key_for_the_next_owner(bench: Bench) -> None:
    bench.fails[1] = NotRetriableError("never")
    done = bench.submit(1).done
    bench.state.release(Side.SOURCE, bench.topic)
    bench.producer.acknowledge()
    bench.sequencer.step()
    with pytest.raises(PartitionLostError):
        done.result(timeout=0)
    assert bench.producer.topics() == ["dlq"]


def test_a_backoff_policy_that_fails_behind_a_future_is_told(bench: Bench) -> None:
    def broken(attempt: int) -> timedelta:
        raise ZeroDivisionError

    bench = Bench(backoff=broken)
    future: Future[None] = Future()
    pending = bench.submit(1, handler=lambda record: future)
    future.set_exception(ValueError())
    with pytest.raises(ZeroDivisionError):
        pending.done.result(timeout=0)


class Meanwhile:
    """A record that is looked at while the locks of its partition are restored: they are there once it is asked where
    it stands."""

    topic, partition, key, value, headers, timestamp = "orders", 0, b"k", b"v", (), 77

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    @property
    def offset(self) -> int:
        if not self._bench.claim.ready:
            self._bench.claim.locks = self._bench.table.source(0)
            self._bench.claim.ready = True
        return 2


def test_a_record_that_comes_just_before_the_locks_are_restored_is_held_to_them(bench: Bench) -> None:
    bench.table.source(0).put(1, Entry(b"k", attempt=1, log_offset=33))
    bench.state.claim(Side.SOURCE, bench.topic, [0])
    early = Meanwhile(bench)
    assert not bench.claim.may_run(early)
    bench.claim.locks, bench.claim.ready = bench.table.source(0), True
    assert not bench.claim.may_run(early)
