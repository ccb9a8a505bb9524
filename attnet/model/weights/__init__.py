"""Files of weights: reading them, whoever wrote them, and loading them into a network."""
