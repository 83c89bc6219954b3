"""Transactions: what they hold together, and what becomes of those that fail."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from kafetrain import ErrorTracker
from kafetrain.client.ports import ClientError, Committed, NotOwnerError, OutcomeUnknownError
from kafetrain.core.entry import Entry, State
from kafetrain.errors import (
    ConfigurationError,
    PartitionLostError,
    RecordTooLargeError,
    TransientError,
    WriteFailedError,
)
from kafetrain.outcome import Outcome
from kafetrain.record import TopicPartition
from kafetrain.tracker.sequence import Running
from kafetrain.tracker.state import Claim, Side
from kafetrain.tracker.transactor import Transactor
from tests.unit.tracker import transactions
from tests.unit.tracker.conftest import REDIRECT, record
from tests.unit.tracker.transactions import SOURCE, Transactions


@pytest.fixture
def bench() -> Transactions:
    bench = Transactions()
    bench.table.registrations["billing"] = None  # type: ignore[assignment]  # that it is there is enough
    return bench


def entry(bench: Transactions, offset: int) -> Entry | None:
    return bench.table.source(0).entries.get(offset)


def test_a_lock_its_retry_record_and_the_source_offset_are_one_transaction(bench: Transactions) -> None:
    done = bench.fail(7)
    assert (bench.cluster.log, done.done(), entry(bench, 7)) == ([], False, None)
    bench.step()
    assert done.result(0) is Outcome.REDIRECTED
    assert bench.cluster.topics() == ["redirect", "retry"]
    assert bench.cluster.offsets == {SOURCE: Committed(8)}
    assert bench.cluster.begun == 1
    (_, at), (retry_record, _) = bench.cluster.log
    assert ("x-retry-lock-offset", b"%d" % at) in retry_record.headers
    lock = entry(bench, 7)
    assert lock is not None
    assert (lock.state, lock.attempt, lock.log_offset, lock.atomic) == (State.PENDING, 1, at, True)


def test_different_keys_share_a_transaction_and_records_of_one_key_never_do(bench: Transactions) -> None:
    futures = [bench.fail(1, b"a"), bench.fail(2, b"b"), bench.submit(3, b"a").done]
    bench.step()
    assert [future.done() for future in futures] == [True, True, False]
    bench.step()
    assert futures[2].result(0) is Outcome.SIDELINED
    assert bench.cluster.begun == 2
    assert [offset for record, offset in bench.cluster.log if record.topic == "redirect-orders"] == [1, 2, 5]


def test_where_nothing_is_to_be_written_there_is_no_transaction(bench: Transactions) -> None:
    """Delivered again after a crash: lock and retry record are there, both or none."""
    bench.fail(7)
    bench.step()
    done = bench.submit(7).done
    bench.step()
    assert done.result(0) is Outcome.SIDELINED
    assert bench.cluster.topics() == ["redirect", "retry"]
    assert bench.cluster.begun == 1


def test_a_lock_that_was_written_without_a_transaction_gets_its_retry_record_again(bench: Transactions) -> None:
    bench.state.put(REDIRECT, 0, 7, Entry(b"k", log_offset=3))
    done = bench.submit(7).done
    bench.step()
    assert done.result(0) is Outcome.SIDELINED
    assert bench.cluster.topics() == ["retry"]


def test_a_dead_letter_and_the_end_of_its_id_are_one_transaction_also_where_keys_are_freed() -> None:
    """Delivered again, it is known to have ended."""
    bench = Transactions(free_on_dlq=True, max_retries=0)
    done = bench.fail(7)
    bench.step()
    assert done.result(0) is Outcome.DEAD_LETTERED
    assert bench.cluster.topics() == ["dlq", "redirect", "redirect"], "a letter, the registration, a tombstone"
    again = bench.submit(7).done
    bench.step()
    assert again.result(0) is Outcome.ALREADY_ENDED
    assert bench.runs == [7]


ABORTED = [
    ("aborted", NotOwnerError("illegal generation")),
    ("aborted", ClientError("fenced", retriable=True)),
    ("aborted", OutcomeUnknownError("no answer", retriable=True)),
]


@pytest.mark.parametrize("commit", ABORTED, ids=lambda commit: type(commit[1]).__name__)
def test_an_aborted_transaction_is_done_again_by_a_new_producer(
    bench: Transactions, commit: tuple[str, ClientError]
) -> None:
    bench.cluster.commits = [commit]
    futures = [bench.fail(1, b"a"), bench.fail(2, b"b")]
    bench.step()
    assert [future.result(0) for future in futures] == [Outcome.REDIRECTED] * 2
    assert sorted(bench.cluster.topics()) == ["redirect", "redirect", "retry", "retry"], "as readers see it"
    assert bench.cluster.opened == bench.cluster.closed + 1 >= 2
    assert bench.runs == [1, 2], "no handler ran again"
    assert {entry(bench, offset).log_offset for offset in (1, 2)} == {5, 6}  # type: ignore[union-attr]  # they are there


def test_a_transaction_whose_commit_got_no_answer_is_looked_up_and_not_done_twice(bench: Transactions) -> None:
    bench.cluster.commits = [("committed", OutcomeUnknownError("no answer", retriable=True))]
    done = bench.fail(7)
    bench.step()
    assert done.result(0) is Outcome.REDIRECTED
    assert bench.cluster.topics() == ["redirect", "retry"]
    assert (bench.cluster.begun, bench.cluster.opened) == (1, 2)
    assert entry(bench, 7) is not None


class Late(Future[int]):
    """The client's thread has told the sequence of a write, and nobody else yet."""

    def add_done_callback(self, fn: Callable[[Future[int]], object]) -> None:
        if isinstance(fn, Running):
            super().add_done_callback(fn)


