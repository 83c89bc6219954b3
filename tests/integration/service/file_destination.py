"""A destination as somebody else would add it. The documentation quotes it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kafetrain.service.domain.task import Address
from kafetrain.service.ports.destination import Delivery, DeliveryError
from kafetrain.service.settings import ServiceSettings

__all__ = ["FileDestination"]


class FileDestination:
    """Messages as lines of files below a folder."""

    concurrency = 1

    def __init__(self, settings: ServiceSettings) -> None:
        self._folder = Path(os.environ.get("FILE_DESTINATION_FOLDER", "."))

    def address(self, given: Mapping[str, Any]) -> Address:
        name = given.get("name")
        if not isinstance(name, str) or not name.isalnum():
            raise ValueError("name must be letters and digits")
        return {"name": name}

    def check_message(self, message_data: str) -> None:
        if "\n" in message_data:
            raise ValueError("message_data must be one line")

    def lane(self, address: Address) -> str:
        return f"file:{address['name']}"

    async def open(self) -> None:
        self._folder.mkdir(exist_ok=True)

    async def deliver(self, delivery: Delivery) -> int | None:
        try:
            with (self._folder / str(delivery.address["name"])).open("a") as file:
                file.write(f"{delivery.key} {delivery.message_data}\n")
        except OSError as error:
            raise DeliveryError(f"cannot be written: {error.strerror}") from None
        return None

    async def close(self) -> None: ...
