"""What is said when a training goes wrong: no memory left for a batch, and which one fits; stuck at chance, diverging,
masks that are all 0 or all 1."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from attnet.base.device import Device
from attnet.base.errors import ConfigError
from attnet.base.host import is_out_of_memory
from attnet.engine.parameters import TrainConfig
from attnet.model.network import ResidualAttentionNetwork, copy_network, evaluating

# Of a card's memory, what is left for activations besides gradients of them, buffers of kernels and gaps between.
USABLE = 0.7
STUCK = 5  # epochs at chance
CHANCE = 4  # standard deviations of a guesser's Top-1
GROWN = 2  # times the lowest training loss so far
EDGE, SHARE = 0.01, 0.99  # so many of a mask's values are so near 0, or 1

# -- no memory left: which batch fits instead, counted from the network, so that the step can stay what it is ----------


@contextlib.contextmanager
def training_memory(config: TrainConfig, device: Device, model: nn.Module) -> Iterator[None]:
    """ConfigError in place of whatever a device says that has no memory left for a step.

    Args:
        config: of the run that takes the step.
        model: the network that is trained.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ConfigError(_for_training(config, device, model, str(error))) from error


@contextlib.contextmanager
def testing_memory(batch_size: int) -> Iterator[None]:
    """ConfigError in place of whatever a device says that has no memory left for testing `batch_size` images."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        way = f"give test_batch_size={max(1, batch_size // 2)}; the results stay the same"
        raise ConfigError(f"test_batch_size={batch_size}: too many images for the memory; {way}") from error


def activation_bytes(model: nn.Module, side: int) -> int:
    """Bytes that a training's forward pass keeps of one image of `side` pixels for its backward pass, in float32.

    Counted on a copy without numbers; each storage once.
    """
    network, kept = copy_network(model, meta=True).train(), []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.untyped_storage())
        return tensor

    def of(images: int) -> int:
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network(torch.empty(images, 3, side, side, device="meta"))
        return sum({storage._cdata: storage.nbytes() for storage in kept}.values())

    return (of(4) - of(2)) // 2  # what does not grow with the images are the weights


def fitting_batch(batch: int, fits: int) -> int:
    """The largest batch up to `fits`, and smaller than `batch`, of which a whole number makes `batch` images.

    Where that would be far less than fits, as of a prime number, it is what fits.
    """
    most = max(1, min(fits, batch // 2))
    whole = max(size for size in range(1, most + 1) if batch % size == 0)
    return whole if 2 * whole > most else most


def _for_training(config: TrainConfig, device: Device, model: nn.Module, why: str) -> str:
    batch = config.train_batch_size
    reason = f"train_batch_size={batch}: too many images a step for the memory of {device.name}"
    if batch == 1:
        return f"{reason}; give a smaller network, or amp=O2 where the device computes in half precision ({why})"
    each = activation_bytes(model, model.variant.input_size)
    each //= 2 if config.amp in ("O1", "O2", "O3") else 1
    total = device.memory().total
    fits = fitting_batch(batch, int(USABLE * total / each) if total else batch)
    accumulate = -(-batch * config.accumulate // fits)
    same = "stays the same" if fits * accumulate == batch * config.accumulate else "stays nearly the same"
    return (
        f"{reason}, where each takes about {each / 2**20:,.1f} MiB; {fits} should fit: give train_batch_size={fits} "
        f"and accumulate={accumulate}, and the step {same}"
    )


# -- signs in the epochs so far ----------------------------------------------------------------------------------------


def signs(rows: Sequence[Mapping[str, float]], classes: int, test_images: int) -> Iterator[tuple[str, str]]:
    """(what, sentence) of each sign in the epochs so far; `rows` as in metrics.jsonl."""
    chance = 1 / classes
    guesser = 100 * (chance + CHANCE * math.sqrt(chance * (1 - chance) / test_images))
    last = rows[-STUCK:]
    if classes > 1 and len(last) == STUCK and max(row["top1"] for row in last) <= guesser:
        yield (
            "stuck",
            f"Top-1 has been at chance ({100 * chance:.1f} %) for {STUCK} epochs (at most "
            f"{max(row['top1'] for row in last):.1f} %): nothing is learned; look at lr, the labels and the data",
        )
    losses = [row["train_loss"] for row in rows]
    if losses[-1] > max(GROWN * min(losses), math.log(max(classes, 2))):
        yield (
            "diverging",
            f"the training loss has risen to {losses[-1]:.3g}, from {min(losses):.3g} in epoch "
            f"{losses.index(min(losses)) + 1}: diverging; a lower lr may help",
        )


def dead_masks(network: ResidualAttentionNetwork, images: Tensor) -> Iterator[tuple[str, str]]:
    """(module, sentence) of each attention module whose mask is all 0 or all 1 on some images [N, 3, S, S]."""
    shares: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str) -> object:
        def hook(_module: nn.Module, _inputs: tuple, mask: Tensor) -> None:
            shares[name] = (mask < EDGE).float().mean(), (mask > 1 - EDGE).float().mean()

        return hook

    # Channel attention is normalised to length 1, not squeezed between 0 and 1.
    watched = {
        name: module.mask
        for name, module in network.attention_modules().items()
        if module.mask is not None and module.mask.head.attention != "channel"
    }
    hooks = [mask.register_forward_hook(watch(name)) for name, mask in watched.items()]
    try:
        with evaluating(network):
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    for name, both in shares.items():
        for value, share in zip((0, 1), torch.stack(both).tolist(), strict=True):
            if share >= SHARE:
                yield name, f"the mask of {name} is {value} nearly everywhere ({100 * share:.1f} %): it selects nothing"
