"""The tables, and the statements on them.

Whole batches go in and out as one JSON value: a statement that is stepped row by row would take and give Python's
global lock for each, and wait for the event loop every time.
"""

from __future__ import annotations

from kafetrain.service.domain.task import State, Task

__all__ = ["CREATE", "SET_VERSION", "STATE_NUMBERS", "VERSION", "due_ms", "queue_of"]

VERSION = 1
SET_VERSION = f"PRAGMA user_version = {VERSION}"

STATE_NUMBERS = {State.SCHEDULED: 0, State.DELIVERED: 1, State.DEAD_LETTERED: 2, State.DEAD: 3}

NORMAL, PRIORITY = 0, 1
FINAL = {State.DELIVERED: 2, State.DEAD_LETTERED: 3}


def queue_of(task: Task) -> int:
    """Where in `tasks_queue` it stands: among the due ones, or among those that wait to be forgotten."""
    return FINAL[task.state] if task.state.is_final else int(task.is_priority)


def due_ms(seconds: float) -> int:
    return int(seconds * 1000)


CREATE = """
CREATE TABLE IF NOT EXISTS tasks (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    state INTEGER NOT NULL,
    queue INTEGER NOT NULL,
    due INTEGER NOT NULL,
    size INTEGER NOT NULL,
    token TEXT NOT NULL DEFAULT '',
    client_id TEXT NOT NULL,
    source TEXT NOT NULL,
    content TEXT NOT NULL,
    progress TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS tasks_queue ON tasks (queue, due, size);
CREATE INDEX IF NOT EXISTS tasks_state ON tasks (state, seq);
CREATE TABLE IF NOT EXISTS minutes (
    minute INTEGER NOT NULL,
    name TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (minute, name)
) STRICT, WITHOUT ROWID;
"""

ADD = """
INSERT INTO tasks (id, state, queue, due, client_id, source, content, progress, size)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
    value ->> 8
FROM json_each(?) WHERE true
ON CONFLICT (id) DO NOTHING
"""

COMPARE = """
SELECT json_group_array(json_array(found.seq, found.is_same)) FROM (
    SELECT t.seq, t.content = j.value ->> 6 AS is_same FROM json_each(?) j
    LEFT JOIN tasks t ON t.id = j.value ->> 0 ORDER BY j.key
) found
"""

DUE = """
SELECT json_group_array(json_array(seq, size)) FROM
    (SELECT seq, size FROM tasks WHERE queue = ? AND due <= ? ORDER BY due LIMIT ?)
"""

LOAD = """
SELECT json_group_array(json_array(content, progress)) FROM
    (SELECT t.content, t.progress FROM json_each(?) j JOIN tasks t ON t.seq = j.value ORDER BY j.key)
"""

CLAIM = "UPDATE tasks SET due = ?, token = ? WHERE seq IN (SELECT value FROM json_each(?))"

NEXT_DUE = """
SELECT min(due) FROM (
    SELECT * FROM (SELECT due FROM tasks WHERE queue = 0 ORDER BY due LIMIT 1)
    UNION ALL SELECT * FROM (SELECT due FROM tasks WHERE queue = 1 ORDER BY due LIMIT 1)
)
"""

RENEW = """
UPDATE tasks SET due = ? FROM json_each(?) j WHERE tasks.id = j.value ->> 0 AND tasks.token = j.value ->> 1
"""

FINISH = """
UPDATE tasks SET state = j.value ->> 2, queue = j.value ->> 3, due = j.value ->> 4, progress = j.value ->> 5, token = ''
FROM json_each(?) j WHERE tasks.id = j.value ->> 0 AND tasks.token = j.value ->> 1
"""

PUT = """
UPDATE tasks SET state = ?, queue = ?, due = ?, progress = ?, token = ''
WHERE id = ? AND progress = ? AND (token = '' OR due <= ?)
"""

_PAGE = """
WITH looked AS MATERIALIZED (
    SELECT seq, id, client_id, source FROM tasks WHERE seq < :before AND {} ORDER BY seq DESC LIMIT :looked_at
), found AS MATERIALIZED (
    SELECT seq FROM looked WHERE (:client_id IS NULL OR client_id = :client_id)
        AND (:source IS NULL OR source = :source) AND (:search IS NULL OR instr(id, :search))
    ORDER BY seq DESC LIMIT :limit
)
SELECT (SELECT count(*) FROM looked), (SELECT min(seq) FROM looked), (
    SELECT json_group_array(json_array(seq, json_set(content, '$[8]', '') || '', progress)) FROM
        (SELECT t.seq, t.content, t.progress FROM found JOIN tasks t USING (seq) ORDER BY t.seq DESC)
)
"""
PAGE = _PAGE.format("(:state IS NULL)")
PAGE_OF_STATE = _PAGE.format("state = :state")

PURGE = "DELETE FROM tasks WHERE seq IN (SELECT seq FROM tasks WHERE queue = ? AND due < ? LIMIT 1000)"

ADD_COUNTS = """
INSERT INTO minutes SELECT ?, key, value FROM json_each(?) WHERE true
ON CONFLICT (minute, name) DO UPDATE SET count = count + excluded.count
"""
