"""`kafetrain demo`: ordered retries to watch, on a broker that the demo brings along, and a verdict at the end."""
