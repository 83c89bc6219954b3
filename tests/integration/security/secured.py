"""A broker as operators secure one: TLS, SASL/SCRAM, client certificates, access rules.

Its plaintext listener is the administrator's: whoever comes that way may do everything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import trustme
from cryptography.hazmat.primitives import serialization
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from kafetrain.testing.apache_kafka import ApacheKafkaBroker
from tests.integration.own_kafka import distribution
from tests.waiting import wait_for

__all__ = ["Certificates", "Resource", "Right", "SecuredBroker", "secured_broker"]

Resource: TypeAlias = Literal["topic", "group", "cluster", "transactional_id"]

SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


class Certificates:
    """An authority that broker and clients trust, and one that nobody does. Paths of files in PEM format."""

    def __init__(self, folder: Path) -> None:
        authority, stranger = trustme.CA(), trustme.CA()
        self.authority, self.strangers = folder / "ca.pem", folder / "strangers-ca.pem"
        authority.cert_pem.write_to_path(self.authority)
        stranger.cert_pem.write_to_path(self.strangers)
        self.broker, self.client = folder / "broker.pem", folder / "client.pem"
        self.strange_client = folder / "strange-client.pem"
        _write(authority.issue_cert("127.0.0.1"), self.broker)
        _write(authority.issue_cert("billing", common_name="billing"), self.client)
        _write(stranger.issue_cert("billing", common_name="billing"), self.strange_client)


def _write(issued: trustme.LeafCert, path: Path) -> None:
    # trustme writes keys as PKCS #1, which Java does not read.
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), password=None)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(pem + b"".join(blob.bytes() for blob in issued.cert_chain_pems))


class Right(NamedTuple):
    """What somebody may do. `name`: of the resource, or its beginning where it is `prefixed`."""

    resource: Resource
    name: str
    operation: str
    """As Kafka's documentation writes it: `Read`, `DescribeConfigs`."""
    prefixed: bool = False

    def __str__(self) -> str:
        return f"{self.operation} on {self.resource} {self.name}{'*' * self.prefixed}"

    def pattern(self) -> ResourcePattern:
        kind = ACLResourcePatternType.PREFIXED if self.prefixed else ACLResourcePatternType.LITERAL
        return ResourcePattern(ResourceType[self.resource.upper()], self.name, kind)

    def for_user(self, user: str) -> ACL:
        name = "".join(f"_{letter}" if letter.isupper() else letter for letter in self.operation).strip("_")
        return ACL(f"User:{user}", "*", ACLOperation[name.upper()], ACLPermissionType.ALLOW, self.pattern())


class SecuredBroker:
    """`broker`'s listeners: SCRAM (without encryption), SCRAM_TLS, TLS (wants a certificate of the client's)."""

    def __init__(self, broker: ApacheKafkaBroker, certificates: Certificates) -> None:
        self.broker, self.certificates = broker, certificates
        self._admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)

    def close(self) -> None:
        self._admin.close()

    def add_user(self, name: str, password: str) -> None:
        """For both SCRAM listeners. Known to the broker on return."""
        one = UserScramCredentialUpsertion(name, ScramMechanism.SCRAM_SHA_512, password)
        assert self._admin.alter_user_scram_credentials([one]) == {name: None}
        wait_for(f"{name} is known", lambda: self._knows(name))

    def _knows(self, name: str) -> bool:
        return bool(self._admin.describe_user_scram_credentials([name])[name])

    def allow(self, user: str, rights: Collection[Right]) -> None:
        """These and no others. In force on return."""
        everything = ACLFilter(
            f"User:{user}",
            None,
            ACLOperation.ANY,
            ACLPermissionType.ANY,
            ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
        )
        self._admin.delete_acls([everything])
        wanted = [right.for_user(user) for right in rights]
        self._admin.create_acls(wanted)
        wait_for(f"{user} has these rights", lambda: len(self._admin.describe_acls(everything)[0]) == len(wanted))

    def grow(self, topic: str, partitions: int) -> None:
        """As an operator does."""
        self._admin.create_partitions({topic: partitions})

    def as_user(self, name: str, password: str) -> dict[str, Any]:
        """Settings that log in without encryption."""
        return {
            "bootstrap_servers": self.broker.addresses["SCRAM"],
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": name,
            "sasl_password": password,
        }


@contextlib.contextmanager
def secured_broker(folder: Path) -> Iterator[SecuredBroker]:
    """Up in about three seconds. `folder`: for certificates."""
    certificates = Certificates(folder)
    tls = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": f"{certificates.broker}",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": f"{certificates.authority}",
    }
    settings = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",  # the plaintext listener's, and the controller's
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.scram.scram-sha-512.sasl.jaas.config": SCRAM,
        "listener.name.scram_tls.scram-sha-512.sasl.jaas.config": SCRAM,
        "listener.name.tls.ssl.client.auth": "required",
        "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/",
        **{f"listener.name.{name}.{key}": value for name in ("tls", "scram_tls") for key, value in tls.items()},
    }
    listeners = {"SCRAM": "SASL_PLAINTEXT", "SCRAM_TLS": "SASL_SSL", "TLS": "SSL"}
    with ApacheKafkaBroker(*distribution(), settings=settings, listeners=listeners) as broker:
        assert isinstance(broker, ApacheKafkaBroker)
        with contextlib.closing(SecuredBroker(broker, certificates)) as secured:
            yield secured
