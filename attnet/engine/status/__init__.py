"""Watching a run from outside: what it writes of itself, and how that is read. Nothing here loads torch."""
