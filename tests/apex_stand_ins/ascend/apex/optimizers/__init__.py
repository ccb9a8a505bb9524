from .fused_sgd import FusedSGD  # noqa: F401
from .npu_fused_sgd import NpuFusedSGD  # noqa: F401
