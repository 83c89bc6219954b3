"""Sequences: each write after the acknowledgement of the one before, none blocking another."""

from __future__ import annotations

from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import pytest

from kafetrain.errors import NotTrackedError, TransientError
from kafetrain.tracker.sequence import Sequence, Sequencer


def two_writes(first: Future[int], second: Future[int], sent: list[str]) -> Sequence[int]:
    sent.append("first")
    offset: int = yield first
    sent.append(f"second behind {offset}")
    another: int = yield second
    return offset + another


@pytest.fixture
def sequencer() -> Sequencer:
    return Sequencer(max_wait=timedelta(0))


def test_the_second_write_waits_for_the_first_ones_acknowledgement(sequencer: Sequencer) -> None:
    first: Future[int] = Future()
    second: Future[int] = Future()
    sent: list[str] = []
    result = sequencer.run(two_writes(first, second, sent))
    sequencer.step()
    assert sent == ["first"]
    first.set_result(40)
    assert sent == ["first"]  # not on the client's thread
    sequencer.step()
    assert sent == ["first", "second behind 40"]
    assert not result.done()
    second.set_result(2)
    sequencer.step()
    assert result.result() == 42


def test_a_failed_write_ends_the_sequence_with_its_error(sequencer: Sequencer) -> None:
    first: Future[int] = Future()
    sent: list[str] = []
    result = sequencer.run(two_writes(first, Future(), sent))
    first.set_exception(ValueError("refused"))
    sequencer.step()
    assert sent == ["first"]
    with pytest.raises(ValueError, match="refused"):
        result.result()


def test_what_was_sent_cannot_be_called_back(sequencer: Sequencer) -> None:
    result = sequencer.run(two_writes(Future(), Future(), []))
    assert not result.cancel()


def test_sequences_do_not_wait_for_each_other(sequencer: Sequencer) -> None:
    stuck = sequencer.run(two_writes(Future(), Future(), []))
    done: Future[Any] = Future()
    done.set_result(1)
    quick = sequencer.run(two_writes(done, done, []))
    sequencer.step()
    assert quick.result() == 2
    assert not stuck.done()


def test_who_waits_for_an_abandoned_sequence_is_told(sequencer: Sequencer) -> None:
    waiting = sequencer.run(two_writes(Future(), Future(), []))
    assert not sequencer.wait_idle(0)
    sequencer.close()
    with pytest.raises(TransientError, match="comes again"):
        waiting.result(timeout=0)
    assert sequencer.wait_idle(0)
    with pytest.raises(NotTrackedError, match="closed"):
        sequencer.run(two_writes(Future(), Future(), [])).result(timeout=0)
