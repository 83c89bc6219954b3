"""`TopicReset`: what becomes of the locks of a topic that was deleted and created again."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from kafetrain.client.ports import ClientError, Committed
from kafetrain.core.control import Action, Audit, Control, control_headers
from kafetrain.core.entry import Entry, Registration, encode_entry, encode_registration, registration_key
from kafetrain.core.headers import retry_headers
from kafetrain.errors import ConfigurationError, KafetrainError, RestoreTimeoutError
from kafetrain.operations.lock_removal import LockCount
from kafetrain.operations.reset import ResetDone, TopicReset
from kafetrain.record import MessageId, TopicPartition
from kafetrain.settings import Settings
from tests.unit.memory_cluster import MemoryCluster, Stored

AUDIT = Audit("command-1", "ada@here", 1_700_000_000_000, "moved to a larger topic")
OLD, NEW = "old-id", "new-id"


class Orders(MemoryCluster):
    """The topic orders of two partitions, in its second life."""

    def __init__(self) -> None:
        super().__init__()
        self.add("orders", 2, NEW)
        for prefix in ("retry", "redirect", "dlq"):
            self.add(f"{prefix}-orders", 2)

    def register(self, partition: int, topic_id: str = OLD, group: str = "billing") -> None:
        value = encode_registration(Registration("orders", topic_id, 1))
        self.append("redirect-orders", partition, registration_key(group), value)

    def lock(
        self, offset: int, key: bytes | None = b"ada", *, partition: int = 0, group: str = "billing", **entry: Any
    ) -> None:
        """A pending one, with its retry record."""
        id = MessageId(group, "orders", partition, offset)
        self.put(id, locked := Entry(key, attempt=1, error_type="Down", error="no answer", **entry))
        headers = retry_headers(
            id, [("own", b"1")], timestamp_ms=7, entry=locked, max_retries=5, lock_offset=len(self.logs) - 1
        )
        self.append("retry-orders", partition, key, b"value-%d" % offset, headers)

    def put(self, id: MessageId, entry: Entry) -> None:
        self.append("redirect-orders", id.partition, str(id).encode(), encode_entry(entry))

    def dead(self, offset: int, key: bytes = b"bob", *, partition: int = 0) -> None:
        self.put(MessageId("billing", "orders", partition, offset), Entry(key).died((partition, 0)))

    def locks(self, group: str = "billing") -> set[str]:
        """Ids that are open, as the log says in the end."""
        found: dict[str, bytes | None] = {}
        for record in self.read("redirect-orders"):
            if record.key is not None and not record.key.startswith(b"group/"):
                found[record.key.decode()] = record.value
        return {id for id, value in found.items() if value is not None and id.startswith(f"{group}/")}

    def registered(self, group: str = "billing") -> dict[int, str]:
        last = {r.partition: r.value for r in self.read("redirect-orders") if r.key == registration_key(group)}
        return {partition: json.loads(value)["topic_id"] for partition, value in last.items() if value is not None}

    def letters(self) -> Counter[str]:
        return Counter(text(record, "x-dlq-id") for record in self.read("dlq-orders"))


def text(record: Stored, name: str) -> str:
    return (dict(record.headers)[name] or b"").decode()


@pytest.fixture
def cluster() -> Orders:
    """Six locks of billing on the former topic, in both partitions, and one of another group."""
    orders = Orders()
    for partition in (0, 1):
        orders.register(partition)
    orders.register(0, group="mail")
    for offset in (3, 4):
        orders.lock(offset)
    orders.lock(5, None)
    orders.lock(3, b"mia", partition=1)
    orders.lock(3, group="mail")
    orders.dead(9)
    orders.dead(8, partition=1)
    return orders


@pytest.fixture
def settings() -> Settings:
    return Settings(group_id="billing")


def reset(cluster: MemoryCluster, settings: Settings, *, dead_letter: bool = True) -> ResetDone:
    with TopicReset(cluster, settings, "orders") as resetting:
        return resetting.run(AUDIT, dead_letter=dead_letter)


def test_it_says_first_what_it_would_end_and_changes_nothing(cluster: Orders, settings: Settings) -> None:
    before = cluster.contents()
    with TopicReset(cluster, settings, "orders") as resetting:
        former = resetting.look()
    assert (former.topic_id, former.former_ids, former.partitions) == (NEW, (OLD,), (0, 1))
    assert former.locks == LockCount(pending=4, dead=2)
    assert cluster.contents() == before
    assert cluster.open_clients == 0


def test_pending_records_become_dead_letters_as_they_came(cluster: Orders, settings: Settings) -> None:
    done = reset(cluster, settings)
    assert (done.dead_lettered, done.dropped) == (4, 0)
    letters = cluster.read("dlq-orders")
    assert [(r.partition, r.key, r.value) for r in letters] == [
        (0, b"ada", b"value-3"),
        (0, b"ada", b"value-4"),
        (0, None, b"value-5"),
        (1, b"mia", b"value-3"),
    ]
    assert letters[0].headers[0] == ("own", b"1")
    assert {text(letter, "x-dlq-state") for letter in letters} == {"reset"}
    assert (text(letters[0], "x-dlq-attempts"), text(letters[0], "x-dlq-reason")) == ("1", "no answer")
    assert text(letters[0], "x-dlq-command") == AUDIT.command


def test_forgetting_writes_no_dead_letter(cluster: Orders, settings: Settings) -> None:
    done = reset(cluster, settings, dead_letter=False)
    assert (done.dead_lettered, done.dropped) == (0, 4)
    assert cluster.read("dlq-orders") == []
    assert cluster.locks() == set()


@pytest.mark.parametrize("dead_letter", [True, False])
def test_all_locks_of_the_group_end_and_no_other_groups(cluster: Orders, settings: Settings, dead_letter: bool) -> None:
    reset(cluster, settings, dead_letter=dead_letter)
    assert cluster.locks() == set()
    assert cluster.locks("mail") == {"mail/orders/0/3"}
    assert cluster.registered() == {0: NEW, 1: NEW}
    assert cluster.registered("mail") == {0: OLD}


def test_a_tombstone_tells_whose_key_it_frees_and_who_wanted_it(cluster: Orders, settings: Settings) -> None:
    reset(cluster, settings)
    ends = [record for record in cluster.read("redirect-orders") if record.value is None]
    assert len(ends) == 6
    for end in ends:
        assert (text(end, "x-retry-by"), text(end, "x-retry-why")) == (AUDIT.by, AUDIT.why)
    keys = {end.key: dict(end.headers).get("x-retry-key") for end in ends}
    assert keys[b"billing/orders/0/4"] == b"ada"
    assert keys[b"billing/orders/0/9"] == b"bob"
    assert keys[b"billing/orders/0/5"] is None


def test_the_retry_group_starts_behind_the_old_records(cluster: Orders, settings: Settings) -> None:
    reset(cluster, settings)
    retry = {place.partition: at for (group, place), at in cluster.commits.items() if group == "billing-retry"}
    assert retry == {0: Committed(4), 1: Committed(1)}


def test_source_offsets_of_the_former_topic_go_to_the_beginning_and_an_operators_stay(
    cluster: Orders, settings: Settings
) -> None:
    first, second = TopicPartition("orders", 0), TopicPartition("orders", 1)
    cluster.commits["billing", first] = Committed(10, "kafetrain:4")
    cluster.commits["billing", second] = Committed(2, "")
    assert reset(cluster, settings).rewound == (0,)
    assert cluster.commits["billing", first] == Committed(0, "")
    assert cluster.commits["billing", second] == Committed(2, "")


def test_only_partitions_of_the_former_topic_are_touched(cluster: Orders, settings: Settings) -> None:
    cluster.register(1, NEW)
    done = reset(cluster, settings)
    assert done.former.partitions == (0,)
    assert cluster.locks() == {"billing/orders/1/3", "billing/orders/1/8"}
    assert ("billing-retry", TopicPartition("retry-orders", 1)) not in cluster.commits


def test_a_second_run_changes_nothing(cluster: Orders, settings: Settings) -> None:
    reset(cluster, settings)
    before = cluster.contents()
    assert reset(cluster, settings).former.partitions == ()
    assert cluster.contents() == before


def test_without_a_registration_of_another_topic_there_is_nothing_to_do(settings: Settings) -> None:
    cluster = Orders()
    cluster.register(0, NEW)
    cluster.register(1, "")
    cluster.lock(3)
    before = cluster.contents()
    assert reset(cluster, settings).former.partitions == ()
    assert cluster.contents() == before
    del cluster.topics["redirect-orders"]
    assert reset(cluster, settings).former.partitions == ()


@pytest.mark.parametrize("dead_letter", [True, False])
def test_after_a_crash_at_any_write_the_next_run_ends_as_one_run_would(
    cluster: Orders, settings: Settings, dead_letter: bool
) -> None:
    reset(whole := replicate(cluster), settings, dead_letter=dead_letter)
    assert whole.writes == (4 if dead_letter else 0) + 6 + 2
    for crash_at in range(whole.writes):
        crashed = replicate(cluster)
        crashed.writes_left = crash_at
        with pytest.raises(ClientError, match="run the command again"):
            reset(crashed, settings, dead_letter=dead_letter)
        assert crashed.open_clients == 0
        assert OLD in crashed.registered().values(), "the group must not be able to start before all is done"
        crashed.writes_left = None
        reset(crashed, settings, dead_letter=dead_letter)
        assert crashed.locks() == whole.locks() == set()
        assert crashed.registered() == whole.registered()
        assert crashed.letters().keys() == whole.letters().keys()
        assert crashed.letters().total() - whole.letters().total() <= 2, "no more than a batch is there twice"
        assert [crashed.commits[key] for key in whole.commits] == list(whole.commits.values())


def test_after_a_crash_at_a_commit_the_group_cannot_start_before_the_next_run(
    cluster: Orders, settings: Settings
) -> None:
    cluster.commits["billing", TopicPartition("orders", 0)] = Committed(10, "kafetrain:4")
    for crash_at in (0, 1):
        crashed = replicate(cluster)
        crashed.commits_left = crash_at
        with pytest.raises(ClientError, match="coordinator"):
            reset(crashed, settings)
        assert crashed.registered() == {0: OLD, 1: OLD}
        crashed.commits_left = None
        assert reset(crashed, settings).rewound == (0,)
        assert crashed.registered() == {0: NEW, 1: NEW}
        assert crashed.letters().total() == 4


def replicate(cluster: Orders) -> Orders:
    copy = Orders()
    copy.logs = {place: list(log) for place, log in cluster.logs.items()}
    copy.commits = dict(cluster.commits)
    return copy


@pytest.mark.parametrize("group", ["billing", "billing-retry"])
def test_a_group_with_members_is_refused(cluster: Orders, settings: Settings, group: str) -> None:
    cluster.members[group] = 2
    before = cluster.contents()
    with pytest.raises(KafetrainError, match=f"{group} has 2 members: stop all instances"):
        reset(cluster, settings)
    assert cluster.contents() == before


def test_what_is_no_pending_record_of_the_group_is_left_alone(cluster: Orders, settings: Settings) -> None:
    cluster.append("retry-orders", 0, b"x", b"nobody's")
    control = Control(Action.RETRY_NOW, MessageId("billing", "orders", 0, 3), 2, AUDIT)
    cluster.append("retry-orders", 0, b"ada", b"", control_headers(control))
    cluster.lock(3)  # a second copy of a record that waits
    assert reset(cluster, settings).dead_lettered == 4
    assert set(cluster.letters().values()) == {1}


def test_a_pending_id_without_a_record_ends_and_is_counted(cluster: Orders, settings: Settings) -> None:
    cluster.put(MessageId("billing", "orders", 0, 7), Entry(b"eve"))
    done = reset(cluster, settings)
    assert (done.dead_lettered, done.dropped) == (4, 1)
    assert cluster.locks() == set()


def test_a_missing_retry_topic_leaves_nothing_to_move(cluster: Orders, settings: Settings) -> None:
    del cluster.topics["retry-orders"]
    done = reset(cluster, settings)
    assert (done.dead_lettered, done.dropped) == (0, 4)
    assert cluster.registered() == {0: NEW, 1: NEW}


def test_a_missing_dead_letter_topic_is_an_error_only_where_it_is_needed(cluster: Orders, settings: Settings) -> None:
    del cluster.topics["dlq-orders"]
    with pytest.raises(ConfigurationError, match="dlq-orders does not exist"):
        reset(cluster, settings)
    assert cluster.registered() == {0: OLD, 1: OLD}
    assert reset(cluster, settings, dead_letter=False).dropped == 4


def test_a_topic_that_is_gone_or_has_no_id_cannot_be_reset(cluster: Orders, settings: Settings) -> None:
    cluster.topics["orders"] = replace(cluster.topics["orders"], topic_id="")
    with pytest.raises(ConfigurationError, match="does not tell the id"):
        reset(cluster, settings)
    del cluster.topics["orders"]
    with pytest.raises(ConfigurationError, match="topics forget billing --topic orders"):
        reset(cluster, settings)


def test_a_topic_that_cannot_be_read_is_an_error(
    cluster: Orders, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.unit.memory_cluster._Reader.poll", lambda *_: {})
    quick = settings.model_copy(update={"state_restore_timeout": settings.state_restore_timeout / 1000})
    with pytest.raises(RestoreTimeoutError, match="redirect-orders"):
        reset(cluster, quick)
