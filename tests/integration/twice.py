"""What transactions promise of the topics: nothing is in them twice, as a read_committed reader sees them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from kafetrain.testing import Broker

__all__ = ["committed_records", "nothing_twice"]


def committed_records(broker: Broker, topic: str) -> list[Any]:
    """Every record of a topic that a read_committed reader is given; waits until no transaction is open."""
    options = {"bootstrap_servers": broker.bootstrap_servers, **broker.client_options}
    with KafkaConsumer(isolation_level="read_committed", fetch_max_wait_ms=20, **options) as reader:
        places = [TopicPartition(topic, number) for number in sorted(reader.partitions_for_topic(topic) or ())]
        with KafkaConsumer(**options) as uncommitted:
            ends = uncommitted.end_offsets(places)
        reader.assign(places)
        reader.seek_to_beginning(*places)
        found: list[Any] = []
        while any(reader.position(place) < ends[place] for place in places):
            for records in reader.poll(timeout_ms=500).values():
                found += records
        return found


def nothing_twice(broker: Broker, topic: str) -> None:
    """One retry record an id, one dead letter an id, one entry an id and attempt, one tombstone an id.

    For records that no operator has put into retry again.
    """
    retries = Counter(dict(record.headers)["x-retry-id"] for record in committed_records(broker, f"retry-{topic}"))
    letters = Counter(dict(record.headers)["x-dlq-id"] for record in committed_records(broker, f"dlq-{topic}"))
    entries: Counter[tuple[bytes, Any]] = Counter()
    for record in committed_records(broker, f"redirect-{topic}"):
        if record.key.startswith(b"group/"):
            continue
        entry = None if record.value is None else json.loads(record.value)
        entries[record.key, entry and (entry["state"], entry["attempt"])] += 1
    for what, counted in (("retry records", retries), ("dead letters", letters), ("entries", entries)):
        twice = {key: count for key, count in counted.items() if count > 1}
        assert not twice, f"{what} of {topic} that are there more than once: {twice}"
