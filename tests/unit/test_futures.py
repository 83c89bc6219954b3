"""Light futures do what the standard ones do for whoever looks at them, and cannot be called off."""

from __future__ import annotations

import threading
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures import wait as wait_for_all

import pytest

from kafetrain.futures import LightFuture, copy_outcome, plain


def test_one_that_has_ended_tells_its_result_or_its_error() -> None:
    fine: LightFuture[int] = LightFuture()
    fine.set_result(5)
    assert (fine.done(), fine.running(), fine.result(), fine.exception()) == (True, False, 5, None)
    failed: LightFuture[int] = LightFuture()
    failed.set_exception(KeyError("k"))
    assert isinstance(failed.exception(), KeyError)
    with pytest.raises(KeyError):
        failed.result()


def test_callbacks_are_called_in_order_each_once_and_at_once_where_it_has_ended() -> None:
    future: LightFuture[int] = LightFuture()
    called: list[tuple[int, int]] = []
    for number in range(3):
        future.add_done_callback(lambda done, number=number: called.append((number, done.result())))  # type: ignore[misc]
    assert not called
    future.set_result(7)
    future.add_done_callback(lambda done: called.append((3, done.result())))
    assert called == [(0, 7), (1, 7), (2, 7), (3, 7)]


def test_a_callback_that_fails_is_told_and_keeps_no_other_from_its_turn() -> None:
    future: LightFuture[int] = LightFuture()
    called: list[str] = []

    def fails(_: Future[int]) -> None:
        raise ValueError("in a callback")

    future.add_done_callback(fails)
    future.add_done_callback(lambda _: called.append("the next"))
    future.set_result(1)
    assert called == ["the next"]
    assert future.result() == 1


def test_it_ends_once_and_cannot_be_called_off() -> None:
    future: LightFuture[int] = LightFuture()
    assert not future.cancel()
    assert not future.cancelled()
    assert future.running()
    future.set_result(1)
    with pytest.raises(InvalidStateError):
        future.set_result(2)
    with pytest.raises(InvalidStateError):
        future.set_exception(KeyError())
    assert future.result() == 1


def test_a_thread_may_wait_for_it() -> None:
    future: LightFuture[str] = LightFuture()
    with pytest.raises(FutureTimeoutError):
        future.result(0.01)
    with pytest.raises(FutureTimeoutError):
        future.exception(0.01)
    threading.Thread(target=lambda: future.set_result("late")).start()
    assert future.result(30) == "late"


def test_many_threads_that_listen_are_all_told_once() -> None:
    for _ in range(50):
        future: LightFuture[int] = LightFuture()
        told: list[int] = []
        started = threading.Barrier(5)

        def listen(future: LightFuture[int] = future, told: list[int] = told, go: threading.Barrier = started) -> None:
            go.wait()
            future.add_done_callback(lambda done: told.append(done.result()))

        threads = [threading.Thread(target=listen) for _ in range(4)]
        for thread in threads:
            thread.start()
        started.wait()
        future.set_result(3)
        for thread in threads:
            thread.join()
        assert told == [3, 3, 3, 3]


def test_what_leaves_the_library_can_be_waited_for_with_others() -> None:
    light: LightFuture[int] = LightFuture()
    followed = plain(light)
    assert type(followed) is Future
    assert not followed.cancel()
    threading.Thread(target=lambda: light.set_result(4)).start()
    assert wait_for_all([followed], timeout=30).done == {followed}
    assert followed.result() == 4


def test_an_outcome_is_copied_be_it_a_result_or_an_error() -> None:
    failed: LightFuture[int] = LightFuture()
    into: LightFuture[int] = LightFuture()
    failed.set_exception(KeyError("k"))
    copy_outcome(failed, into)
    assert into.exception() is failed.exception()
