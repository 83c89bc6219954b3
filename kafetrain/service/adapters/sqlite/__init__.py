"""Tasks in one SQLite file, for one process."""

from kafetrain.service.adapters.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