def test_it_is_looked_up_however_late_the_clients_thread_is(
    bench: Transactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "Future", Late)
    bench.cluster.commits = [("committed", OutcomeUnknownError("no answer", retriable=True))]
    bench.fail(7)
    bench.step()
    assert bench.cluster.topics() == ["redirect", "retry"]


def test_what_was_committed_is_asked_for_until_a_broker_answers(bench: Transactions) -> None:
    bench.cluster.commits = [("committed", OutcomeUnknownError("no answer", retriable=True))]
    bench.fail(7)
    bench.transactor._opened()
    bench.cluster.openings = [ClientError("no broker", retriable=True)] * 3
    bench.step()
    assert bench.cluster.topics() == ["redirect", "retry"]


def test_a_commit_of_which_nobody_can_tell_stops_the_consumer(bench: Transactions) -> None:
    """A restart goes on from what is in the log."""
    bench.cluster.commits = [("committed", OutcomeUnknownError("no answer", retriable=True))]
    done = bench.fail(7)
    bench.transactor._opened()
    bench.cluster.openings = [ClientError("no broker", retriable=True)] * 10_000
    bench.step()
    with pytest.raises(WriteFailedError, match=r"orders\[0\].*cannot be found out"):
        done.result(0)
    assert bench.cluster.begun == 1


def test_a_partition_that_went_away_ends_its_work_and_no_other(bench: Transactions) -> None:
    bench.cluster.commits = [("aborted", NotOwnerError("illegal generation"))]
    other = Claim(Side.SOURCE, bench.topic, 1, TopicPartition("redirect-orders", 0), path=bench.transactor)
    done = bench.fail(7)
    kept: Future[None] = bench.transactor.run(
        lambda: bench.transactor.writes.registration(bench.topic, REDIRECT), other, (3,)
    )
    bench.transactor._stopping.on_wait = [  # type: ignore[attr-defined]  # it is an Impatient
        lambda: bench.state.release(Side.SOURCE, bench.topic)
    ]
    bench.step()
    with pytest.raises(PartitionLostError):
        done.result(0)
    assert kept.result(0) is None
    assert bench.cluster.topics() == ["redirect"]
    assert bench.cluster.offsets == {TopicPartition("orders", 1): Committed(4)}


def test_what_was_lost_is_never_committed_even_by_a_membership_that_is_valid_again(bench: Transactions) -> None:
    """Lost and joined again while the transaction was under way: the broker would take it."""
    done = bench.fail(7)
    bench.cluster.in_begin = lambda: bench.state.lose(Side.SOURCE, [SOURCE])
    bench.transactor._stopping.on_wait = [  # type: ignore[attr-defined]  # it is an Impatient
        lambda: None,
        lambda: None,
        lambda: bench.state.release(Side.SOURCE, bench.topic),
    ]
    bench.step()
    with pytest.raises(PartitionLostError):
        done.result(0)
    assert (bench.cluster.begun, bench.cluster.log, bench.cluster.offsets) == (1, [], {})


