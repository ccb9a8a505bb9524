"""The Residual Attention Network as a module, made from one row of the table of variants.

Source: Wang et al., "Residual Attention Network for Image Classification", CVPR 2017 (sections in brackets),
and the reference implementation tengshaofeng/ResidualAttentionNetwork-pytorch, whose five classes are among
the variants. Shapes are written [N, C, H, W]; H and W halve from stage to stage.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.model.modules import AttentionModule
from attnet.model.options import OPTIONS
from attnet.model.units import InPlace, ReLU, UnitFactory, option_text, unit_factory


@dataclass(frozen=True)
class Stem:
    """First convolution (`channels`, `kernel`, `stride`) and, when `pool` > 0, a max-pool of stride 2."""

    channels: int
    kernel: int = 3
    stride: int = 1
    pool: int = 0


@dataclass(frozen=True)
class Variant:
    """One row of the table of networks; `attnet.build_model` turns it into a module.

    `modules[i]` attention modules stand in stage i on `widths[i]` channels, and their mask branches pool
    `depths[i]` times. `p`, `t`, `r` are the paper's hyper-parameters (section 3): units before and after the
    branches, in the trunk, and between two poolings of the mask branch.
    """

    name: str
    input_size: int
    stem: Stem
    modules: tuple[int, ...]
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    tail_width: int
    tail_stride: int = 1
    p: int = 1
    t: int = 2
    r: int = 1
    attention: str = "mixed"
    combine: str = "residual"
    sums: str = "reference"
    unit: str | UnitFactory = "preact"
    source: str = ""
    row: Variant | None = dataclasses.field(default=None, repr=False, compare=False)  # of the table, if it was changed

    @property
    def study(self) -> dict[str, object]:
        """The options of its attention modules."""
        options = {name: getattr(self, name) for name in OPTIONS if name != "modules"}
        return options | {"unit": unit_factory(self.unit)}

    @property
    def label(self) -> str:
        """Its name, and the options in which it differs from the row of the table: "attention92 with t=3"."""
        row = self.row or self
        changed = {name: getattr(self, name) for name in OPTIONS if getattr(self, name) != getattr(row, name)}
        texts = [f"{name}={option_text(value)}" for name, value in changed.items()]
        return self.name + (" with " if texts else "") + ", ".join(texts)

    @property
    def parameters(self) -> int:
        """Trainable parameters with 10 classes."""
        return self.count_parameters(10)

    def count_parameters(self, num_classes: int) -> int:
        """Trainable parameters with so many classes, counted from the module itself."""
        return _count_parameters(self, num_classes)


class Stage(nn.Module):
    """A residual unit that changes width (and, with stride 2, resolution), then attention modules."""

    def __init__(self, c_in: int, c_out: int, stride: int, modules: int, depth: int, variant: Variant) -> None:
        super().__init__()
        self.entry = unit_factory(variant.unit)(c_in, c_out, stride)
        self.attention = nn.Sequential(*(AttentionModule(c_out, depth, **variant.study) for _ in range(modules)))

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(self.entry(x))


class ResidualAttentionNetwork(InPlace):
    """Images [N, 3, S, S], float in [0, 1], to logits [N, num_classes]; S is `variant.input_size`.

    Other sizes run as well, since the last pooling is global; weights carry over.
    """

    def __init__(self, variant: Variant, num_classes: int = 10) -> None:
        super().__init__()
        self.variant = variant
        self.num_classes = num_classes
        stem = variant.stem
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem.channels, stem.kernel, stem.stride, padding=stem.kernel // 2, bias=False),
            nn.BatchNorm2d(stem.channels),
            ReLU(),
        )
        if stem.pool:
            self.stem.append(nn.MaxPool2d(stem.pool, stride=2, padding=(stem.pool - 1) // 2))
        self.stages = nn.Sequential()
        channels = stem.channels
        rows = zip(variant.widths, variant.modules, variant.depths, strict=True)
        for index, (width, modules, depth) in enumerate(rows):
            stage = Stage(channels, width, 1 if index == 0 else 2, modules, depth, variant)
            self.stages.add_module(f"stage{index + 1}", stage)
            channels = width
        unit, width = unit_factory(variant.unit), variant.tail_width
        self.tail = nn.Sequential(
            unit(channels, width, variant.tail_stride), unit(width, width, 1), unit(width, width, 1)
        )
        self.norm = nn.BatchNorm2d(variant.tail_width)
        self.fc = nn.Linear(variant.tail_width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.tail(self.stages(self.stem(images)))
        x = F.relu(self.norm(x), inplace=self.inplace)
        return self.fc(x.mean(dim=(2, 3)))

    def attention_modules(self) -> dict[str, AttentionModule]:
        """The attention modules in forward order, named "stage1.0", "stage2.0", "stage2.1" ..."""
        return {
            f"{stage_name}.{index}": module
            for stage_name, stage in self.stages.named_children()
            for index, module in enumerate(stage.attention)
        }


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside `torch.compile` and DistributedDataParallel wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def memory_format(model: nn.Module) -> torch.memory_format:
    """How the weights of a network's convolutions lie in memory: images are to come in the same way."""
    is_last = any(weight.dim() == 4 and not weight.is_contiguous() for weight in model.parameters())
    return torch.channels_last if is_last else torch.contiguous_format


