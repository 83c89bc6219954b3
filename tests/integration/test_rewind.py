"""An operator who resets a group's offsets wants its records to run again; a restart does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kafetrain import KafkaConsumer, Record, get_retry_attempt
from tests.integration.journal import Journal
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


def fail_every_other(record: Record) -> None:
    if record.value.endswith((b"0", b"2", b"4", b"6", b"8")) and get_retry_attempt(record) == 0:
        raise ValueError("the first time")


@pytest.mark.parametrize("back_to", [0, 5, None], ids=["to-the-beginning", "to-the-middle", "no-offsets-at-all"])
def test_records_run_again_after_a_rewind_and_only_after_one(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, back_to: int | None
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings()
    written = cluster.write_all(topic, [(0, b"key-%d" % (at % 3), b"m%d" % at) for at in range(12)])

    def run(expected: int) -> Journal:
        """Until a last record, which fails nowhere, has succeeded."""
        journal = Journal()
        (last,) = cluster.write(topic, b"last", b"m99")
        with KafkaConsumer.resilient(settings, topic, journal.recording(fail_every_other)) as consumer:
            wait_for("the last has succeeded", lambda: last.offset in journal.offsets("ended"), check=consumer.check)
            wait_for("all have", lambda: len(journal.offsets("ended")) == expected, check=consumer.check)
        cluster.check_at_rest(settings, topic)
        return journal

    first = run(expected=13)
    first.no_loss(written)
    assert run(expected=1).offsets("started") == [13], "a restart is no rewind"

    if back_to is None:
        cluster.forget_group(settings.group_id)
    else:
        cluster.commit(settings.group_id, topic, {0: back_to})
    again = run(expected=15 - (back_to or 0))
    again.no_loss(written[back_to or 0 :])
    again.key_order(written[back_to or 0 :])
    again.honest_attempts()
    again.once()

    assert run(expected=1).offsets("started") == [15]
