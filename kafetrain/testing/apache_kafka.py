"""Apache Kafka itself as a child process: one node, broker and controller in one, on loopback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from kafetrain.testing.base import Broker, BrokerNotReadyError
from kafetrain.testing.node import READY_TIMEOUT_S, KafkaNode, on_free_ports
from kafetrain.testing.single_node import SETTINGS

__all__ = ["ApacheKafkaBroker"]


class ApacheKafkaBroker(Broker):
    """A broker on free ports of 127.0.0.1, ready when the constructor returns, which takes about three seconds.

    `java`: the program. `libs`: the folder with Kafka's jars. `java_options` and `settings` come after our own, so
    they win; a benchmark wants `-XX:TieredStopAtLevel=4`.
    `listeners`: more of them, as name -> security protocol; where they are is in `addresses`. `advertised`: the
    address that clients of such a listener are sent to, where that is another one.
    Raises `BrokerNotReadyError` with the last lines of Kafka's log.
    """

    can_restart = True

    def __init__(
        self,
        java: str,
        libs: Path,
        *,
        java_options: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        listeners: Mapping[str, str] | None = None,
        advertised: Mapping[str, str] | None = None,
    ) -> None:
        self.addresses: dict[str, str] = {}
        """Of `listeners`, by their names."""
        self._more_settings, self._listeners = dict(settings or {}), dict(listeners or {})
        self._advertised = dict(advertised or {})
        self._node = KafkaNode(java, libs, java_options=java_options)
        try:
            on_free_ports(2 + len(self._listeners), self._start_on)
        except BaseException:  # an interrupt as well: nobody else knows this process and its folder
            self.close()
            raise

    @property
    def folder(self) -> Path:
        """Holds all that this broker writes."""
        return self._node.folder

    @property
    def process_id(self) -> int | None:
        """Of the process that supervises Kafka's and ends after it; None while the broker is stopped."""
        return self._node.process_id

    def stop(self) -> None:
        self._node.stop()

    def kill(self) -> None:
        self._node.kill()

    def start(self) -> None:
        self._node.start()
        try:
            self.check(timeout_s=READY_TIMEOUT_S)
        except BaseException as error:
            self.kill()
            if isinstance(error, BrokerNotReadyError):
                raise BrokerNotReadyError(f"{error}. {self._node.log_tail()}") from error
            raise

    def close(self) -> None:
        self._node.close()

    def _start_on(self, ports: list[int]) -> None:
        port, controller_port, *more = ports
        super().__init__(f"127.0.0.1:{port}", "apache-kafka")
        self.addresses = {name: f"127.0.0.1:{own}" for name, own in zip(self._listeners, more, strict=True)}
        listeners = {"PLAINTEXT": self.bootstrap_servers, **self.addresses}
        advertised = {**listeners, **self._advertised}
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **self._listeners}
        self._node.configure(
            {
                **SETTINGS,
                "listeners": _as_uris({**listeners, "CONTROLLER": f"127.0.0.1:{controller_port}"}),
                "advertised.listeners": _as_uris(advertised),
                "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
                "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
                **self._more_settings,
            },
            port,
        )
        self.start()


def _as_uris(addresses: Mapping[str, str]) -> str:
    return ",".join(f"{name}://{address}" for name, address in addresses.items())
