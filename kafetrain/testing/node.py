"""One Kafka process of this machine, whatever its settings make of it: a broker, a controller, or both.

Everything it has is in one temporary folder: settings, log, data. The process ends and the folder goes with
`close()`, and without it when this process dies (see `supervisor`).
"""

from __future__ import annotations

import random
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from kafetrain.testing.base import BrokerNotReadyError
from kafetrain.testing.single_node import CLUSTER_ID
from kafetrain.testing.supervised import SupervisedProcess

__all__ = ["KafkaNode", "free_ports", "on_free_ports"]

T = TypeVar("T")

READY_TIMEOUT_S = 60.0
SHUTDOWN_PATIENCE_S = 15.0
PORT_ATTEMPTS = 3
LOG_TAIL_LINES = 15

JAVA_OPTIONS = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # half the CPU time while it starts, which the tests need themselves
    "-XX:-UsePerfData",  # else a kill leaves a file in the system's temporary folder
)

# Warnings and worse: at INFO, hundreds of lines of settings bury the one that says what is wrong.
LOG4J = """\
status=error
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{HH:mm:ss.SSS} %p %c{1}: %m%n
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
"""


class KafkaNode:
    """Not started by the constructor. `configure` it, then `start`; one thread at a time.

    `java`: the program. `libs`: the folder with Kafka's jars. `java_options` come after our own, so they win.
    """

    def __init__(self, java: str, libs: Path, *, java_options: Sequence[str] = ()) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kafetrain-kafka-"))
        """Holds all that this process writes."""
        self._log = self.folder / "kafka.log"
        self._process: SupervisedProcess | None = None
        self._settings: dict[str, str] = {}
        self._port = 0
        self._is_formatted = self._was_killed = False
        temporary = self.folder / "tmp"  # native libraries are unpacked there
        temporary.mkdir()
        (self.folder / "log4j2.properties").write_text(LOG4J, encoding="utf-8")
        self._java = [
            java,
            *JAVA_OPTIONS,
            f"-Djava.io.tmpdir={temporary}",
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}",
            *java_options,
            "-cp",
            f"{libs}/*",
        ]

    @property
    def process_id(self) -> int | None:
        """Of the process that supervises Kafka's and ends after it; None while it is stopped."""
        return None if self._process is None else self._process.pid

    def configure(self, settings: Mapping[str, str], port: int) -> None:
        """For the next start. `settings`: all but the folder; `port`: one of its own, open when it serves requests."""
        self._settings, self._port = dict(settings), port

    def start(self) -> None:
        """Returns when it accepts connections. Running already: no-op. Raises `BrokerNotReadyError` with its log."""
        if self._process is not None:
            if self._process.wait(0) is None:
                return
            self._was_killed = True  # it has ended, and not by us
        if not self.folder.exists():
            raise BrokerNotReadyError("this broker was closed, and its data with it; start another one")
        if not self._is_formatted:
            self._format()
            self._is_formatted = True
        self._write_settings()
        self._process = self._run("kafka.Kafka", str(self._settings_file))
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Shut it down in good order; returns when its process is gone. Stopped already: no-op."""
        if self._process is not None:
            self._was_killed = not self._process.terminate(SHUTDOWN_PATIENCE_S)
            self._process = None

    def kill(self) -> None:
        """End it at once. Stopped already: no-op."""
        if self._process is not None:
            self._process.kill()
            self._process = None
            self._was_killed = True

    def close(self) -> None:
        """End it, and remove its folder. Repeated: no-op."""
        self.kill()  # in good order would take longer, for data that nobody will read
        shutil.rmtree(self.folder, ignore_errors=True)

    def log_tail(self) -> str:
        """The last lines of its log, for the text of an error."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "The end of its log:\n" + "\n".join(f"    {line}" for line in lines or ["(empty)"])

    def _format(self) -> None:
        self._write_settings()
        tool = self._run("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(self._settings_file))
        code = tool.wait(READY_TIMEOUT_S)
        if code != 0:
            tool.kill()
            ended = "took too long" if code is None else f"ended with {code}"
            raise BrokerNotReadyError(f"formatting Kafka's data folder {ended}. {self.log_tail()}")

    @property
    def _settings_file(self) -> Path:
        return self.folder / "server.properties"

    def _write_settings(self) -> None:
        settings = {**self._settings, "log.dirs": str(self.folder / "data")}
        if self._was_killed:
            # The controller refuses a broker whose former self has not timed out: 9 s by default. Not so short
            # from the beginning: a node that gets no CPU for a second would lose its leaderships.
            settings |= {"broker.session.timeout.ms": "1000", "broker.heartbeat.interval.ms": "250"}
        text = "".join(f"{key}={value}\n" for key, value in settings.items())
        self._settings_file.write_text(text, encoding="utf-8")

    def _run(self, main_class: str, *arguments: str) -> SupervisedProcess:
        return SupervisedProcess([*self._java, main_class, *arguments], log=self._log, scratch=self.folder)

    def _wait_until_ready(self, process: SupervisedProcess) -> None:
        give_up_at = time.monotonic() + READY_TIMEOUT_S
        while True:
            code = process.wait(0.02)  # ends early when the process does
            if code is not None:
                raise BrokerNotReadyError(f"Kafka ended with {code} while starting. {self.log_tail()}")
            if time.monotonic() > give_up_at:
                raise BrokerNotReadyError(f"Kafka is not ready after {READY_TIMEOUT_S:g} s. {self.log_tail()}")
            if self._accepts_connections():
                return

    def _accepts_connections(self) -> bool:
        # Kafka opens the port when it serves requests, not before; asking by its protocol would cost an
        # exponential backoff and a warning in the client's log for each refusal.
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return True
        except OSError:
            return False


def on_free_ports(count: int, start: Callable[[list[int]], T]) -> T:
    """What `start` gives for that many free ports; other ones, where another process was first to take one of them."""
    attempt = 1
    while True:
        try:
            return start(free_ports(count))
        except BrokerNotReadyError as error:
            if attempt == PORT_ATTEMPTS or "Address already in use" not in str(error):
                raise
            attempt += 1


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing uses now, all different.

    They lie below the range that systems hand out to outgoing connections. While the broker is stopped, a client that
    tries again and again to reach a port within that range is sooner or later given it as its own, connects to itself,
    and the broker cannot come back.
    """
    found: list[int] = []
    for port in random.sample(range(15_000, 32_000), k=1_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise BrokerNotReadyError("no free port between 15000 and 32000 on 127.0.0.1")
