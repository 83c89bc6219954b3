"""Keys as text: what is shown can be typed back, and nothing is taken for something else."""

from __future__ import annotations

import pytest

from kafetrain.deadletter import key_text, parse_key
from kafetrain.errors import ConfigurationError


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"ada",
        "größe".encode(),
        b"\xff\x00",
        b"two\nlines",
        b"base64:YQ==",
        b"hex:6162",
        b"text:x",
        b"hex:",
        b"a:b",
    ],
)
def test_what_is_shown_of_a_key_names_it(key: bytes) -> None:
    shown = key_text(key)
    assert shown is not None
    assert shown.isprintable()
    assert parse_key(shown) == key


def test_no_key_has_no_text() -> None:
    assert key_text(None) is None


@pytest.mark.parametrize(
    ("typed", "key"),
    [
        ("ada", b"ada"),
        ("base64:/wA=", b"\xff\x00"),
        ("hex:ff00", b"\xff\x00"),
        ("hex:FF 00", b"\xff\x00"),
        ("text:hex:ff", b"hex:ff"),
        ("text:", b""),
        ("\udcff", b"\xff"),  # what a shell makes of an argument that is no UTF-8
    ],
)
def test_a_key_can_be_typed_in_several_ways(typed: str, key: bytes) -> None:
    assert parse_key(typed) == key


@pytest.mark.parametrize(("typed", "kind"), [("base64:a", "base64"), ("base64:%%%%", "base64"), ("hex:0g", "hex")])
def test_a_wrong_encoding_says_how_to_mean_it_as_text(typed: str, kind: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"no {kind}; a key that is text and begins so is written text:{kind}:"
    ):
        parse_key(typed)
