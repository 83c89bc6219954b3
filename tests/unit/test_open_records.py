"""The account of what a producer has under way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest

from kafetrain.client import open_records
from kafetrain.client.open_records import OpenRecord, OpenRecords
from kafetrain.client.ports import ClientError, OutgoingRecord
from tests.waiting import wait_for

AT_ONCE = timedelta(0)


def a_record(size: int = 10) -> OpenRecord:
    return OpenRecord(OutgoingRecord("t", 0, None, bytes(size)), None)


def in_a_minute() -> float:
    return time.monotonic() + 60


def waiting(account: OpenRecords[OpenRecord], call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    wait_for("it waits", lambda: bool(account.changed._waiters))  # type: ignore[attr-defined]  # no stub has it
    return thread


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> OpenRecords[OpenRecord]:
    """With room for two records or 30 bytes."""
    monkeypatch.setattr(open_records, "MAX_RECORDS", 2)
    monkeypatch.setattr(open_records, "MAX_BYTES", 30)
    return OpenRecords()


@pytest.mark.parametrize(("sizes", "refused"), [((10, 10), 10), ((25,), 10), ((100,), 1)])
def test_what_does_not_fit_in_time_is_refused_and_may_come_again(
    account: OpenRecords[OpenRecord], sizes: tuple[int, ...], refused: int
) -> None:
    for size in sizes:
        account.add(a_record(size), in_a_minute())
    with pytest.raises(ClientError, match=rf"t\[0\]: {len(sizes)} records of {sum(sizes)} bytes") as error:
        account.add(a_record(refused), time.monotonic())
    assert error.value.retriable


def test_who_waits_for_room_goes_on_when_a_record_ends(account: OpenRecords[OpenRecord]) -> None:
    first = a_record(30)
    account.add(first, in_a_minute())
    waits = waiting(account, lambda: account.add(a_record(), in_a_minute()))
    assert account.remove(first)
    waits.join(30)
    assert [one.size_bytes for one in account.left()] == [10]
    assert not account.remove(first), "it has ended once"


def test_who_waits_for_room_is_told_when_it_is_closed(account: OpenRecords[OpenRecord]) -> None:
    account.add(a_record(30), in_a_minute())
    errors: list[ClientError] = []

    def add() -> None:
        with pytest.raises(ClientError, match="closed") as error:
            account.add(a_record(), in_a_minute())
        errors.append(error.value)

    waits = waiting(account, add)
    assert account.close(AT_ONCE)
    waits.join(30)
    assert not errors[0].retriable
    assert not account.close(AT_ONCE), "it was closed before"


def test_closing_and_flushing_wait_for_what_is_under_way(account: OpenRecords[OpenRecord]) -> None:
    for how in (account.flush, account.close):
        one = a_record()
        account.add(one, in_a_minute())
        waits = waiting(account, partial(how, timedelta(minutes=1)))
        account.remove(one)
        waits.join(30)
        assert not waits.is_alive()


def test_a_flush_waits_no_longer_than_it_may(account: OpenRecords[OpenRecord]) -> None:
    one = a_record()
    account.add(one, in_a_minute())
    account.flush(AT_ONCE)
    assert account.first() is one
