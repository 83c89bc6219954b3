"""The page, in a real browser.

`KAFETRAIN_SCREENSHOTS=folder` keeps the pictures, to be looked at.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.service.conftest import StartService, StartWebhook
from tests.integration.service.harness import Answer, Service, http_task
from tests.redis_server import RedisServer

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
Browse = Callable[..., str]


@pytest.fixture(scope="session")
def browser() -> str:
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    reason = "no Chromium: apt-get install chromium"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def browse(browser: str, tmp_path: Path) -> Browse:
    """The page as it is after its script has run; with `picture`, also a screenshot."""

    def browse(url: str, *, picture: str = "", dark: bool = False, width: int = 1280) -> str:
        common = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        common += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--hide-scrollbars"]
        common += ["--virtual-time-budget=1500", f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
        if picture:
            folder = Path(os.environ.get("KAFETRAIN_SCREENSHOTS", tmp_path))
            path = folder / f"{picture}.png"
            subprocess.run([*common, f"--screenshot={path}", url], check=True, capture_output=True, timeout=120)
            data = path.read_bytes()
            assert data[:8] == b"\x89PNG\r\n\x1a\n"
            assert struct.unpack(">I", data[16:20])[0] == width
        done = subprocess.run([*common, "--dump-dom", url], check=True, capture_output=True, timeout=120, text=True)
        return done.stdout

    return browse


def fill(service: Service, start_webhook: StartWebhook) -> None:
    failing = start_webhook(lambda hit: Answer(503 if hit.path == "/dead" else 500))
    half = start_webhook(lambda hit: Answer(200 if hit.path == "/dead" else 500))
    fine = start_webhook()
    service.create_all([http_task(f"order-{i}", fine.url()) for i in range(30)])
    service.create(http_task("invoice-7", failing.url(), max_retries=1, client_id="billing"))
    service.create(http_task("mail-3", half.url(), max_retries=1, source="mailer"))
    service.create(
        http_task('<b>later & "quoted"', fine.url(), base_delay=90, is_priority=True, message_data='"<script>"')
    )
    service.create(http_task("waits-1", half.url(), base_delay=3600, max_retries=3))
    service.wait_for_state("invoice-7", "dead")
    service.wait_for_state("mail-3", "dead_lettered")
    service.wait_for_state("order-29", "delivered")


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<(script|svg).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL))


def test_the_overview_shows_counts_tasks_and_what_happened(
    start_service: StartService, start_webhook: StartWebhook, browse: Browse
) -> None:
    service = start_service()
    fill(service, start_webhook)
    page = browse(service.url, picture="overview")
    text = text_of(page)
    for state in ("2 scheduled", "30 delivered", "1 dead lettered", "1 dead"):
        assert state in text
    assert "34 created" in text
    assert page.count("<rect") >= 3
    assert re.search(r"in 1 min \d+ s", text)  # counted down by the script
    assert "answered 503" in text
    assert "<b>later" not in page
    assert "&lt;b&gt;later &amp; " in page
    browse(service.url, picture="overview-dark", dark=True)
    browse(service.url, picture="overview-narrow", width=500)
    filtered = text_of(browse(f"{service.url}/?state=dead&client_id=billing"))
    assert "invoice-7" in filtered
    assert "mail-3" not in filtered
    assert "No task matches" in text_of(browse(f"{service.url}/?search=nothing-like-it"))


def test_a_task_shows_its_deliveries_and_counts_down(
    start_service: StartService, start_webhook: StartWebhook, browse: Browse
) -> None:
    service = start_service()
    fill(service, start_webhook)
    later = text_of(browse(f"{service.url}/page/tasks/%3Cb%3Enone", picture="missing"))
    assert "No such task" in later
    waiting = text_of(browse(f"{service.url}/page/tasks/waits-1", picture="waiting"))
    assert re.search(r"Next try in \d+ min \d+ s", waiting)
    assert "None yet." in waiting
    assert all(word in waiting for word in ("Retry now", "Delete"))
    assert "Replay" not in waiting
    dead = text_of(browse(f"{service.url}/page/tasks/mail-3", picture="dead", dark=True))
    assert "answered 500" in dead
    assert "Replay" in dead
    assert "mailer" in dead


def test_the_buttons_do_what_they_say(service: Service, start_webhook: StartWebhook) -> None:
    hook = start_webhook(lambda hit: Answer(200 if hit.path == "/dead" else 500))
    service.create(http_task("pressed", hook.url(), base_delay=3600, max_retries=1))

    def press(what: str) -> str:
        answer = service.http.post(f"/page/tasks/pressed/{what}", headers={"Origin": service.url})
        assert answer.status_code == 303
        return str(answer.headers["location"])

    assert "problem=" in press("replay")
    assert press("retry-now") == "/page/tasks/pressed"
    service.wait_for_state("pressed", "dead_lettered")
    hook.answer = lambda hit: Answer()
    assert press("replay") == "/page/tasks/pressed"
    service.wait_for_state("pressed", "delivered")
    assert press("delete") == "/"
    assert service.http.get("/tasks/pressed").status_code == 404
    foreign = service.http.post("/page/tasks/pressed/delete", headers={"Origin": "http://evil.example"})
    assert foreign.status_code == 403


def test_the_page_loads_nothing_from_elsewhere_and_runs_no_script_of_a_task(service: Service) -> None:
    for path in ("/", "/docs"):
        page = service.http.get(path).text
        assert not re.search(r"""(src|href)=["'](https?:)?//""", page), path
    policy = service.http.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_a_store_that_is_away_is_said_on_the_page(
    start_service: StartService, durable_redis: RedisServer, browse: Browse
) -> None:
    service = start_service(REDIS_ADDR=durable_redis.address)
    durable_redis.kill()
    assert "The store does not answer" in text_of(browse(service.url))
