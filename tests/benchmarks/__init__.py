"""Benchmarks: `python -m tests.benchmarks`. Not collected by pytest."""
