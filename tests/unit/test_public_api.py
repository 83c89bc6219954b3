"""What users import, and what a layer may import: pinned."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import kafetrain
from kafetrain.record import DlqHeader, RetryHeader

PACKAGE = Path(kafetrain.__file__).parent
BELOW = {
    "core": {"errors", "record", "outcome", "core"},
    "client": {"errors", "record", "client", "futures", "settings"},
    "tracker": {"consumer", "retry"},
    "retry": {"consumer"},
}
"""`core` and `client` may import these parts of the package only; `tracker` and `retry` may not import those."""


PUBLIC = """
    App Breaker ConfigurationError ConstantBackoff ErrorHandlingMiddleware ErrorTracker ExponentialBackoff Handler
    KafetrainError KafkaConsumer LinearBackoff Lock LoggingMiddleware Middleware NotRetriableError NotTrackedError
    Outcome Pause Record RetriableError RetryManager Settings as_record get_original_topic get_retry_attempt
    get_retry_reason is_retriable is_retry_message json_of text_of
"""


def test_the_public_names() -> None:
    assert sorted(kafetrain.__all__) == kafetrain.__all__ == PUBLIC.split()
    assert {name for name in kafetrain.__all__ if not hasattr(kafetrain, name)} == set()


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def own_parts(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(path) if name.startswith("kafetrain.")}


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=lambda path: path.name)
def test_core_is_pure(path: Path) -> None:
    assert own_parts(path) <= BELOW["core"]
    assert not {"threading", "time", "socket", "queue", "loguru", "kafka", "random"} & imported(path)


@pytest.mark.parametrize("path", sorted((PACKAGE / "client").glob("*.py")), ids=lambda path: path.name)
def test_the_client_knows_no_layer(path: Path) -> None:
    assert own_parts(path) <= BELOW["client"]


@pytest.mark.parametrize("layer", ["tracker", "retry"])
def test_layers_import_only_what_is_below_them(layer: str) -> None:
    for path in (PACKAGE / layer).glob("*.py"):
        assert not own_parts(path) & BELOW[layer], path


def test_only_the_client_and_the_test_kit_import_a_kafka_library() -> None:
    for path in PACKAGE.rglob("*.py"):
        inside = path.relative_to(PACKAGE).parts
        if inside[0] not in {"client", "testing"} and inside[:2] != ("cli", "demo"):
            libraries = {name for name in imported(path) if name.split(".")[0] in {"kafka", "confluent_kafka"}}
            assert not libraries, path


def test_header_names_are_public() -> None:
    """Programs in other languages read them: a changed name is a changed format."""
    retry = {name: value for name, value in vars(RetryHeader).items() if name.isupper()}
    dlq = {name: value for name, value in vars(DlqHeader).items() if name.isupper()}
    assert sorted(retry.values()) == sorted(
        "x-retry-" + name
        for name in (
            "id group topic partition offset timestamp attempt max due first-failure reason error-type lock-offset "
            "null-headers null-value key control dead-at command by at why transform"
        ).split()
    )
    assert sorted(dlq.values()) == sorted(
        "x-dlq-" + name
        for name in (
            "id group topic partition offset attempts reason error-type state timestamp first-failure null-headers "
            "null-value source-timestamp topic-id command transform replayed"
        ).split()
    )
