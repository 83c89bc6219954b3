"""A kind of destination: what addresses it takes, and how a message gets there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kafetrain.errors import KafetrainError
from kafetrain.service.domain.task import Address

__all__ = ["Delivery", "DeliveryError", "Destination", "RefusedError"]


class RefusedError(KafetrainError):
    """The operator does not allow this destination; the text names the setting that would."""


class DeliveryError(KafetrainError):
    """A delivery failed, or nobody knows that it did not. `reached` False: there was no connection or no answer."""

    def __init__(
        self, text: str, *, status: int | None = None, retry_after: float | None = None, reached: bool = True
    ) -> None:
        super().__init__(text)
        self.status, self.retry_after, self.reached = status, retry_after, reached


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message to one address. `trace` is a `traceparent`, where there is one."""

    address: Address
    key: str
    message_data: str
    client_id: str
    trace: str | None = None


class Destination(Protocol):
    """Called from one event loop."""

    concurrency: int
    """Deliveries to one lane at a time."""

    def address(self, given: Mapping[str, Any]) -> Address:
        """What a user gave, checked and in its normal form. `ValueError` says what of it is wrong, by field;
        `RefusedError` that the operator forbids it. Neither asks the network."""

    def check_message(self, message_data: str) -> None:
        """`ValueError` where the message can never be delivered here."""

    def lane(self, address: Address) -> str:
        """Addresses that are up or down together."""

    async def open(self) -> None: ...

    async def deliver(self, delivery: Delivery) -> int | None:
        """Return a status, if there is such a thing, once the destination has the message. Bounded in time.
        Raises `DeliveryError`, whose text holds no secret and nothing of the message."""

    async def close(self) -> None:
        """No delivery is under way."""
