"""Redirect entries and registrations, to bytes and back; whatever else stands there is told apart."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from kafetrain.core.entry import (
    MOST_ATTEMPTS,
    NOT_PLAIN,
    Entry,
    NewerFormat,
    Registration,
    State,
    Unreadable,
    _decode_closely,
    cut,
    decode_entry,
    decode_plain,
    decode_registration,
    encode_entry,
    encode_registration,
    registration_group,
    registration_key,
)
from kafetrain.record import MessageId

numbers = st.integers(0, 2**62)
entries = st.builds(
    Entry,
    key=st.none() | st.binary(max_size=20),
    state=st.sampled_from(State),
    attempt=st.integers(0, 1000),
    due_ms=numbers,
    first_failure_ms=st.none() | numbers,
    error_type=st.just("ValueError"),
    error=st.text(max_size=50),
    dead_at=st.none() | st.tuples(numbers, numbers),
    log_offset=st.just(7),
    atomic=st.booleans(),
)


@given(entries)
def test_an_entry_survives_the_topic(entry: Entry) -> None:
    assert decode_entry(encode_entry(entry), 7) == entry


odd: st.SearchStrategy[object] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([])
)
odd_fields = st.fixed_dictionaries(
    {
        "v": st.just(1),
        "key": st.sampled_from([None, "", "QQ==", "QR==", "QQ", "QQ=", "Q\nQ=", "-_==", "QUJD", "QQ==QQ=="]),
        "state": st.just("pending"),
        "attempt": st.sampled_from([0, 3, MOST_ATTEMPTS, MOST_ATTEMPTS + 1, -1, 2**64]),
        "due": st.sampled_from([0, 2**63 - 1, 2**63, -1]),
    },
    optional=dict.fromkeys(["first_failure", "error_type", "error", "dlq_partition", "atomic", "later"], odd),
)


@given(odd_fields, st.sampled_from(["", "v", "key", "state", "attempt", "due"]), odd)
def test_what_is_read_quickly_is_what_a_closer_look_finds(fields: dict[str, object], name: str, value: object) -> None:
    text = json.dumps(fields | ({name: value} if name else {})).encode()
    try:
        plain = decode_plain(text)
    except NOT_PLAIN:
        return
    assert plain.entry(7) == _decode_closely(text, 7)


@given(entries.map(lambda entry: structs.replace(entry, state=State.PENDING, dead_at=None)))
def test_what_we_write_of_a_pending_id_is_read_quickly(entry: Entry) -> None:
    assert decode_plain(encode_entry(entry)).entry(7) == entry


@pytest.mark.parametrize(
    "value", [b"", b"{", b"[" * 100_000, b'{"error":"\xff"}', b'{"error":"\\ud800"}', b"\xff", b'\xef\xbb\xbf{"v":1}']
)
def test_what_is_no_plain_entry_is_left_to_a_closer_look(value: bytes) -> None:
    with pytest.raises(NOT_PLAIN):
        decode_plain(value)


@given(st.binary())
def test_any_bytes_are_an_entry_or_unreadable(value: bytes) -> None:
    try:
        decode_entry(value, 0)
    except (Unreadable, NewerFormat):
        pass


@pytest.mark.parametrize(
    "fields",
    [
        [],
        7,
        {},
        {"v": "1"},
        {"v": True},
        {"v": 1},
        {"v": 1, "key": 5, "state": "pending", "attempt": 0, "due": 0},
        {"v": 1, "key": None, "state": "asleep", "attempt": 0, "due": 0},
        {"v": 1, "key": None, "state": "pending", "attempt": -1, "due": 0},
        {"v": 1, "key": None, "state": "pending", "attempt": 0, "due": 1.5},
        {"v": 1, "key": "***", "state": "pending", "attempt": 0, "due": 0},
    ],
)
def test_what_is_no_entry_is_unreadable(fields: object) -> None:
    with pytest.raises(Unreadable):
        decode_entry(json.dumps(fields).encode(), 0)


def test_what_is_wrong_with_an_entry_is_said_without_quoting_it() -> None:
    with pytest.raises(Unreadable) as caught:
        decode_entry(b'{"v":1,"key":null,"state":"card 4711","attempt":0,"due":0}', 0)
    assert "4711" not in str(caught.value)


def test_attempts_beyond_all_bounds_leave_room_to_count_on() -> None:
    entry = decode_entry(encode_entry(Entry(b"k", attempt=2**63 - 1)), 0)
    assert entry.attempt == MOST_ATTEMPTS
    again = decode_entry(encode_entry(entry.failed(due_ms=1, now_ms=1, error_type="E", error="no")), 0)
    assert again.readable


def test_half_a_character_in_an_error_can_be_written_again() -> None:
    value = json.dumps({**json.loads(encode_entry(Entry(b"k"))), "error_type": "E", "error": "a\ud800"}).encode()
    assert decode_entry(value, 0).error == "a?"
    assert decode_entry(encode_entry(decode_entry(value, 0)), 0).error == "a?"


def test_a_newer_format_is_told_apart_from_garbage() -> None:
    with pytest.raises(NewerFormat):
        decode_entry(b'{"v": 2}', 0)


def test_unknown_fields_are_ignored() -> None:
    value = json.loads(encode_entry(Entry(b"k")))
    value["added_later"] = [1]
    assert decode_entry(json.dumps(value).encode(), -1) == Entry(b"k")


@given(st.text(max_size=3000))
def test_errors_are_cut_to_a_kilobyte_of_utf8(text: str) -> None:
    assert len(cut(text).encode()) <= 1024
    if len(text.encode("utf-8", "replace")) <= 1024 and text.isprintable():
        assert cut(text) == text


def test_a_registration_survives_the_topic() -> None:
    registration = Registration("orders", "AbC", 12, log_offset=4)
    assert decode_registration(encode_registration(registration), 4) == registration


@given(st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()))
def test_an_id_is_never_taken_for_a_registration_whatever_the_groups_name(group: str) -> None:
    id = MessageId(group, "orders", 3, 12)
    assert MessageId.parse(str(id)) == id
    assert registration_group(str(id)) is None
    key = registration_key(group).decode()
    assert registration_group(key) == group
    with pytest.raises(ValueError, match="not group"):
        MessageId.parse(key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/b/c",
        "g/t/0/x",
        "g/t/-1/0",
        "g//0/0",
        "/t/0/0",
        "g/t/0/1/2",
        "g/t/٣/0",
        "g/t/2147483648/0",
        "g/t/0/9223372036854775808",
    ],
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be|not group"):
        MessageId.parse(text)