def uncompiled() -> AbstractContextManager:
    """Compiled networks run as written: code compiled before ignores new hooks, and later code would keep them."""
    # Without dynamo nothing has been compiled, and importing it for nothing takes seconds.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every submodule's own mode is put back afterwards, also on error."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


@functools.cache
def _count_parameters(variant: Variant, num_classes: int) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in ResidualAttentionNetwork(variant, num_classes).parameters())


def attention_network(model: nn.Module) -> ResidualAttentionNetwork:
    """The network inside its wrappers; ConfigError when it is of another kind."""
    network = unwrap(model)
    if not hasattr(network, "attention_modules"):
        raise ConfigError(
            f"model is a {type(network).__name__}: masks are those of networks from attnet.build_model "
            f"({type(network).__name__} has no attention_modules); of another network, name the modules whose outputs "
            "multiply features, as masks={'early': 'layer1.0.se.gate'}"
        )
    return network


def choose_modules(model: nn.Module, names: Sequence[str] | str | None = None) -> dict[str, AttentionModule]:
    """Attention modules by name, in forward order; None: all. ConfigError for a name that is not there."""
    modules = attention_network(model).attention_modules()
    names = [names] if isinstance(names, str) else names
    for name in names or ():
        if name not in modules:
            raise ConfigError(f"module={name!r}: this network has {', '.join(modules)}")
    return {name: module for name, module in modules.items() if names is None or name in names}


def standardising(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
    """Let a network take images in [0, 1] whose colours it is to see standardised: from now on it does that itself."""
    network.register_forward_pre_hook(functools.partial(_standardise, mean=mean, std=std))


def _standardise(
    _network: nn.Module, inputs: tuple[Tensor], *, mean: Sequence[float], std: Sequence[float]
) -> tuple[Tensor]:
    """A forward pre-hook, once `mean` and `std` are set; a closure could not be pickled with its network."""
    images = inputs[0]
    return ((images - images.new_tensor(mean).view(3, 1, 1)) / images.new_tensor(std).view(3, 1, 1),)


def _kept(module: nn.Module) -> OrderedDict:
    """The forward pre-hooks that a copy needs to compute the same."""
    hooks = module._forward_pre_hooks.items()
    return OrderedDict((key, hook) for key, hook in hooks if getattr(hook, "func", None) is _standardise)


def is_hooked(network: nn.Module) -> bool:
    """Whether there are forward hooks on it that a copy would not have."""
    return any(m._forward_hooks or len(m._forward_pre_hooks) > len(_kept(m)) for m in network.modules())


def copy_network(model: nn.Module, meta: bool) -> ResidualAttentionNetwork:
    """The network inside `model` without anybody's forward hooks but that of `standardising`; with `meta`, without
    numbers, in float32, and without that as well."""
    network = attention_network(model)
    memo: dict[int, object] = {}  # what deepcopy is to put in the place of an object
    for module in network.modules():
        memo[id(module._forward_hooks)] = OrderedDict()
        memo[id(module._forward_pre_hooks)] = OrderedDict() if meta else _kept(module)
    for tensor in (*network.parameters(), *network.buffers()) if meta else ():
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        empty = torch.empty_like(tensor, device="meta", dtype=dtype)
        memo[id(tensor)] = nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(network, memo)
