"""Where the demo runs: a broker of its own in this process, or the user's, on topics that it takes away again."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import typer
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from kafetrain.backoff_policy import ExponentialBackoff
from kafetrain.cli.demo.scenario import MAX_RETRIES
from kafetrain.cli.shared import settings_for
from kafetrain.client.ports import Client, ClientError, TopicSpec
from kafetrain.errors import ConfigurationError, first_line
from kafetrain.settings import Settings
from kafetrain.topics import AuxiliaryTopics

if TYPE_CHECKING:
    from kafetrain.client.kafka_python import KafkaPythonClient

__all__ = ["CONCURRENCY", "PARTITIONS", "Cluster", "open_cluster"]

PARTITIONS = 4
CONCURRENCY = 4
MOCK_FETCH_WAIT_MS = 10
"""The mock answers a fetch that finds nothing after this time, and not when a record comes, as Kafka does."""
NEEDS_BROKER = (
    "the demo brings its own broker along, which needs confluent-kafka: pip install 'kafetrain[demo]'. "
    "Or use a Kafka that runs: kafetrain demo --brokers host:port"
)


@dataclass(frozen=True)
class Cluster:
    """`topic` exists and is empty. `description`: what a user is told."""

    settings: Settings
    client: Client
    topic: str
    description: str


@contextmanager
def open_cluster(brokers: str | None) -> Iterator[Cluster]:
    """Without `brokers`: an embedded one, which ends with the block. With: they are as they were after the block.

    Raises `ConfigurationError` where the embedded broker is not installed, `ClientError` where no broker answers.
    """
    name = f"kafetrain-demo-{uuid.uuid4().hex[:8]}"
    if brokers is None:
        with _embedded(name) as cluster:
            yield cluster
        return
    from kafetrain.client.kafka_python import KafkaPythonClient

    settings = settings_for(brokers, name, **_ours())
    client = KafkaPythonClient(settings)
    _create(client, name)
    try:
        yield Cluster(settings, client, name, f"Kafka at {brokers}, topic {name}")
    finally:
        _delete(client, AuxiliaryTopics.of(settings, name))


@contextmanager
def _embedded(name: str) -> Iterator[Cluster]:
    from kafetrain.testing.embedded import EmbeddedBroker

    try:
        broker = EmbeddedBroker()
    except ImportError:
        raise ConfigurationError(NEEDS_BROKER) from None
    from kafetrain.testing.embedded_client import EmbeddedClient

    with broker:
        settings = _Alone(
            bootstrap_servers=broker.bootstrap_servers.split(","),
            group_id=name,
            client_options={**broker.client_options, "fetch_max_wait_ms": MOCK_FETCH_WAIT_MS},
            **_ours(),
        )
        client = EmbeddedClient(settings)
        _create(client, name)
        yield Cluster(settings, client, name, f"an embedded broker at {broker.bootstrap_servers}")


def _ours() -> dict[str, Any]:
    """What the scenario counts on, whatever the environment says."""
    return {
        "max_retries": MAX_RETRIES,
        "backoff": ExponentialBackoff(
            initial=timedelta(seconds=0.6), multiplier=2, maximum=timedelta(seconds=5), jitter=0.1
        ),
        "retry_topic_prefix": "retry",
        "redirect_topic_prefix": "redirect",
        "dlq_topic_prefix": "dlq",
        "topic_format": "{prefix}-{topic}",
        "retry_topic_partitions": 0,
        "auto_create_topics": True,
        "free_on_dlq": False,
        "delivery": "at-least-once",
        "concurrency": CONCURRENCY,
        "auto_offset_reset": "earliest",
        "retry_on": (Exception,),
        "never_retry_on": (),
        "shutdown_timeout": timedelta(seconds=5),
    }


class _Alone(Settings):
    """Nothing of the environment: its logins and certificates are for another broker."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def _create(client: Client, topic: str) -> None:
    admin = client.admin()
    try:
        admin.create_topics([TopicSpec(topic, PARTITIONS)])
    finally:
        admin.close()


def _delete(client: KafkaPythonClient, topics: AuxiliaryTopics) -> None:
    names = [topics.source, *topics.auxiliary]
    try:
        admin = client.admin()
        try:
            found = sorted(admin.describe_topics(names))
            if found:
                admin._admin.delete_topics(found)  # type: ignore[attr-defined]  # the port has no such call: nobody else deletes topics
        finally:
            admin.close()
    except Exception as error:
        reason = first_line(error) if isinstance(error, ClientError) else type(error).__name__
        typer.echo(f"warning: the demo's topics are still there: {', '.join(names)} ({reason})", err=True)
