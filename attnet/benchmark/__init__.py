"""Measuring the engine: `attnet benchmark`, see `command`; `command.measure` from a notebook.

Nothing is imported here, so that the processes that measure start with what they need and no more.
"""
