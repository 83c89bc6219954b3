"""The protocol's rules and state, pure: no I/O, no threads, no clock of its own."""
