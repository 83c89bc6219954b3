"""What other threads ask of the thread that owns a librdkafka consumer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from queue import Empty, SimpleQueue
from typing import TypeVar

from loguru import logger

from kafetrain.client.confluent_errors import client_error
from kafetrain.client.ports import ClientError

__all__ = ["Requests", "result_of"]

T = TypeVar("T")


class Requests:
    """Any thread asks; the consumer's thread carries out, in order."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def post(self, request: Callable[[], object]) -> None:
        """Its errors are logged."""

        def carry_out() -> None:
            try:
                request()
            except Exception as error:
                logger.debug("{}: {}", self._name, client_error(error, "a request to the consumer"))

        self._queue.put(carry_out)

    def ask(self, request: Callable[[], T]) -> Future[T]:
        """Cancelled before it is carried out, it is not."""
        future: Future[T] = Future()

        def carry_out() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(request())
            except BaseException as error:
                future.set_exception(error)

        self._queue.put(carry_out)
        return future

    def carry_out(self, wait_s: float = 0.0) -> None:
        """Everything that was asked for; waits for the first."""
        try:
            request = self._queue.get(timeout=wait_s) if wait_s else self._queue.get_nowait()
            while True:
                request()
                request = self._queue.get_nowait()
        except Empty:
            pass


def result_of(future: Future[T], timeout_s: float, doing: str) -> T:
    """`ClientError`: it failed; a retriable one where there is no result in time."""
    try:
        return future.result(timeout_s)
    except FutureTimeoutError:
        future.cancel()
        raise ClientError(f"{doing}: no answer within {timeout_s:g} s", retriable=True) from None
    except Exception as error:
        raise client_error(error, doing) from error
