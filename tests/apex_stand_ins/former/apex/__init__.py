"""In place of NVIDIA's apex while it had amp."""

from . import amp, optimizers  # noqa: F401
