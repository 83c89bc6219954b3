"""The journal of `kafetrain.testing`, by its former place."""

from __future__ import annotations

from kafetrain.testing.events import BrokenPromise, Event, Kind, Place, Written
from kafetrain.testing.journal import Journal

__all__ = ["BrokenPromise", "Event", "Journal", "Kind", "Place", "Written"]
