"""Record keys as text that a person can read and type, and back."""

from __future__ import annotations

import base64
import binascii

from kafetrain.errors import ConfigurationError

__all__ = ["key_text", "parse_key"]

_BASE64, _HEX, _TEXT = "base64:", "hex:", "text:"


def key_text(key: bytes | None) -> str | None:
    """Its text where that is printable UTF-8 and clear, else `base64:` and its bytes. `parse_key` reads it back."""
    if key is None:
        return None
    try:
        text = key.decode()
    except UnicodeDecodeError:
        text = _BASE64
    if text.isprintable() and not text.startswith((_BASE64, _HEX, _TEXT)):
        return text
    return _BASE64 + base64.b64encode(key).decode()


def parse_key(text: str) -> bytes:
    """The key that is meant: `base64:...`, `hex:...`, `text:...`, or text as it is.

    Raises `ConfigurationError` for what is no base64 or hex.
    """
    try:
        if text.startswith(_BASE64):
            return base64.b64decode(text.removeprefix(_BASE64), validate=True)
        if text.startswith(_HEX):
            return bytes.fromhex(text.removeprefix(_HEX))
    except (binascii.Error, ValueError):
        kind = text.split(":", 1)[0]
        raise ConfigurationError(
            f"the key begins with {kind}: but what follows is no {kind}; a key that is text and begins so is written "
            f"text:{kind}:..."
        ) from None
    return text.removeprefix(_TEXT).encode("utf-8", "surrogateescape")
