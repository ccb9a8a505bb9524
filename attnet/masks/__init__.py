"""What does the network look at? See README.md in this folder."""
