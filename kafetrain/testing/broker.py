"""One Kafka broker for tests, by the best way that this machine has.

    with kafka_broker() as broker:
        KafkaProducer(bootstrap_servers=broker.bootstrap_servers, **broker.client_options)

Ways, in this order: an address in `KAFETRAIN_TEST_BROKERS`; a container, where a Docker engine answers; Apache
Kafka itself, whose jars Maven fetches once; librdkafka's mock cluster. The mock comes last because it lacks what
matters most here (compaction, transactions, restarts): on a CI server (`CI=true`) it is not taken at all, since
a suite that passes there should mean what it says.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from kafetrain.errors import first_line
from kafetrain.testing.base import Broker, BrokerNotReadyError, NoBrokerError

__all__ = ["kafka_broker"]

ADDRESS_VARIABLE = "KAFETRAIN_TEST_BROKERS"

Environment = Mapping[str, str]
Starter = Callable[[Environment], Broker]


@dataclass(frozen=True)
class Way:
    """One way to a broker. `start` returns it ready for use, or raises, with the reason as its text."""

    name: str
    start: Starter
    advice: str
    is_real: bool = True


@contextmanager
def kafka_broker(*, allow_embedded: bool = True, require_real: bool | None = None) -> Iterator[Broker]:
    """Yield a broker that answers, and end it afterwards, with its process, its data and its temporary folder.

    Effect: up in two to four seconds from Maven's jars (the first time ever also a download of 45 MB), at once
        with the mock. It ends with this process too, however that one ends.
    `allow_embedded`: False for what a mock cannot serve.
    `require_real`: None asks the environment: `CI=true` means that only a real broker will do. True and False
        say so themselves.
    Environment: `KAFETRAIN_TEST_BROKERS`, a `host:port` list of a plaintext cluster to use instead of starting
        one; `KAFETRAIN_CACHE`, where the jars are kept; `JAVA_HOME`.
    Raises: `NoBrokerError`, with the reason why each way failed and what to install. An address that does not
        answer is an error as well: tests never run elsewhere than they were told to.
    """
    with start_first(WAYS, os.environ, allow_embedded=allow_embedded, require_real=require_real) as broker:
        yield broker


def start_first(
    ways: Sequence[Way], environment: Environment, *, allow_embedded: bool, require_real: bool | None
) -> Broker:
    """The broker of the first way that works. Raises `NoBrokerError`."""
    if require_real is None:
        require_real = environment.get("CI", "").lower() in ("true", "1")
    if environment.get(ADDRESS_VARIABLE):
        return _given(environment[ADDRESS_VARIABLE])
    skipped = [f"address: {ADDRESS_VARIABLE} is not set"]
    for way in ways:
        if not way.is_real and not allow_embedded:
            skipped.append(f"{way.name}: not allowed here: this needs what a mock cannot do")
        elif not way.is_real and require_real:
            skipped.append(f"{way.name}: a real broker is required here (CI=true, or require_real)")
        else:
            try:
                broker = way.start(environment)
            except Exception as error:  # also a fault of a container library: the next way may still work
                skipped.append(f"{way.name}: {error if str(error) else first_line(error)}")
            else:
                broker.skipped = tuple(skipped)
                return broker
    raise NoBrokerError(
        "no Kafka broker for the tests. Tried, in this order:\n"
        + "".join(f"  - {reason}\n" for reason in skipped)
        + "Any one of these is enough:\n"
        + f"  - set {ADDRESS_VARIABLE}=host:port to use a running Kafka\n"
        + "".join(f"  - {way.advice}\n" for way in ways if way.is_real or (allow_embedded and not require_real))
    )


def _given(addresses: str) -> Broker:
    broker = Broker(addresses, "address")
    try:
        broker.check()
    except BrokerNotReadyError as error:
        raise NoBrokerError(
            f"{ADDRESS_VARIABLE} is set, but {error}. Start that broker, or unset the variable."
        ) from error
    return broker


def _container(environment: Environment) -> Broker:
    from kafetrain.testing.containers import ContainerBroker

    return ContainerBroker()


def _apache_kafka(environment: Environment) -> Broker:
    from kafetrain.testing.apache_kafka import ApacheKafkaBroker
    from kafetrain.testing.distribution import cache_folder, fetch_jars, find_java

    java = find_java(environment)
    return ApacheKafkaBroker(java, fetch_jars(cache_folder(environment)))


def _embedded(environment: Environment) -> Broker:
    from kafetrain.testing.embedded import EmbeddedBroker

    return EmbeddedBroker()


WAYS = (
    Way("container", _container, "start a Docker engine, and pip install 'kafetrain[testing]'"),
    Way(
        "apache-kafka",
        _apache_kafka,
        "install Java 17 or newer and Maven (Debian: apt-get install openjdk-17-jre-headless maven)",
    ),
    Way("embedded", _embedded, "pip install 'kafetrain[testing]' for a mock broker", is_real=False),
)
