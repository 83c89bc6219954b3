"""A handler that does nothing but know when it began and ended."""

from __future__ import annotations

import threading
import time

__all__ = ["Counter"]


class Counter:
    """For one thread at a time. Takes whatever a client calls a record."""

    def __init__(self, expected: int) -> None:
        self._expected, self._count = expected, 0
        self._first = self._last = self._first_cpu = self._last_cpu = 0.0
        self.done = threading.Event()

    def __call__(self, record: object) -> None:
        if self._count == 0:
            self._first, self._first_cpu = time.perf_counter(), time.process_time()
        self._count += 1
        if self._count == self._expected:
            self._last, self._last_cpu = time.perf_counter(), time.process_time()
            self.done.set()

    @property
    def rate(self) -> float:
        """Records a second, from the first call to the last."""
        return self._expected / (self._last - self._first)

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU a record, of the whole process, from the first call to the last."""
        return 1e6 * (self._last_cpu - self._first_cpu) / self._expected
