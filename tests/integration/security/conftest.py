"""One secured broker for these tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.integration.security.secured import SecuredBroker, secured_broker


@pytest.fixture(autouse=True, scope="session")
def quiet_kafka() -> Iterator[None]:
    """kafka-python says each refused connection several times."""
    log = logging.getLogger("kafka")
    level = log.level
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(level)


@pytest.fixture(scope="package")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    with secured_broker(tmp_path_factory.mktemp("certificates")) as secured:
        yield secured
