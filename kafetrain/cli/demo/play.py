"""The demo from its first record to its last: produces what is due, watches, and stops when all has ended."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Protocol

from kafetrain import Lock
from kafetrain.cli.demo.cluster import Cluster
from kafetrain.cli.demo.events import Event, Recorder
from kafetrain.cli.demo.progress import Line, Progress
from kafetrain.cli.demo.scenario import Scenario
from kafetrain.cli.demo.stage import Stage

__all__ = ["View", "play"]

GIVE_UP_AFTER_S = 30.0
"""Without any event. What has no end by then is lost."""
TICK_S = 0.02
FRAME_S = 0.1


class View(Protocol):
    """Shows how far the demo is. One thread."""

    def show(
        self, phase: str, now_s: float, progress: Progress, lines: Iterable[Line], locks: Iterable[Lock]
    ) -> None: ...

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def play(cluster: Cluster, scenario: Scenario, view: View) -> list[Event]:
    """All that happened. Raises what ended a part of it: `FatalError`, `ClientError`."""
    recorder, progress = Recorder(), Progress(scenario)

    def show(phase: str, locks: Iterable[Lock] = ()) -> None:
        lines = progress.take(recorder.since(len(progress.events)))
        view.show(phase, recorder.now_s, progress, lines, locks)

    with view:
        show("starting: topics, consumers")
        with Stage(cluster, scenario, recorder) as stage:
            stage.warm_up(lambda: show("starting: the consumers join their groups, which takes Kafka three seconds"))
            recorder.begin()
            _run(stage, scenario, recorder, progress, show)
        show("stopped" if progress.all_ended else "given up")
    return progress.events


def _run(stage: Stage, scenario: Scenario, recorder: Recorder, progress: Progress, show: _Show) -> None:
    last_s = scenario.orders[-1].at_s
    next_frame_s = 0.0
    while not progress.all_ended:
        stage.produce_due()
        stage.check()
        now_s = recorder.now_s
        if now_s >= next_frame_s:
            next_frame_s = now_s + FRAME_S
            show("orders come in" if now_s <= last_s else "all orders are in; the last ones end", stage.locks())
        latest_s = progress.events[-1].at_s if progress.events else last_s
        if now_s - max(latest_s, last_s) > GIVE_UP_AFTER_S:
            return
        time.sleep(TICK_S)


class _Show(Protocol):
    def __call__(self, phase: str, locks: Iterable[Lock] = ()) -> None: ...
