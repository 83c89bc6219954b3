"""What a task is and what becomes of it: pure, and of the standard library alone."""
