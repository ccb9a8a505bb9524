"""In place of NVIDIA's present apex, which has no amp."""

from . import optimizers  # noqa: F401
