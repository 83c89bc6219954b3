"""`kafetrain doctor` on a broker with access rules: it names each right that is missing, and asks for none besides."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.integration.security.secured import Right
from tests.integration.security.tables import Row
from tests.integration.security.test_permissions import ALL_LAYERS, PASSWORD, USER, Setup
from tests.integration.security.test_permissions import cluster as cluster
from tests.integration.security.test_permissions import setup as setup

pytestmark = pytest.mark.kafka


def doctor(setup: Setup, **changes: str) -> tuple[int, list[str]]:
    """Its exit code, and what it says but that all is well."""
    values = {**setup.secured.as_user(USER, PASSWORD), "auto_create_topics": "false", **changes}
    done = subprocess.run(
        [sys.executable, "-m", "kafetrain", "doctor", setup.topic, "--group", setup.group],
        env={**os.environ, **{f"KAFETRAIN_{name.upper()}": f"{value}" for name, value in values.items()}},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert PASSWORD not in done.stdout + done.stderr
    assert done.stderr == ""
    return done.returncode, [line for line in done.stdout.splitlines() if not line.startswith("ok ")]


def without(*dropped: Right) -> list[Row]:
    return [row for row in ALL_LAYERS if row.right not in dropped]


def test_with_the_table_it_finds_nothing_wrong(setup: Setup) -> None:
    setup.create_topics()
    setup.allow(ALL_LAYERS)
    assert doctor(setup) == (0, [])


def test_what_is_only_good_to_have_is_a_warning(setup: Setup) -> None:
    setup.create_topics()
    setup.allow([row for row in ALL_LAYERS if row.without_it == "error"])
    code, said = doctor(setup)
    missing = {
        setup.topic: {"DescribeConfigs": "it cannot be verified"},
        f"retry-{setup.topic}": {"DescribeConfigs": "it cannot be verified", "Delete": "what is done is not purged"},
        f"redirect-{setup.topic}": {"DescribeConfigs": "it cannot be verified", "Delete": "what is done is not purged"},
        f"dlq-{setup.topic}": {"DescribeConfigs": "it cannot be verified"},
    }
    assert code == 0
    assert [line for line in said if "permissions" in line] == [
        f"warning  permissions  this user may not {right} on topic {topic}: {so}"
        for topic, rights in missing.items()
        for right, so in rights.items()
    ]


def test_each_right_that_is_needed_and_missing_is_named(setup: Setup) -> None:
    setup.create_topics()
    setup.allow(
        without(
            Right("topic", "orders", "Read"),
            Right("topic", "redirect-orders", "Write"),
            Right("topic", "retry-orders", "Read"),
            Right("topic", "dlq-orders", "Write"),
            Right("group", "billing-retry", "Read"),
        )
    )
    code, said = doctor(setup)
    assert code == 1
    assert said == [
        f"warning  topics       {setup.topic} was not looked at: this user may not Describe {setup.topic}, "
        f"dlq-{setup.topic}",
        f"WRONG    permissions  this user may not Read and Describe on topic {setup.topic}",
        f"WRONG    permissions  this user may not Read on topic retry-{setup.topic}",
        f"WRONG    permissions  this user may not Write on topic redirect-{setup.topic}",
        f"WRONG    permissions  this user may not Write and Describe on topic dlq-{setup.topic}",
        f"WRONG    permissions  this user may not Read and Describe on group {setup.group}-retry",
    ]


def test_topics_that_are_yet_to_be_created_need_a_right_too(setup: Setup) -> None:
    setup.allow(ALL_LAYERS)
    code, said = doctor(setup, auto_create_topics="true")
    assert (code, len(said)) == (0, 1)
    assert "this user may not Create on the cluster: missing topics cannot be created, unless" in said[0]
