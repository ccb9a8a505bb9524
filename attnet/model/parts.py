"""The parts of a network, bottom to top: which of them keep their weights in fine-tuning, and how fast each learns."""

from __future__ import annotations

from torch import nn

from attnet.base.errors import ConfigError
from attnet.base.words import names_of
from attnet.model.network import ResidualAttentionNetwork, Variant

HEAD = "head"  # the last linear layer, whose size is the number of classes
BODY = "body"  # all the others


def part_names(variant: Variant) -> tuple[str, ...]:
    """ "stem", "stage1" ..., "tail", "norm" (the batch norm after the tail), "head"."""
    return ("stem", *(f"stage{i + 1}" for i in range(len(variant.depths))), "tail", "norm", HEAD)


def frozen_parts(variant: Variant, freeze: str) -> tuple[str, ...]:
    """The parts that `freeze` names, with commas between; "body" is all but the head, "" none.

    Raises:
        ConfigError: a part that the network lacks, or all of them.
    """
    names = part_names(variant)
    wanted = set(names_of(freeze, "freeze")) - {""}
    if unknown := sorted(wanted - {*names, BODY}):
        raise ConfigError(
            f"freeze={freeze!r}: {unknown[0]!r} is no part of {variant.name}, which has {', '.join(names)}; {BODY} is "
            f"all but the {HEAD}"
        )
    frozen = tuple(name for name in names if name in wanted or (BODY in wanted and name != HEAD))
    if frozen == names:
        raise ConfigError(f"freeze={freeze!r}: these are all parts, and none would learn; leave one out")
    return frozen


def network_parts(network: ResidualAttentionNetwork) -> dict[str, nn.Module]:
    """Every part by its name; together they hold all parameters, each once."""
    parts = (network.stem, *network.stages, network.tail, network.norm, network.fc)
    return dict(zip(part_names(network.variant), parts, strict=True))


def freeze_parts(network: ResidualAttentionNetwork, freeze: str) -> None:
    """Let the parts that `freeze` names need no gradients; errors as `frozen_parts`."""
    parts = network_parts(network)
    for name in frozen_parts(network.variant, freeze):
        parts[name].requires_grad_(False)


def rest_frozen(network: nn.Module) -> None:
    """Evaluation mode for frozen parts: their batch norms keep the statistics that their weights were trained with."""
    for part in network_parts(network).values() if isinstance(network, ResidualAttentionNetwork) else ():
        if not any(parameter.requires_grad for parameter in part.parameters()):
            part.eval()


def rate_factors(network: ResidualAttentionNetwork, layer_decay: float) -> dict[str, float]:
    """Parameter -> what its learning rate is multiplied by: 1 for the head, `layer_decay` times less a part below.

    Lower layers hold what is more general and need to change less: Howard and Ruder, "Universal Language Model
    Fine-tuning for Text Classification", 2018 (discriminative fine-tuning, with a factor of 1 / 2.6 a layer).
    """
    factors = {}
    for power, part in enumerate(reversed(network_parts(network).values())):
        factors |= {id(parameter): layer_decay**power for parameter in part.parameters()}
    return {name: factors[id(parameter)] for name, parameter in network.named_parameters()}


def learning_lines(variant: Variant, freeze: str, layer_decay: float) -> list[str]:
    """In words: what keeps its weights, and how fast the rest learns; nothing where all learns alike."""
    frozen = frozen_parts(variant, freeze)
    lines = [f"frozen: {', '.join(frozen)} keep weights and statistics"] if frozen else []
    if layer_decay != 1:
        names = part_names(variant)
        rates = {name: layer_decay**power for power, name in enumerate(reversed(names))}
        shown = ", ".join(f"{name} {rates[name]:.3g}" for name in names if name not in frozen)
        lines.append(f"learning rates: lr times {shown}")
    return lines
