"""One managed consumer through its life: switched on and off, restarted after errors, disabled after too many.

    OFF ⇄ STARTING → RUNNING → STOPPING → OFF          the switch
                 └──────┴────→ RESTARTING → STARTING   an error, fewer than the limit in a row
                        └────→ DISABLED                the limit; the switch brings it back

One thread of its own does it all; the switch only says what is wanted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Protocol

from loguru import logger

from kafetrain.clock import Clock
from kafetrain.errors import KafetrainError, first_line
from kafetrain.managed.config import ConsumerConfig
from kafetrain.managed.status import ConsumerState, ConsumerStatus

__all__ = ["Engine", "Job"]

CHECK_EVERY_S = 0.1


class Engine(Protocol):
    """A consumer that is built for one run. The job's thread calls it."""

    def start(self) -> None:
        """Returns once it runs in the background. What it raises leaves nothing running."""

    def check(self) -> None:
        """Raise what ended it, if something did."""

    def stop(self) -> None:
        """Let running handlers end, commit, leave the group. Raises what ended it before. Bounded."""


class Job:
    """Any thread may call it. `build` makes an engine that calls the given function at each success."""

    def __init__(self, config: ConsumerConfig, build: Callable[[Callable[[], None]], Engine], clock: Clock) -> None:
        self.config = config
        self._build, self._clock = build, clock
        # Guards all below but `engine`; nothing else is taken inside. Notified when what is wanted, or the state,
        # changes.
        self._changed = threading.Condition()
        self._wanted = self._ending = False
        self._state = ConsumerState.OFF
        self._since_ms = clock.now_ms()
        self._errors = self._restarts = 0
        self._last_error: str | None = None
        self._thread: threading.Thread | None = None
        self._was_switched_off = False
        self.engine: Engine | None = None
        """While there is one. Set by the job's thread alone; anyone may read it."""

    def switch(self, on: bool) -> None:
        """Say what is wanted, and return at once."""
        with self._changed:
            self._was_switched_off = not on
            if on and not self._wanted:
                self._errors = self._restarts = 0
            self._wanted = on
            self._ending = self._ending and not on  # off says nothing against the end that was asked for
            if not on and self._state is ConsumerState.DISABLED:
                self._enter(ConsumerState.OFF)
            if on and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(
                    target=self._run, name=f"kafetrain-job-{self.config.job_name}", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def request_end(self) -> None:
        """Switch it off and end its thread; returns at once."""
        with self._changed:
            self._wanted, self._ending = False, True
            self._changed.notify_all()

    def join(self, timeout_s: float | None) -> bool:
        """Wait until its thread has ended; False where it has not in time."""
        thread = self._thread
        if thread is None:
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    @property
    def stays_off(self) -> bool:
        """Only its switch is to bring it back: it was used to switch it off, or it is disabled."""
        with self._changed:
            return self._was_switched_off or self._state is ConsumerState.DISABLED

    def status(self) -> ConsumerStatus:
        with self._changed:
            since = datetime.fromtimestamp(self._since_ms / 1000, timezone.utc)
            return ConsumerStatus(
                self.config.job_name, self._state, since, self._restarts, self._errors, self._last_error
            )

    # Its own thread

    def _run(self) -> None:
        while self._wait_until_wanted():
            error = self._consume()
            if error is None:
                self._set_state(ConsumerState.OFF)
            else:
                self._failed(error)

    def _wait_until_wanted(self) -> bool:
        """False: the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._wanted or self._ending)
            if self._wanted:
                return True
            self._thread = None  # in the same breath: a switch from now on starts another
            return False

    def _consume(self) -> BaseException | None:
        """One run, until it is switched off or fails. What it failed with."""
        failure: BaseException | None = None
        engine: Engine | None = None
        self._set_state(ConsumerState.STARTING)
        try:
            self.engine = engine = self._build(self._succeeded)
            engine.start()
            self._set_state(ConsumerState.RUNNING)
            while self._is_wanted(CHECK_EVERY_S):
                engine.check()
        except BaseException as error:  # a handler may have raised SystemExit, which is not meant for this thread
            failure = error
        if engine is not None:
            self._set_state(ConsumerState.STOPPING)
            try:
                engine.stop()
            except BaseException as error:
                failure = failure or error
            self.engine = None
        return failure

    def _is_wanted(self, wait_s: float) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: not self._wanted, wait_s)
            return self._wanted

    def _succeeded(self) -> None:
        if self._errors:  # without the lock: this is called for every record
            with self._changed:
                self._errors = 0

    def _failed(self, error: BaseException) -> None:
        log = logger.bind(job=self.config.job_name)
        # Only our own errors are known to hold no payload.
        said = first_line(error) if isinstance(error, KafetrainError) else type(error).__name__
        with self._changed:
            self._last_error = said
            self._errors += 1
            errors = self._errors
            if not self._wanted:
                self._enter(ConsumerState.OFF)
                return
            if errors >= self.config.max_consecutive_errors:
                self._wanted = False
                self._enter(ConsumerState.DISABLED)
            else:
                self._enter(ConsumerState.RESTARTING)
        if errors >= self.config.max_consecutive_errors:
            log.error("disabled after {} errors in a row, the last one {}; switch it on again", errors, said)
            return
        wait = self.config.restart_backoff(errors)
        log.warning("failed with {}; restart in {} s", said, wait.total_seconds())
        with self._changed:
            self._changed.wait_for(lambda: not self._wanted, wait.total_seconds())
            if self._wanted:
                self._restarts += 1
            else:
                self._enter(ConsumerState.OFF)

    def _set_state(self, state: ConsumerState) -> None:
        with self._changed:
            self._enter(state)

    def _enter(self, state: ConsumerState) -> None:
        if state is not self._state:
            self._state, self._since_ms = state, self._clock.now_ms()
            self._changed.notify_all()
