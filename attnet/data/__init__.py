"""On what: see README.md in this folder."""
