"""What it is: see README.md in this folder."""
