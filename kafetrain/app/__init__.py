"""Handlers by topic, configuration from files and the environment, and one life for all of it."""

from kafetrain.app.app import App
from kafetrain.app.config import Configuration
from kafetrain.app.publisher import Publisher
from kafetrain.app.router import Router

__all__ = ["App", "Configuration", "Publisher", "Router"]
