"""Stores, destinations and the web: all that touches the world outside."""
