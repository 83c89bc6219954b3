"""A signal asks a consumer to stop, whatever the main thread is doing."""

from __future__ import annotations

import signal
import threading

import pytest

from kafetrain.consumer.consumer import stopped_by_signals
from tests.waiting import wait_for


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_may_come_while_the_main_thread_holds_a_lock_that_stopping_needs(number: signal.Signals) -> None:
    lock, taken = threading.Lock(), list[bool]()

    def request_stop() -> None:
        if got := lock.acquire(timeout=30):
            lock.release()
        taken.append(got)

    former = signal.getsignal(number)
    with stopped_by_signals(request_stop):
        with lock:
            signal.raise_signal(number)
        wait_for("it is asked", lambda: taken == [True])
        signal.raise_signal(number)
        wait_for("it is asked again", lambda: taken == [True, True])
    assert signal.getsignal(number) is former


def test_outside_of_the_main_thread_signals_are_left_alone() -> None:
    former, inside = signal.getsignal(signal.SIGTERM), list[object]()

    def elsewhere() -> None:
        with stopped_by_signals(lambda: None):
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert inside == [former]
