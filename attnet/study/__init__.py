"""Many runs, one question: see README.md in this folder."""
