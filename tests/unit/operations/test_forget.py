"""`GroupRemoval`: a group that is gone leaves nothing behind, and nobody else loses anything."""

from __future__ import annotations

import pytest

from kafetrain.client.ports import ClientError, Committed
from kafetrain.errors import ConfigurationError, KafetrainError
from kafetrain.operations.forget import GroupRemoval, Traces
from kafetrain.operations.lock_removal import LockCount
from kafetrain.record import TopicPartition
from kafetrain.settings import Settings
from tests.unit.operations.test_reset import AUDIT, NEW, Orders, replicate


@pytest.fixture
def cluster() -> Orders:
    orders = Orders()
    orders.add("bills", 1)
    orders.register(0, NEW)
    orders.register(0, NEW, group="mail")
    orders.lock(3)
    orders.lock(4)
    orders.lock(3, group="mail")
    orders.dead(9)
    return orders


@pytest.fixture
def settings() -> Settings:
    return Settings(group_id="billing")


def forget(cluster: Orders, settings: Settings, *topics: str) -> list[Traces]:
    with GroupRemoval(cluster, settings, topics or ("orders",)) as removal:
        return removal.run(AUDIT)


def test_it_says_first_what_would_be_lost_topic_by_topic(cluster: Orders, settings: Settings) -> None:
    before = cluster.contents()
    with GroupRemoval(cluster, settings, ["orders", "bills", "orders"]) as removal:
        assert removal.look() == [Traces("orders", (0,), LockCount(pending=2, dead=1)), Traces("bills")]
    assert cluster.contents() == before
    assert cluster.open_clients == 0


def test_its_locks_and_its_registration_end_and_no_other_groups(cluster: Orders, settings: Settings) -> None:
    forget(cluster, settings, "orders", "bills")
    assert cluster.locks() == set()
    assert cluster.registered() == {}
    assert cluster.locks("mail") == {"mail/orders/0/3"}
    assert cluster.registered("mail") == {0: NEW}
    assert cluster.open_clients == 0


def test_a_second_run_changes_nothing(cluster: Orders, settings: Settings) -> None:
    forget(cluster, settings)
    before = cluster.contents()
    assert forget(cluster, settings) == [Traces("orders")]
    assert cluster.contents() == before


def test_its_retry_offsets_go_to_the_end_where_it_has_any(cluster: Orders, settings: Settings) -> None:
    fresh = replicate(cluster)
    forget(fresh, settings)
    assert fresh.commits == {}
    place = TopicPartition("retry-orders", 0)
    cluster.commits["billing-retry", place] = Committed(1)
    forget(cluster, settings)
    assert cluster.commits["billing-retry", place] == Committed(3)


def test_after_a_crash_at_any_write_it_is_found_again(cluster: Orders, settings: Settings) -> None:
    forget(whole := replicate(cluster), settings)
    assert whole.writes == 4
    for crash_at in range(whole.writes):
        crashed = replicate(cluster)
        crashed.writes_left = crash_at
        with pytest.raises(ClientError, match="run the command again"):
            forget(crashed, settings)
        crashed.writes_left = None
        assert forget(crashed, settings)[0].partitions == (0,)
        assert (crashed.locks(), crashed.registered()) == (set(), {})


@pytest.mark.parametrize("group", ["billing", "billing-retry"])
def test_a_group_with_members_is_not_gone(cluster: Orders, settings: Settings, group: str) -> None:
    cluster.members[group] = 1
    before = cluster.contents()
    with pytest.raises(KafetrainError, match=f"{group} has 1 member: stop all instances"):
        forget(cluster, settings)
    assert cluster.contents() == before


def test_a_group_whose_source_topic_is_gone_too_can_be_forgotten(cluster: Orders, settings: Settings) -> None:
    del cluster.topics["orders"]
    forget(cluster, settings)
    assert cluster.locks() == set()


def test_a_topic_that_nobody_knows_is_an_error(cluster: Orders, settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="order does not exist, and neither does redirect-order"):
        forget(cluster, settings, "orders", "order")
    assert cluster.registered() == {0: NEW}
