"""Benchmarks: how long the agent's parts take, as JSON lines."""
