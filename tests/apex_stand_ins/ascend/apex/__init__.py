"""In place of Ascend's apex. Importing it without its compiled module fails, as there."""

import change_data_ptr  # noqa: F401

from . import amp, optimizers  # noqa: F401
