"""A network for inference whose batch norms are folded into the convolutions before them, where one stands there.

Batch norm with fixed statistics is an affine map of each channel, so that a convolution can do it with its own weight
and a bias (Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", CVPR 2018, section 3.2): one pass over memory less. In a pre-activation unit this holds for all norms
but the first, before which a sum stands; in a ResNeXt unit for all.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from attnet.base.errors import ConfigError
from attnet.model.modules import MaskHead
from attnet.model.network import ResidualAttentionNetwork, copy_network, unwrap
from attnet.model.units import Chain, ResidualUnit, ResNeXtUnit, set_inplace

# These run their children in the order in which they were assigned. A unit of the user's may not, not even where it
# is made of such classes or keeps its layers in an nn.Sequential: it stays as it is.
_IN_ORDER = (Chain, ResidualUnit, ResNeXtUnit, MaskHead)


def folded(
    model: nn.Module, dtype: torch.dtype = torch.float32, state: Mapping[str, Tensor] | None = None
) -> ResidualAttentionNetwork:
    """A copy of the network for inference, without the batch norms that follow a convolution, but in units of yours.

    Args:
        model: a network from `build_model`, in any floating-point type; DDP- or compile-wrapped is fine. It stays
            as it is.
        dtype: of images, weights and logits. Batch norms that stay keep float32 statistics and weights when
            this is a half-precision type, as at O2; folding itself is done in float32 (float64 for such a network).
        state: weights to take in place of the model's own, such as master weights or an average: a whole state
            dict of the network.

    Returns:
        images [N, 3, S, S] -> logits [N, K], in evaluation mode, without gradients and without the model's forward
        hooks (but colours are standardised as its own are), on the model's device and in its memory format. Later
        changes of the model do not reach it.

    Raises:
        ConfigError: a model that is no ResidualAttentionNetwork.
        RuntimeError: a `state` that does not fit the network.
    """
    inner = unwrap(model)
    if not isinstance(inner, ResidualAttentionNetwork):
        raise ConfigError(
            f"model is a {type(inner).__name__}: only networks from attnet.build_model are folded; "
            "evaluate any other as it is"
        )
    network = copy_network(inner, meta=False).requires_grad_(False)
    network.to(torch.promote_types(next(network.parameters()).dtype, torch.float32))
    if state is not None:
        network.load_state_dict(state)
    _fold_children(network.stem)
    for module in list(network.modules()):
        if type(module) in _IN_ORDER:
            _fold_children(module)
    set_inplace(network)
    network.to(torch.promote_types(dtype, torch.float32))
    for module in network.modules():
        norm_stays = isinstance(module, nn.modules.batchnorm._BatchNorm)
        for tensor in () if norm_stays else (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)
    return network.eval()


def _fold_children(module: nn.Module) -> None:
    """Fold every batch norm that runs right after a convolution; nothing is left to do in its place."""
    for (_, conv), (name, norm) in itertools.pairwise(list(module.named_children())):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            setattr(module, name, nn.Identity())
