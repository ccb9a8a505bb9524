"""Grad-CAM: where a network found evidence for a class, to hold the attention masks against.

Source: Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization", ICCV 2017.
Shapes are written [N, C, H, W].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.masks.capture import as_input
from attnet.masks.foreign import Foreign
from attnet.model.network import ResidualAttentionNetwork, choose_modules, evaluating, unwrap


def grad_cam(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    module: str | None = None,
    *,
    batch_size: int = 50,
    full_size: bool = True,
) -> Tensor:
    """Where evidence for a class was found: channels weighed by the gradient of its logit, summed, negatives cut.

    Args:
        model: a network from `build_model`, a `Foreign` or any other classifier; DDP- or compile-wrapped is fine. Its
            train/eval state is restored and its parameters get no gradients; frozen ones are fine, and so is a
            caller's `torch.no_grad()`.
        images: [N, 3, S, S] (or one, [3, S, S]), float in [0, 1] or uint8, which is scaled; on any device.
        targets: the classes to explain, whole numbers [N]; None: those that the network predicts.
        module: the output of this attention module; None: the last features, those that are averaged for the
            classifier. Of another network there are the last ones alone: the `features` of `Foreign`.
        full_size: up-sampled to the images' size; otherwise as large as the features are.

    Returns:
        Maps as large as the images, float32 [N, S, S] on the CPU, at least 0 and not normalised; see `enlarged`.

    Raises:
        ConfigError: an unknown module, odd images, targets that do not fit, or a network without features that have
            places.
    """
    images = images[None] if images.dim() == 3 else images
    network = unwrap(model)
    network = network if hasattr(network, "attention_modules") else Foreign(model, {}, tuple(images.shape[-2:]))
    if targets is not None:
        targets = check_targets(targets, len(images), network.num_classes)
    maps, start = [], 0
    features = _Features(network, module)
    try:
        for batch in images.split(batch_size):
            chosen = None if targets is None else targets[start : start + len(batch)]
            cam = features.weigh(batch, chosen)
            maps.append((enlarged(cam, images.shape[-2:]) if full_size else cam).cpu())
            start += len(batch)
    finally:
        features.close()
    return torch.cat(maps)


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """[N, h, w] -> [N, H, W] bilinearly, pixel centres on pixel centres (align_corners=False): usual for Grad-CAM."""
    return F.interpolate(maps[:, None], size=tuple(size), mode="bilinear", align_corners=False)[:, 0]


class _Features:
    """Hooks that make the features at one place of a network a leaf to differentiate by.

    Gradients are recorded from there on only, so memory holds no graph of what comes before.
    """

    def __init__(self, network: ResidualAttentionNetwork | Foreign, module: str | None) -> None:
        self.network = network
        self.leaf = torch.empty(0)

        def at_module(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
            return self._start(output)

        def at_features(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
            return self._start(output).clone()  # what follows may work in place, which a leaf does not allow

        # The network's own ReLU works in place, which a leaf does not allow, and after a leaf that is rectified
        # already it would hide the gradient wherever that is 0. So the averaging is done anew from the leaf.
        def at_norm(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            self.leaf = F.relu(output)

        def at_classifier(_module: nn.Module, _inputs: tuple) -> Tensor:
            return self._start(self.leaf).mean(dim=(2, 3))

        if isinstance(network, Foreign):
            if module is not None:
                raise ConfigError(
                    f"module={module!r}: Grad-CAM of a {type(network.network).__name__} is of its last features; "
                    "Foreign(..., features='path.to.module') looks at others"
                )
            self.handles = [_last_features(network).register_forward_hook(at_features)]
        elif module is not None:
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


def _last_features(network: Foreign) -> nn.Module:
    if network.features is None:
        raise ConfigError(
            f"model is a {type(network.network).__name__}: none of its modules returns [N, C, H, W] with more than one "
            "place for these images, and Grad-CAM needs that; try larger images"
        )
    return network.network.get_submodule(network.features)


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
