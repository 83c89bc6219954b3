"""A `TaskStore` in one SQLite file.

One thread writes: a transaction per call, and calls that come meanwhile share the next one (`Batcher`). Another one
reads, which in WAL mode waits for no writer. `synchronous=FULL`: what is committed has been fsynced.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import orjson

from kafetrain.errors import ConfigurationError
from kafetrain.service.adapters.batcher import Batcher
from kafetrain.service.adapters.codec import content_of, progress_of, task_of, weight_of
from kafetrain.service.adapters.sqlite import schema
from kafetrain.service.adapters.sqlite.schema import STATE_NUMBERS, due_ms, queue_of
from kafetrain.service.adapters.sqlite.worker import Worker
from kafetrain.service.domain.task import State, Task
from kafetrain.service.ports.store import Added, Claim, Claimed, Filter, Found, Page, StoreError

__all__ = ["SqliteStore"]

T = TypeVar("T")

ROWS_PER_WRITE = 2000
CHARACTERS_PER_CLAIM = 16_000_000  # a value has a bound of 1 GB, and memory one of its own
BUSY_TIMEOUT_S = 5.0
LOOKED_AT_PER_PAGE = 5000
KEPT_MINUTES = 24 * 60
HINTS = {
    "attempt to write a readonly database": "it may only be read here; the service writes the file and beside it",
    "unable to open database file": "does its folder exist, and may files be made and written there?",
    "database or disk is full": "tasks are stored again when there is room",
    "disk I/O error": "the disk takes no more; it may be full",
    "database is locked": "another process holds it, and it is for one",
}
"""By what SQLite says; names of its errors come with Python 3.11."""

OLDEST = (3, 38, 0)  # for `->>` and STRICT


class SqliteStore:
    """`clock` gives seconds since the epoch. Several processes may open the file; they hear of each other's tasks
    only when they look, so one is meant."""

    def __init__(self, path: str | Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path, self._clock = Path(path), clock
        self._writer, self._reader = Worker("kafetrain-sqlite-writer"), Worker("kafetrain-sqlite-reader")
        self._write_connection: sqlite3.Connection | None = None
        self._read_connection: sqlite3.Connection | None = None
        self._adding = Batcher(self._add, ROWS_PER_WRITE, weight_of)
        self._finishing = Batcher(self._finish, ROWS_PER_WRITE)

    def now(self) -> float:
        return self._clock()

    async def open(self) -> None:
        if sqlite3.sqlite_version_info < OLDEST:
            raise ConfigurationError(
                f"SQLite {sqlite3.sqlite_version} is too old: the service needs 3.38 or newer, or STORE_URL=redis://..."
            )
        await self._run(self._writer, self._open)

    async def close(self) -> None:
        for worker, connection in ((self._reader, self._read_connection), (self._writer, self._write_connection)):
            if connection is not None:
                await self._run(worker, connection.close)
            worker.end()

    async def check(self) -> None:
        # A write, so that a full disk is told apart from a healthy one.
        await self._write(schema.SET_VERSION)

    async def add(self, tasks: Sequence[Task]) -> list[Added]:
        return await self._adding.put(tasks)

    async def claim(self, limit: int, lease_s: float) -> Claimed:
        token = secrets.token_hex(8)
        now = self.now()

        def claim(connection: sqlite3.Connection) -> tuple[list[Any], int | None]:
            def due(queue: int, count: int) -> list[Any]:
                rows = connection.execute(schema.DUE, (queue, due_ms(now), count)).fetchone()[0]
                return list(orjson.loads(rows))

            normal = due(schema.NORMAL, limit)
            priority = due(schema.PRIORITY, max(limit - limit // 4, limit - len(normal)))
            quarter = CHARACTERS_PER_CLAIM // 4
            chosen = _up_to(CHARACTERS_PER_CLAIM - (quarter if normal else 0), priority)
            room = CHARACTERS_PER_CLAIM - sum(size for _, size in chosen)
            chosen += _up_to(max(room, quarter), normal[: limit - len(priority)])
            rows = []
            if chosen:
                seqs = orjson.dumps([seq for seq, _ in chosen]).decode()
                rows = orjson.loads(connection.execute(schema.LOAD, (seqs,)).fetchone()[0])
                connection.execute(schema.CLAIM, (due_ms(now + lease_s), token, seqs))
            return rows, connection.execute(schema.NEXT_DUE).fetchone()[0]

        rows, next_due = await self._transaction(claim)
        claims = [Claim(task_of(content, progress), token) for content, progress in rows]
        return Claimed(claims, None if next_due is None else next_due / 1000)

    async def renew(self, claims: Sequence[Claim], lease_s: float) -> None:
        ours = orjson.dumps([(claim.task.id, claim.token) for claim in claims]).decode()
        lease_end = due_ms(self.now() + lease_s)
        await self._write(schema.RENEW, lease_end, ours)

    async def finish(self, claims: Sequence[Claim]) -> None:
        await self._finishing.put(claims)

    async def get(self, id: str) -> Found | None:
        def get(connection: sqlite3.Connection) -> Any:
            return connection.execute("SELECT content, progress, token, due FROM tasks WHERE id = ?", (id,)).fetchone()

        row = await self._read(get)
        if row is None:
            return None
        content, progress, token, due = row
        return Found(task_of(content, progress), progress, bool(token) and due > due_ms(self.now()))

    async def put(self, task: Task, revision: str) -> bool:
        progress, now = progress_of(task), due_ms(self.now())
        values = (STATE_NUMBERS[task.state], queue_of(task), due_ms(task.due_at), progress, task.id, revision, now)
        return bool((await self._write(schema.PUT, *values)).rowcount)

    async def delete(self, id: str) -> bool:
        return bool((await self._write("DELETE FROM tasks WHERE id = ?", id)).rowcount)

    async def page(self, filter: Filter, limit: int, cursor: str | None = None) -> Page:
        before = _seq_of(cursor)

        is_filtered = (filter.client_id, filter.source, filter.search) != (None, None, None)
        values = {
            "before": before,
            "state": None if filter.state is None else STATE_NUMBERS[filter.state],
            "client_id": filter.client_id,
            "source": filter.source,
            "search": filter.search,
            "limit": limit,
            "looked_at": LOOKED_AT_PER_PAGE if is_filtered else limit,
        }
        statement = schema.PAGE if filter.state is None else schema.PAGE_OF_STATE
        looked, last, rows = await self._read(lambda connection: connection.execute(statement, values).fetchone())
        found = orjson.loads(rows)
        if len(found) == limit:
            last = found[-1][0]
        elif looked < values["looked_at"]:
            last = None
        return Page([task_of(*row[1:]) for row in found], None if last is None else str(last))

    async def counts(self) -> Mapping[State, int]:
        rows = await self._read(lambda c: c.execute("SELECT state, count(*) FROM tasks GROUP BY state").fetchall())
        found = dict(rows)
        return {state: found.get(number, 0) for state, number in STATE_NUMBERS.items()}

    async def purge(self, before: Mapping[State, float]) -> int:
        def purge(connection: sqlite3.Connection) -> int:
            oldest = int(self.now() // 60) - KEPT_MINUTES
            connection.execute("DELETE FROM minutes WHERE minute < ?", (oldest,))
            return sum(
                connection.execute(schema.PURGE, (schema.FINAL[state], due_ms(at))).rowcount
                for state, at in before.items()
            )

        return await self._transaction(purge)

    async def add_counts(self, minute: int, counts: Mapping[str, int]) -> None:
        await self._write(schema.ADD_COUNTS, minute, orjson.dumps(counts).decode())

    async def history(self, since_minute: int) -> Mapping[int, Mapping[str, int]]:
        statement = "SELECT minute, name, count FROM minutes WHERE minute >= ?"
        found: dict[int, dict[str, int]] = {}
        for minute, name, count in await self._read(lambda c: c.execute(statement, (since_minute,)).fetchall()):
            found.setdefault(minute, {})[name] = count
        return found

    # Batches

    async def _add(self, tasks: list[Task]) -> list[Added]:
        contents = [content_of(task) for task in tasks]
        rows = orjson.dumps(
            [
                (
                    task.id,
                    STATE_NUMBERS[task.state],
                    queue_of(task),
                    due_ms(task.due_at),
                    task.client_id,
                    task.source,
                    content,
                    progress_of(task),
                    len(content),
                )
                for task, content in zip(tasks, contents, strict=True)
            ]
        ).decode()

        def add(connection: sqlite3.Connection) -> tuple[float, list[Any]]:
            written = connection.execute(schema.ADD, (rows,))
            if written.rowcount == len(tasks):
                return 0, []
            # Those of one statement have numbers in one piece.
            last = (written.lastrowid or 0) - written.rowcount if written.rowcount else float("inf")
            return last, orjson.loads(connection.execute(schema.COMPARE, (rows,)).fetchone()[0])

        last, stored = await self._run(self._writer, lambda: add(self._writing()))
        if not stored:
            return [Added.CREATED] * len(tasks)
        results: list[Added] = []
        created: set[str] = set()
        for task, (seq, is_same) in zip(tasks, stored, strict=True):
            if seq is None:
                raise StoreError(f"sqlite {self.path}: another process has deleted a task that was just compared")
            if seq > last and task.id not in created:
                created.add(task.id)
                results.append(Added.CREATED)
            else:
                results.append(Added.SAME if is_same else Added.DIFFERENT)
        return results

    async def _finish(self, claims: list[Claim]) -> list[None]:
        rows = orjson.dumps(
            [
                (
                    claim.task.id,
                    claim.token,
                    STATE_NUMBERS[claim.task.state],
                    queue_of(claim.task),
                    due_ms(claim.task.due_at),
                    progress_of(claim.task),
                )
                for claim in claims
            ]
        ).decode()
        await self._write(schema.FINISH, rows)
        return [None] * len(claims)

    # Connections; each is used by its own thread alone

    def _open(self) -> None:
        if self.path.parent != Path():
            self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = self._write_connection = self._connect()
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, schema.VERSION):
            raise ConfigurationError(f"{self.path} has format {version}; this kafetrain knows {schema.VERSION}")
        connection.executescript(schema.CREATE)
        connection.execute(schema.SET_VERSION)
        self._read_connection = self._connect()
        self._read_connection.execute("PRAGMA query_only = ON")

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)

    def _writing(self) -> sqlite3.Connection:
        if self._write_connection is None:
            raise sqlite3.ProgrammingError("the store is not open")
        return self._write_connection

    async def _write(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """A transaction of one statement: each more would be another wait for Python's global lock."""
        return await self._run(self._writer, lambda: self._writing().execute(statement, values))

    async def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def run() -> T:
            connection = self._writing()
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result

        return await self._run(self._writer, run)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def run() -> T:
            if self._read_connection is None:
                raise sqlite3.ProgrammingError("the store is not open")
            return work(self._read_connection)

        return await self._run(self._reader, run)

    async def _run(self, worker: Worker, work: Callable[[], T]) -> T:
        try:
            return await worker.run(work)
        except (sqlite3.Error, OSError, MemoryError) as error:
            raise StoreError(f"sqlite {self.path}: {_text_of(error)}") from error
        except RuntimeError as error:  # it was closed
            raise StoreError(f"sqlite {self.path}: {error}") from error


def _text_of(error: Exception) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return f"{text}: {HINTS[text]}" if text in HINTS else text


def _up_to(room: int, rows: list[Any]) -> list[Any]:
    """Of (seq, size), as many as there is room for, and the one that exceeds it."""
    for place, (_, size) in enumerate(rows):
        if room <= 0:
            return rows[:place]
        room -= size
    return rows


def _seq_of(cursor: str | None) -> int:
    if cursor is None:
        return 2**62
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 18:
        raise ValueError("cursor is none that this service gave")
    return int(cursor)
