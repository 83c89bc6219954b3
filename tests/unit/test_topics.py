"""Topic names, and the partition that a source partition's records go to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafetrain.errors import ConfigurationError
from kafetrain.settings import Settings
from kafetrain.topics import AuxiliaryTopics, partition_for


def names_of(topic: str = "orders", **values: Any) -> AuxiliaryTopics:
    return AuxiliaryTopics.of(Settings(**{"group_id": "billing", "_env_file": None, **values}), topic)


def error_of(topic: str = "orders", **values: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        names_of(topic, **values)
    return str(caught.value)


def test_names_are_prefix_and_topic() -> None:
    names = names_of()
    assert names == AuxiliaryTopics("orders", "retry-orders", "redirect-orders", "dlq-orders")
    assert names.auxiliary == ("retry-orders", "redirect-orders", "dlq-orders")


def test_names_follow_format_and_prefixes() -> None:
    names = names_of(topic_format="{topic}.{group}.{prefix}", dlq_topic_prefix="dead")
    assert names == AuxiliaryTopics("orders", "orders.billing.retry", "orders.billing.redirect", "orders.billing.dead")


def test_a_name_knows_its_role() -> None:
    names = names_of()
    assert [names.role_of(name) for name in ("orders", *names.auxiliary)] == ["source", "retry", "redirect", "dlq"]
    with pytest.raises(KeyError):
        names.role_of("invoices")


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("", "is empty"),
        (".", "is not allowed"),
        ("..", "is not allowed"),
        ("or ders", "has ' '"),
        ("orders/eu", "has '/'"),
        ("örders", "has 'ö'"),
        ("x" * 250, "has 250 characters, but Kafka allows 249"),
    ],
)
def test_a_source_topic_that_kafka_would_refuse_is_refused(topic: str, reason: str) -> None:
    text = error_of(topic)
    assert "the source topic's name" in text
    assert reason in text
    assert len(text) < 300


def test_an_auxiliary_name_that_is_too_long_is_named_with_its_setting() -> None:
    topic = "x" * 243
    text = error_of(topic)
    assert "the retry topic's name" not in text, "retry- and 243 characters are 249"
    assert "the redirect topic's name" in text
    assert "has 252 characters, but Kafka allows 249" in text
    assert "redirect_topic_prefix 'redirect'" in text
    assert names_of("x" * 240).redirect == "redirect-" + "x" * 240


def test_a_group_that_no_topic_name_may_have_is_named() -> None:
    text = error_of(topic_format="{prefix}-{group}-{topic}", group_id="billing/eu")
    assert text.count("has '/'") == 3
    assert "with group_id 'billing/eu'" in text
    assert names_of(group_id="billing/eu").retry == "retry-orders", "without {group} it does not matter"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dlq_topic_prefix": "retry"}, "the dlq topic 'retry-orders' would be the retry topic too"),
        ({"redirect_topic_prefix": "dl.q", "dlq_topic_prefix": "dl_q"}, "'dl_q-orders' would be the redirect topic"),
        ({"topic_format": "{topic}"}, "the retry topic 'orders' would be the source topic too"),
    ],
)
def test_no_name_is_taken_twice_even_by_settings_that_were_not_checked(changes: dict[str, str], expected: str) -> None:
    unchecked = Settings(group_id="billing", _env_file=None).model_copy(update=changes)
    with pytest.raises(ConfigurationError) as caught:
        AuxiliaryTopics.of(unchecked, "orders")
    assert expected in str(caught.value)


@given(source=st.integers(0, 10_000), auxiliary=st.integers(1, 10_000))
def test_with_as_many_partitions_as_the_source_each_goes_to_its_own_number(source: int, auxiliary: int) -> None:
    assert partition_for(source, auxiliary) == (source if source < auxiliary else None)


@given(source=st.integers(0, 10_000), auxiliary=st.integers(1, 10_000))
def test_with_an_explicit_count_partitions_are_shared(source: int, auxiliary: int) -> None:
    assert partition_for(source, auxiliary, retry_topic_partitions=auxiliary) == source % auxiliary


def test_growth_moves_no_partition_that_had_its_partner() -> None:
    before = [partition_for(p, 3) for p in range(5)]
    after = [partition_for(p, 5) for p in range(5)]
    assert before == [0, 1, 2, None, None]
    assert after == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("source", "auxiliary"), [(-1, 3), (0, 0)])
def test_partitions_that_cannot_be_are_refused(source: int, auxiliary: int) -> None:
    with pytest.raises(ValueError, match="no partition"):
        partition_for(source, auxiliary)
