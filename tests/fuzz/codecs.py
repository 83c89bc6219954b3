"""Everything that reads what stands in a topic, one record at a time: it reads it, or says that it cannot.

What is read is then used as the layers and commands use it: it is written again, counted, shown.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kafetrain.cli.dlq_output import Summary, print_letter, print_rows
from kafetrain.core.control import Control, audit_headers, control_headers
from kafetrain.core.dead_letter import decode_dead_letter
from kafetrain.core.entry import Entry, NewerFormat, decode_entry, encode_entry, encode_registration
from kafetrain.core.headers import Malformed, decode_retry, dlq_headers, dlq_mark_headers, retry_headers
from kafetrain.core.lock_table import LockTable
from kafetrain.core.lock_view import locks_of
from kafetrain.core.redirect_log import Ended, NotAChange, Opened, Registered, read_change
from kafetrain.core.rules import due_after, exhausted, runnable_head, source_step, to_park
from kafetrain.deadletter.history import _control_text, _entry_text, _letter_text
from kafetrain.deadletter.letter import DeadLetter, Filter, read_letter
from kafetrain.record import (
    MessageId,
    Record,
    get_original_topic,
    get_retry_attempt,
    get_retry_reason,
    is_retry_message,
)
from kafetrain.retry.view import SourceView
from kafetrain.settings import Settings
from kafetrain.tracker.own_loops import source_of
from tests.fuzz.damage import (
    GROUP,
    TOPIC,
    any_text,
    dead_letter_headers,
    id_texts,
    nullable,
    record,
    redirect_keys,
    redirect_values,
    retry_record_headers,
)

__all__ = ["dead_letters", "handler_views", "ids", "redirect_logs", "retry_records"]

SETTINGS = Settings(group_id=GROUP)
NOW_MS = 1_700_000_000_000
kafka_timestamps = st.sampled_from([0, -1, NOW_MS, 2**63 - 1])


@given(id_texts | any_text)
def ids(text: str) -> None:
    """A text names an id that Kafka can have, and that is written as it was read; or none."""
    try:
        id = MessageId.parse(text)
    except ValueError:
        return
    assert MessageId.parse(str(id)) == id
    assert 0 <= id.partition < 2**31
    assert 0 <= id.offset < 2**63


@given(st.lists(st.tuples(redirect_keys, redirect_values, retry_record_headers), max_size=8))
def redirect_logs(records: list[tuple[bytes | None, bytes | None, Any]]) -> None:
    """The lock table that a log leads to hangs together, and what it holds can be shown and written again."""
    table = LockTable()
    for offset, (key, value, headers) in enumerate(records):
        with contextlib.suppress(NotAChange, NewerFormat):
            _apply(table, record(key, value, headers, offset=offset), offset)
        table.next_offset = offset + 1
    assert all(0 <= offset <= len(records) for offset in table.oldest_needed())
    for locks in table.sources.values():
        assert sorted(o for chain in locks.chains.values() for o in chain.open) == sorted(locks.entries)
        for chain in locks.chains.values():
            assert list(chain.open) == sorted(set(chain.open))
            runnable_head(locks, chain), to_park(locks, chain)
            for offset in (0, 5, 2**63 - 1):
                source_step(locks, chain, offset)
    for lock in locks_of(table, GROUP, TOPIC):
        assert str(MessageId.parse(lock.head)) == lock.head
    for partition, offset, entry in list(table.open_ids()):
        _rewrite(MessageId(GROUP, TOPIC, partition, offset), entry)
        table.source(partition).repair(offset, b"k", 1, 2)
    table.fresh().adopt(table)


def _apply(table: LockTable, read: Record, offset: int) -> None:
    change = read_change(read, lambda id: (id.group, id.topic) == (GROUP, TOPIC))
    if isinstance(change, Registered):
        if change.registration is not None:
            encode_registration(change.registration)
            table.registrations[change.group] = change.registration
    elif isinstance(change, Ended):
        table.source(change.id.partition).end(change.id.offset, change.key, offset)
    elif isinstance(change, Opened):
        table.source(change.id.partition).put(change.id.offset, change.entry)


def _rewrite(id: MessageId, entry: Entry) -> None:
    """What the retry side writes of an entry that it has read."""
    assert decode_entry(encode_entry(entry), entry.log_offset) == entry or not entry.readable
    _entry_text(entry)
    failures = entry.attempt + 1
    exhausted(failures, None, entry.first_failure_ms, NOW_MS, SETTINGS.maximum_attempts_age)
    due_ms = due_after(ValueError(), failures, SETTINGS.backoff, NOW_MS)
    for later in (
        entry.died((0, 1)),
        entry.failed(due_ms=due_ms, now_ms=NOW_MS, error_type="ValueError", error="no"),
    ):
        decode_entry(encode_entry(later), 0)
    retry_headers(id, (), timestamp_ms=0, entry=entry, max_retries=None, lock_offset=1)


@given(nullable, nullable, retry_record_headers, kafka_timestamps)
def retry_records(key: bytes | None, value: bytes | None, headers: Any, timestamp: int) -> None:
    """A retry record leaves as it came, or is malformed; a control record likewise."""
    read = record(key, value, headers, timestamp=timestamp)
    try:
        info = decode_retry(read)
    except Malformed as why:
        str(why).encode()
        return
    source = source_of(read, info)
    entry = Entry(key, attempt=info.attempt, due_ms=info.due_ms)
    decode_entry(encode_entry(entry), 0)
    at_ms, lock = info.timestamp_ms, info.lock_offset
    sent = retry_headers(info.id, source.headers, timestamp_ms=at_ms, entry=entry, max_retries=1, lock_offset=lock)
    again = decode_retry(record(key, value, sent))
    assert (again.id, again.lock_offset, again.attempt) == (info.id, info.lock_offset, info.attempt)
    assert again.user_headers == info.user_headers
    view = SourceView(source, entry, 3)
    assert get_retry_attempt(view) == info.attempt
    _ask_as_handlers_do(view)
    if info.control is not None:
        _obey(info.control)


def _obey(control: Control) -> None:
    _control_text(control)
    again = decode_retry(record(b"k", b"", control_headers(control))).control
    assert again is not None
    assert (again.id, again.action, again.dead_at) == (control.id, control.action, control.dead_at)
    audit_headers(control.audit), dlq_mark_headers(control)


@given(nullable, nullable, dead_letter_headers, kafka_timestamps)
def dead_letters(key: bytes | None, value: bytes | None, headers: Any, timestamp: int) -> None:
    """Every record of a dead-letter topic can be listed, shown and looked for; one that is none is `unknown`."""
    read = record(key, value, headers, timestamp=timestamp)
    letter = read_letter(read)
    try:
        info = decode_dead_letter(read)
    except Malformed:
        assert (letter.id, letter.state) == (None, "unknown")
    else:
        assert letter.id == info.id
        dlq_headers(
            info.id, info.user_headers, state=info.state, attempts=info.attempts, error_type=info.error_type,
            reason=info.reason, now_ms=info.at_ms, first_failure_ms=info.first_failure_ms,
            source_timestamp_ms=info.source_timestamp_ms,
        )  # fmt: skip
    _letter_text(letter)
    Filter(key=key, reason="no", since_ms=1, until_ms=2).takes(letter)
    _shown(letter, as_json=True)
    unsafe = {char for char in _shown(letter, as_json=False) if not char.isprintable()}
    assert unsafe <= set("\n\t"), "it plays with the terminal"


def _shown(letter: DeadLetter, *, as_json: bool) -> str:
    pipe = io.BytesIO()
    with io.TextIOWrapper(pipe, "utf-8", write_through=True) as stdout, contextlib.redirect_stdout(stdout):
        print_rows([letter], as_json)
        Summary.of([letter]).print(as_json)
        for payload in ("auto", "text", "hex"):
            print_letter(letter, payload, full=as_json, as_json=as_json)
        return pipe.getvalue().decode()


@given(nullable, retry_record_headers | dead_letter_headers)
def handler_views(value: bytes | None, headers: Any) -> None:
    """What handlers ask of a record's headers has an answer, whatever others have put there."""
    _ask_as_handlers_do(record(b"k", value, headers))


def _ask_as_handlers_do(read: Record) -> None:
    assert get_retry_attempt(read) >= 0
    assert isinstance(is_retry_message(read), bool)
    get_original_topic(read), get_retry_reason(read)
