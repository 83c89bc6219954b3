"""Restoring locks: a tracker's start on a redirect partition full of entries, against a bare read of the same log."""

from __future__ import annotations

import time
from collections.abc import Iterator

from kafetrain import ErrorTracker, Settings
from kafetrain.core.entry import Entry, encode_entry
from kafetrain.record import MessageId
from kafetrain.testing import Broker
from tests.benchmarks.bare import read_all
from tests.benchmarks.filling import Written, write
from tests.benchmarks.ours import settings_for
from tests.benchmarks.report import Block, Scale, spread

__all__ = ["blocks", "entry_of"]

ENTRIES = 1_000_000
NOW_MS = 1_800_000_000_000


def blocks(broker: Broker, scale: Scale) -> Iterator[Block]:
    rows: list[tuple[str, ...]] = []
    data: dict[str, list[float]] = {}
    entries = scale.of(ENTRIES)
    for client in scale.clients:
        topic, settings = broker.create_unique_topic(1, prefix="restore"), settings_for(broker, client)
        with ErrorTracker(settings) as tracker:
            tracker.start_tracking(topic)  # creates the topics
        redirect = f"redirect-{topic}"
        write(broker, redirect, (entry_of(settings.group_id, topic, i) for i in range(entries)))
        bare: list[float] = []
        ours: list[float] = []
        for _ in range(scale.runs):
            bare.append(read_all(broker, redirect, client))
            ours.append(restore(settings, topic, entries))
        rows += [
            (f"bare read, {client}, s", *spread(bare, ".2f")),
            (f"kafetrain, {client}, s", *spread(ours, ".2f")),
            (f"ratio, {client}", *spread([one / other for one, other in zip(ours, bare, strict=True)], ".2f")),
        ]
        data |= {f"bare, {client}": bare, f"kafetrain, {client}": ours}
        broker.delete_topic(redirect)
    yield Block(
        "Restoring locks",
        f"{entries:,} entries of distinct keys in one redirect partition: seconds until `start_tracking` returns, and "
        f"seconds in which the same client reads the same log and does nothing with it.",
        ("", "min", "median", "max"),
        rows,
        data,
    )


def entry_of(group: str, topic: str, number: int) -> Written:
    """What the redirect topic holds of one record that has failed once."""
    entry = Entry(
        b"customer-%08d" % number,
        attempt=1,
        due_ms=NOW_MS + number,
        first_failure_ms=NOW_MS,
        error_type="TimeoutError",
        error="the payment service does not answer",
    )
    return Written(0, str(MessageId(group, topic, 0, number)).encode(), encode_entry(entry))


def restore(settings: Settings, topic: str, entries: int) -> float:
    begin = time.perf_counter()
    with ErrorTracker(settings) as tracker:
        tracker.start_tracking(topic)
        took = time.perf_counter() - begin
        found = sum(lock.pending for lock in tracker.locks(topic))
    if found != entries:
        raise AssertionError(f"{found} of {entries} locks were restored")
    return took
