"""What operators do to a whole topic or group, and see of it, from outside: reset, forget, inspect."""
