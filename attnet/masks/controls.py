"""What a claim about masks is held against: maps without any network, and networks that have learned nothing.

An edge filter finds what has contrast, the centre what stands in the middle; an untrained network passes on edges and
colours as well. Only what masks have beyond all of them can be called learned.
Sources: Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018 (weights drawn anew from the top down).
Shapes are written [N, C, H, W].
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.masks.capture import as_input
from attnet.masks.foreign import Foreign
from attnet.model.network import ResidualAttentionNetwork, attention_network, evaluating
from attnet.model.parts import network_parts

SIDE = 32  # pixels: the images that the widths of the filters below are meant for; larger ones get wider filters
SEEDS = 3  # untrained networks that a claim is held against
LEVELS = 8  # of brightness, for the entropy
CALIBRATION = 500  # images that statistics of batch norms are taken from; more change them little
_SOBEL = ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0))


# -- maps of the image alone: float32 [N, 3, H, W] in [0, 1] to [N, H, W], larger where the object is thought to be ----


def _edges(images: Tensor) -> Tensor:
    """The length of the colours' gradient (Sobel), [N, 1, H, W]."""
    down = torch.tensor(_SOBEL, device=images.device)
    filters = torch.stack([down, down.T])[:, None].repeat(3, 1, 1, 1)
    gradients = F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), filters, groups=3)
    return gradients.square().sum(dim=1, keepdim=True).sqrt()


def _mean(maps: Tensor, width: int) -> Tensor:
    """The mean over a window of `width` pixels of a 32 pixel image; at the frame over what there is of it."""
    window = 2 * round(width * maps.shape[-1] / SIDE / 2 - 0.5) + 1
    return F.avg_pool2d(maps, window, stride=1, padding=window // 2, count_include_pad=False)


def _colour_distance(images: Tensor) -> Tensor:
    """How far a colour is from the mean colour of the frame's own pixels."""
    frame = torch.cat([images[..., 0, :], images[..., -1, :], images[..., :, 0], images[..., :, -1]], dim=2)
    return _mean((images - frame.mean(dim=2)[..., None, None]).square().sum(dim=1, keepdim=True).sqrt(), 3)[:, 0]


def _entropy(images: Tensor) -> Tensor:
    """The entropy of the brightness around a pixel, in LEVELS levels."""
    level = (images.mean(dim=1) * LEVELS).long().clamp(max=LEVELS - 1)
    share = _mean(F.one_hot(level, LEVELS).permute(0, 3, 1, 2).float(), 7)
    return torch.special.entr(share).sum(dim=1)


def _saturation(images: Tensor) -> Tensor:
    high, low = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    return _mean((high - low) / high.clamp(min=1e-6), 5)[:, 0]


def _centre(images: Tensor) -> Tensor:
    return centre_prior(len(images), tuple(images.shape[-2:])).to(images.device)


IMAGE_CONTROLS: dict[str, Callable[[Tensor], Tensor]] = {
    "edges": lambda images: _mean(_edges(images), 3)[:, 0],
    "edges, 5x5 mean": lambda images: _mean(_edges(images), 5)[:, 0],
    "edges, 9x9 mean": lambda images: _mean(_edges(images), 9)[:, 0],
    "coarse edges": lambda images: _mean(_edges(_mean(images, 5)), 5)[:, 0],
    "edges x centre": lambda images: _mean(_edges(images), 5)[:, 0] * _centre(images),
    "smoothness": lambda images: -_mean(_edges(images), 5)[:, 0],
    "colour distance from the frame": _colour_distance,
    "local entropy": _entropy,
    "saturation": _saturation,
    "centre prior": _centre,
}


def image_controls(images: Tensor) -> dict[str, Tensor]:
    """Every control's map of every image: name -> float32 [N, H, W] on the CPU. Images as `capture_masks`."""
    images = images[None] if images.dim() == 3 else images
    images = (images if images.is_floating_point() else images / 255).float().cpu()
    pieces = [{name: control(batch) for name, control in IMAGE_CONTROLS.items()} for batch in images.split(200)]
    return {name: torch.cat([piece[name] for piece in pieces]) for name in IMAGE_CONTROLS}


def centre_prior(count: int, size: tuple[int, int]) -> Tensor:
    """A Gaussian bump at the image's centre, the same for every image: objects tend to be there.

    σ is a quarter of each side. Float32 [count, H, W], a view of one map: clone it before you write to it.
    """
    _check_baseline(count, size)
    y, x = (((torch.arange(side) - (side - 1) / 2) / (side / 4)).square() for side in size)
    return (-(y[:, None] + x) / 2).exp().expand(count, -1, -1)


def random_maps(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Noise, uniform in [0, 1) and independent from pixel to pixel: float32 [count, H, W], from its own generator."""
    _check_baseline(count, size)
    return torch.rand(count, *size, generator=torch.Generator().manual_seed(seed))


def _check_baseline(count: int, size: tuple[int, int]) -> None:
    if count < 1 or len(size) != 2 or min(size) < 1:
        raise ConfigError(
            f"count={count}, size={size}: at least one map, of at least one pixel a side (H, W), is needed"
        )


# -- networks that have learned nothing, or forgot it ------------------------------------------------------------------


Network = ResidualAttentionNetwork | Foreign


def untrained(model: nn.Module, images: Tensor, seed: int = 0) -> Network:
    """The same network with fresh weights from `seed`, in evaluation mode; the given one is left alone.

    One of ours gets those that `build_model` would give it; a `Foreign` those of its `fresh`, or of its modules' own
    `reset_parameters`, as it says.

    Its batch norms get the statistics of `images` (at most CALIBRATION of them), without which its features would
    neither be centred nor scaled as those of a trained one.
    """
    network = copy.deepcopy(attention_network(model))
    _draw_anew(network, _parts(network), seed)
    return _calibrated(network, images)


def randomised(model: nn.Module, images: Tensor, seed: int = 0) -> Iterator[tuple[str, Network]]:
    """The network with its weights drawn anew part by part, from the head down to the stem.

    Each is given with the name of the part that has just lost its weights; those above it have lost theirs before, and
    the statistics of batch norms are taken anew from `images`. The last has learned nothing. The parts of a `Foreign`
    are the children of its network that hold weights.
    """
    network = copy.deepcopy(attention_network(model))
    for part in reversed(_parts(network)):
        _draw_anew(network, [part], seed)
        yield part, copy.deepcopy(_calibrated(network, images))


def _parts(network: Network) -> list[str]:
    return network.parts() if isinstance(network, Foreign) else list(network_parts(network))


def _draw_anew(network: Network, parts: list[str], seed: int) -> None:
    if isinstance(network, Foreign):
        return network.draw_anew(parts, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = network_parts(ResidualAttentionNetwork(network.variant, network.num_classes))
    for part in parts:
        network_parts(network)[part].load_state_dict(fresh[part].state_dict())


def _calibrated(network: Network, images: Tensor) -> Network:
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    images = images[:: max(1, len(images) // CALIBRATION)][:CALIBRATION]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    with evaluating(network):
        for norm in norms:
            norm.train()
        for batch in images.chunk(-(-len(images) // 100)):  # of one size: batch norms take no batch of one small image
            network(as_input(network, batch))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval()
