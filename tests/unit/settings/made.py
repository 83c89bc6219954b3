"""Settings, and the text of their one error."""

from __future__ import annotations

from typing import Any

import pytest

from kafetrain.errors import ConfigurationError
from kafetrain.settings import Settings


def settings(**values: Any) -> Settings:
    return Settings(**{"group_id": "billing", **values})


def error_of(**values: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        settings(**values)
    return str(caught.value)