def test_a_record_that_is_too_large_fails_alone(bench: Transactions) -> None:
    bench.cluster.too_large = b"large"
    bench.fails[2] = ValueError("no")
    large = bench.path.submit(record(2, b"b", b"large"), bench.handler)
    futures = [bench.fail(1, b"a"), large.done, bench.fail(3, b"c")]  # type: ignore[union-attr]  # it is pending
    bench.step()
    assert futures[0].result(0) is futures[2].result(0) is Outcome.REDIRECTED
    with pytest.raises(RecordTooLargeError):
        futures[1].result(0)
    assert sorted(bench.cluster.topics()) == ["redirect", "redirect", "retry", "retry"]
    assert bench.cluster.offsets == {SOURCE: Committed(4)}, "as the ledger would have it, were it the real one"


def test_what_cannot_be_written_in_time_stops_the_consumer(bench: Transactions) -> None:
    bench.cluster.sends = [ClientError("no leader", retriable=True)] * 10_000
    done = bench.fail(7)
    bench.step()
    with pytest.raises(WriteFailedError, match="no leader"):
        done.result(0)
    assert bench.clock.ms >= 1_000_000 + 10_000, "for as long as a write may take"


def test_a_refused_membership_stops_nobody_however_late_it_is(bench: Transactions) -> None:
    """Frozen and thawed, the writes of before having failed: the group has gone on, and takes us in again."""

    def thaw() -> None:
        bench.clock.ms += 60_000
        bench.cluster.in_begin = be_refused

    def be_refused() -> None:
        bench.cluster.in_begin = lambda: None
        raise NotOwnerError("no member at the moment")

    bench.cluster.sends = [ClientError("no leader", retriable=True)]
    done = bench.fail(7)
    bench.transactor._stopping.on_wait = [thaw]  # type: ignore[attr-defined]  # it is an Impatient
    bench.step()
    assert done.result(0) is Outcome.REDIRECTED
    assert bench.cluster.begun == 3


def test_a_refusal_for_good_is_told_at_once(bench: Transactions) -> None:
    bench.cluster.openings = [ClientError("TransactionalIdAuthorizationFailed")]
    done = bench.fail(7)
    bench.step()
    with pytest.raises(WriteFailedError, match="TransactionalIdAuthorizationFailed"):
        done.result(0)
    assert bench.clock.ms < 1_000_000 + 1_000


def test_a_failure_holds_the_next_record_of_its_key_back(bench: Transactions) -> None:
    bench.cluster.openings = [ClientError("refused")]
    first, second = bench.fail(1, b"a"), bench.submit(2, b"a").done
    bench.step()
    bench.step()
    bench.sequencer.step()
    for done in (first, second):
        with pytest.raises(WriteFailedError):
            done.result(0)
    assert bench.cluster.log == []


def test_what_waits_when_it_is_closed_is_told_so(bench: Transactions) -> None:
    waiting = bench.fail(1)
    bench.transactor.close()
    late = bench.fail(2, b"b")
    for done in (waiting, late):
        with pytest.raises(TransientError):
            done.result(0)


def test_each_transactor_has_an_id_of_its_own_with_a_prefix_for_acls(bench: Transactions) -> None:
    bench.fail(7)
    bench.step()
    assert bench.cluster.id.startswith("kafetrain-billing-")
    assert bench.cluster.id != Transactions().transactor._id


def test_a_client_without_transactions_is_refused(bench: Transactions) -> None:
    client: Any = SimpleNamespace()
    with pytest.raises(ConfigurationError, match="SimpleNamespace has none"):
        Transactor(client, client, bench.carrying, "billing", bench.clock, bench.ended.append)


def test_loops_of_ones_own_commit_offsets_themselves_and_are_refused(bench: Transactions) -> None:
    tracker = ErrorTracker(bench.settings)
    calls: list[Callable[[], object]] = [
        lambda: tracker.redirect(record(1)),
        lambda: tracker.redirect_async(record(1)),
        lambda: tracker.free(record(1)),
        lambda: tracker.send_to_dlq(record(1), ValueError()),
        lambda: tracker.process(record(1), bench.handler),
        lambda: tracker.resilient_handler(bench.handler),
        lambda: tracker.rebalance_listener(),
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match=r"is for loops of your own.*KafkaConsumer\.resilient"):
            call()


def test_a_failure_ends_all_that_waits_behind_it_however_much(bench: Transactions) -> None:
    """A key with thousands of records in hand when its partition goes."""
    futures = [bench.fail(1, b"a"), *(bench.submit(offset, b"a").done for offset in range(2, 3_000))]
    claim = bench.claim
    bench.state.release(Side.SOURCE, bench.topic)
    bench.step()
    bench.sequencer.step()
    assert [future for future in futures if not isinstance(future.exception(0), PartitionLostError)] == []
    assert not claim.is_writing
