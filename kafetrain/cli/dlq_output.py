"""How dead letters are shown: as lines, as JSON, as counts, and one of them whole."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import typer

from kafetrain.cli.shared import print_json
from kafetrain.cli.wording import iso, safe
from kafetrain.deadletter import DeadLetter, key_text
from kafetrain.errors import ConfigurationError

__all__ = ["FORMATS", "Summary", "print_letter", "print_rows"]

FORMATS = ("auto", "text", "json", "hex")
_CUT = 2000
_MOST = 20
_LINE = "{:<10} {:<20} {:<14} {:>8} {:<20} {}"


def print_rows(letters: Iterable[DeadLetter], as_json: bool) -> int:
    """Each as soon as it comes. Returns how many there were."""
    count = 0
    for count, letter in enumerate(letters, 1):
        if as_json:
            typer.echo(("[\n" if count == 1 else ",\n") + json.dumps(as_row(letter), ensure_ascii=False), nl=False)
            continue
        if count == 1:
            typer.echo(_LINE.format("at", "time", "state", "attempts", "key", "reason"))
        typer.echo(_row(letter))
    if as_json:
        typer.echo("\n]" if count else "[]")
    return count


def as_row(letter: DeadLetter) -> dict[str, Any]:
    """All but headers and payload."""
    return {
        "partition": letter.partition,
        "offset": letter.offset,
        "id": None if letter.id is None else str(letter.id),
        "key": key_text(letter.key),
        "state": letter.state,
        "error_type": letter.error_type,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "time": iso(letter.at),
        "first_failure": letter.first_failure and iso(letter.first_failure),
        "command": letter.command,
        "transform": letter.transform,
        "replayed": None if letter.replayed is None else "{}:{}".format(*letter.replayed),
    }


@dataclass
class Summary:
    """How many there are for each reason and each key."""

    total: int = 0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    keys: Counter[str | None] = field(default_factory=Counter)

    @classmethod
    def of(cls, letters: Iterable[DeadLetter]) -> Summary:
        summary = cls()
        for letter in letters:
            summary.total += 1
            summary.reasons[letter.state, _one_line(letter.error)] += 1
            summary.keys[key_text(letter.key)] += 1
        return summary

    def print(self, as_json: bool) -> None:
        if as_json:
            reasons = [{"state": s, "reason": r or None, "count": n} for (s, r), n in self.reasons.most_common()]
            keys = [{"key": key, "count": count} for key, count in self.keys.most_common()]
            print_json({"total": self.total, "reasons": reasons, "keys": keys})
            return
        if not self.total:
            return
        typer.echo(f"{self.total} dead letters")
        self._print("by reason", [(f"{safe(s):<14} {r or '-'}", n) for (s, r), n in self.reasons.most_common()])
        self._print("by key", [("(none)" if key is None else key, n) for key, n in self.keys.most_common()])

    def _print(self, title: str, rows: list[tuple[str, int]]) -> None:
        typer.echo(f"\n{title}")
        for text, count in rows[:_MOST]:
            typer.echo(f"{count:>8}  {text}")
        if len(rows) > _MOST:
            typer.echo(f"          and {len(rows) - _MOST} more; --json has all of them")


def print_letter(letter: DeadLetter, payload: str, full: bool, as_json: bool) -> None:
    """One of them, with its headers and its payload."""
    if as_json:
        headers = [{"name": name, "value": _value(value)} for name, value in letter.headers]
        print_json({**as_row(letter), "headers": headers, "payload": _value(letter.value)})
        return
    for name, value in as_row(letter).items():
        if value is not None:
            typer.echo(f"{name:<14} {value if name == 'key' else safe(str(value))}")
    if letter.headers:
        typer.echo("headers")
        for name, header in letter.headers:
            typer.echo(f"  {safe(name)}: {'(null)' if header is None else safe(header.decode('utf-8', 'replace'))}")
    typer.echo("payload")
    typer.echo(_payload(letter.value, payload, full))


def _payload(value: bytes | None, wanted: str, full: bool) -> str:
    if value is None:
        return "(null)"
    shown = value if full else value[: 4 * _CUT]  # no character has more bytes
    text = _as_json_text(value) if wanted in ("auto", "json") else None
    if text is None and wanted == "json":
        raise ConfigurationError("the payload is no JSON; --payload text or hex shows it")
    if text is None and wanted in ("auto", "text"):
        text = shown.decode("utf-8", "replace") if wanted == "text" or _is_text(value) else None
    if text is None:
        text = _hex(shown if full else shown[: _CUT // 4])
        rest = 0 if full else len(value) - _CUT // 4
    else:
        text = "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)
        rest = 0 if full or (len(text) <= _CUT and len(shown) == len(value)) else len(value)
        text = text if full else text[:_CUT]
    return f"{text}\n... cut, of {len(value)} bytes; --full shows all of them" if rest > 0 else text


def _as_json_text(value: bytes) -> str | None:
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return json.dumps(parsed, indent=2, ensure_ascii=False)


def _is_text(value: bytes) -> bool:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return False
    return all(char.isprintable() or char in "\r\n\t" for char in text)


def _hex(value: bytes) -> str:
    lines = []
    for at in range(0, len(value), 16):
        piece = value[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        lines.append(f"{at:08x}  {piece.hex(' '):<47}  {text}")
    return "\n".join(lines)


def _value(value: bytes | None) -> dict[str, str] | None:
    """Bytes in JSON: text where they are UTF-8, else base64."""
    if value is None:
        return None
    try:
        return {"text": value.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _row(letter: DeadLetter) -> str:
    key = key_text(letter.key)
    return _LINE.format(
        f"{letter.partition}:{letter.offset}",
        f"{letter.at:%Y-%m-%dT%H:%M:%SZ}",
        safe(letter.state),
        "-" if letter.attempts is None else letter.attempts,
        "(none)" if key is None else key,
        _one_line(letter.error) or "-",
    )


def _one_line(text: str) -> str:
    return safe(next(iter(text.strip().splitlines()), ""))[:200]
