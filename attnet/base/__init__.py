"""What everything stands on; see README.md in this folder."""

VERSION = "0.2.0"
