"""What `kafetrain run` shows of the events of others."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from loguru import logger

from kafetrain.app.logs import show_logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    client = logging.getLogger("kafka")
    level = client.level
    client.setLevel(logging.NOTSET)  # other tests silence it for as long as they run
    yield
    client.setLevel(level)
    logger.remove()
    logger.disable("kafetrain")


def test_what_the_client_says_at_each_of_its_tries_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    show_logs("info", as_json=True)
    for wait_s in range(3):
        logging.getLogger("kafka.net.manager").warning("no broker; waiting %d s", wait_s)
        logging.getLogger("kafka.net.manager").info("not serious")
        logging.getLogger("billing").warning("the app's own")
        logging.getLogger("kafka.net.selector").warning("it ran for %d s. It is blocking the event loop", wait_s)
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event["message"] for event in events] == [
        "no broker; waiting 0 s",
        *["the app's own"] * 3,
    ]


def test_lines_have_fields_and_no_values_of_variables(capsys: pytest.CaptureFixture[str]) -> None:
    show_logs("debug", as_json=False)
    payload = "hunter" + "2"
    try:
        payload.index("x")
    except ValueError:
        logger.bind(topic="orders").exception("it failed")
    said = capsys.readouterr().err
    assert "ERROR    it failed {'topic': 'orders'}" in said
    assert "hunter2" not in said
