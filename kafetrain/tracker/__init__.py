"""Layer 1: which keys are in retry."""

from kafetrain.tracker.tracker import ErrorTracker

__all__ = ["ErrorTracker"]
