"""Sweeps: many runs in a folder, by one worker or many, of a grid, a list, or a search."""
