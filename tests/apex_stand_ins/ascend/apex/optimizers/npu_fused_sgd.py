from small_sgd import SGD
from torch.optim.optimizer import required


class NpuFusedSGD(SGD):
    def __init__(self, params, lr=required, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
        self.is_npu_fused_optimizer = True
        self._init(params, lr, momentum, dampening, weight_decay, nesterov)

    def step(self, closure=None):
        if not hasattr(self, "_amp_stash"):
            raise RuntimeError("apex.optimizers.NpuFusedSGD should be used with AMP.")
        super().step(closure)
