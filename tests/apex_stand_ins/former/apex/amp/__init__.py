from small_amp import load_state_dict, master_params  # noqa: F401
from small_amp import state as _amp_state  # noqa: F401

from .frontend import initialize, scale_loss, state_dict  # noqa: F401
