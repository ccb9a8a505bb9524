"""Grad-CAM: where a network found evidence for a class, to hold the attention masks against.

Source: Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization", ICCV 2017.
Shapes are written [N, C, H, W].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.masks.capture import as_input
from attnet.model.network import ResidualAttentionNetwork, attention_network, choose_modules, evaluating


def grad_cam(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    module: str | None = None,
    *,
    batch_size: int = 50,
) -> Tensor:
    """Where evidence for a class was found: channels weighed by the gradient of its logit, summed, negatives cut.

    Args:
        model: a network from `build_model`; DDP- or compile-wrapped is fine. Its train/eval state is restored and
            its parameters get no gradients; frozen ones are fine, and so is a caller's `torch.no_grad()`.
        images: [N, 3, S, S] (or one, [3, S, S]), float in [0, 1] or uint8, which is scaled; on any device.
        targets: the classes to explain, whole numbers [N]; None: those that the network predicts.
        module: the output of this attention module; None: the last features, those that are averaged for the
            classifier.

    Returns:
        Maps as large as the images, float32 [N, S, S] on the CPU, at least 0 and not normalised: up-sampled
        bilinearly with pixel centres on pixel centres (align_corners=False), as usual for Grad-CAM.

    Raises:
        ConfigError: a model without attention modules, an unknown module, odd images, or targets that do not fit.
    """
    network = attention_network(model)
    images = images[None] if images.dim() == 3 else images
    if targets is not None:
        targets = check_targets(targets, len(images), network.num_classes)
    maps, start, size = [], 0, images.shape[-2:]
    features = _Features(network, module)
    try:
        for batch in images.split(batch_size):
            chosen = None if targets is None else targets[start : start + len(batch)]
            cam = features.weigh(batch, chosen)[:, None]
            maps.append(F.interpolate(cam, size=size, mode="bilinear", align_corners=False)[:, 0].cpu())
            start += len(batch)
    finally:
        features.close()
    return torch.cat(maps)


class _Features:
    """Hooks that make the features at one place of a network a leaf to differentiate by.

    Gradients are recorded from there on only, so memory holds no graph of what comes before.
    """

    def __init__(self, network: ResidualAttentionNetwork, module: str | None) -> None:
        self.network = network
        self.leaf = torch.empty(0)

        def at_module(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
            return self._start(output)

        # The network's own ReLU works in place, which a leaf does not allow, and after a leaf that is rectified
        # already it would hide the gradient wherever that is 0. So the averaging is done anew from the leaf.
        def at_norm(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            self.leaf = F.relu(output)

        def at_classifier(_module: nn.Module, _inputs: tuple) -> Tensor:
            return self._start(self.leaf).mean(dim=(2, 3))

        if module is not None:
            self.handles = [choose_modules(network, module)[module].register_forward_hook(at_module)]
        else:
            self.handles = [network.norm.register_forward_hook(at_norm)]
            self.handles.append(network.fc.register_forward_pre_hook(at_classifier))

    def _start(self, features: Tensor) -> Tensor:
        torch.set_grad_enabled(True)  # until `evaluating` ends
        self.leaf = features.detach().requires_grad_()
        return self.leaf

    def weigh(self, images: Tensor, targets: Tensor | None) -> Tensor:
        """The map of each image at the features' own resolution, float32 [N, h, w]."""
        with torch.inference_mode(False), evaluating(self.network):
            logits = self.network(as_input(self.network, images))
            chosen = logits.argmax(dim=1) if targets is None else targets.to(logits.device)
            score = logits.gather(1, chosen[:, None]).sum()  # an image's gradient comes from its own logit alone
            gradient = torch.autograd.grad(score, self.leaf)[0].float()
            weights = gradient.mean(dim=(2, 3), keepdim=True)
            return F.relu((weights * self.leaf.detach().float()).sum(dim=1)).detach()

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


def check_targets(targets: Tensor, count: int, num_classes: int | None = None) -> Tensor:
    """Targets as int64, or a ConfigError that says what they should be."""
    if targets.shape != (count,) or targets.is_floating_point():
        raise ConfigError(
            f"targets of shape {list(targets.shape)} and dtype {targets.dtype}: a whole number for each image, "
            f"[{count}] here, is needed"
        )
    if num_classes is not None and count and (targets.min() < 0 or targets.max() >= num_classes):
        raise ConfigError(
            f"targets from {targets.min()} to {targets.max()}: the model has classes 0 to {num_classes - 1}"
        )
    return targets.long()
