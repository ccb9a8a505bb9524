"""Networks and images that tests of several rooms look at."""

import dataclasses
import functools

import torch
from torch import Tensor, nn

import attnet
from attnet.model.network import ResidualAttentionNetwork


@functools.cache
def meta(name: str, **options: object) -> ResidualAttentionNetwork:
    """A network without numbers, for what is counted."""
    with torch.device("meta"):
        return attnet.build_model(name, **options)


def tiny(**options: object) -> ResidualAttentionNetwork:
    """The smallest network of the table, always the same one."""
    torch.manual_seed(0)
    return attnet.build_model("attention56_tiny", **options)


def narrow(depths: tuple[int, ...], **options: object) -> ResidualAttentionNetwork:
    """A narrow network with a module of each of these depths."""
    widths = tuple(8 * 2**i for i in range(len(depths)))
    row = attnet.variants()["attention56_tiny"]
    base = dataclasses.replace(row, modules=(1,) * len(depths), depths=depths, widths=widths)
    torch.manual_seed(0)
    return ResidualAttentionNetwork(dataclasses.replace(base, tail_width=widths[-1], **options))


def contrasting(**options: object) -> ResidualAttentionNetwork:
    """A tiny network whose masks have something to show: fresh ones are 0.5 nearly everywhere."""
    model = tiny(**options)
    for module in model.attention_modules().values():
        if module.mask is not None:
            module.mask.head.conv2.weight.data *= 30
    return model


def trained(model: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms as far from their initial state as training may bring them; some weights become negative."""
    generator = torch.Generator().manual_seed(seed)
    for norm in norms(model):
        with torch.no_grad():
            norm.running_mean.normal_(0, 0.5, generator=generator)
            norm.running_var.uniform_(0.5, 2, generator=generator)
            norm.weight.normal_(1, 0.5, generator=generator)
            norm.bias.normal_(0, 0.5, generator=generator)
    return model


def settled(module: nn.Module) -> nn.Module:
    """The module in float64 and evaluation mode, with batch norms that do something."""
    generator = torch.Generator().manual_seed(1)
    for part in norms(module):
        tensors = (part.weight, 0.5), (part.bias, -0.5), (part.running_mean, -0.5), (part.running_var, 1)
        for tensor, low in tensors:
            tensor.data = low + torch.rand(tensor.shape, generator=generator)
    return module.double().eval()


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    """All batch norms of a network."""
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def draw_pixels(n: int, height: int = 32, width: int = 32) -> Tensor:
    """Noise as images, uint8 [n, 3, height, width]: the same again and again."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=generator)


def varied() -> ResidualAttentionNetwork:
    """A tiny network with norms drawn at random: fresh ones leave features so alike that many a map is 0 all over."""
    model = tiny()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.5)
    return model
