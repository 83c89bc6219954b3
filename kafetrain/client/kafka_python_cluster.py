"""What can be asked of a cluster as a whole: its topics by name."""

from __future__ import annotations

from kafka import KafkaAdminClient

from kafetrain.client.kafka_python import REQUEST_TIMEOUT_MS, KafkaPythonClient
from kafetrain.client.kafka_python_errors import client_error

__all__ = ["ClusterClient"]


class ClusterClient(KafkaPythonClient):
    """Connects for each question. `ClientError` where no broker answers."""

    def topic_names(self) -> list[str]:
        """Every topic that this user may see, Kafka's own left out."""
        admin = self._build("admin", KafkaAdminClient, {"request_timeout_ms": REQUEST_TIMEOUT_MS}, {})
        try:
            return sorted(name for name in admin.list_topics() if not name.startswith("__"))
        except Exception as error:
            raise client_error(error, "listing topics") from error
        finally:
            admin.close()
