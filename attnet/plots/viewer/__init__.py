"""The viewer: masks to look at by hand, live in a notebook (`explorer`) or in one file (`theatre`)."""
