"""Masks of other networks: squeeze-and-excitation, CBAM, attention gates, any module whose output multiplies features.

`Foreign` says which modules of a classifier give its masks. Then all that looks at masks here takes it as one of ours.

Sources: Hu et al., "Squeeze-and-excitation networks", CVPR 2018; Woo et al., "CBAM: convolutional block attention
module", ECCV 2018. Masks are [N, C, H, W], [N, C, 1, 1] (a number a channel) or [N, 1, H, W] (a number a place).
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.model.network import attention_network, evaluating, uncompiled

ITSELF = "itself"  # the part that holds the weights of no child
NEAR = 3  # paths offered for one that is not there


@dataclass(frozen=True)
class ForeignMask:
    """One mask of a `Foreign`, in the place of an attention module: `mask` is the module that returns it.

    `shape` is (C, H, W), of one image of the size that the network was looked at with.
    """

    mask: nn.Module
    shape: tuple[int, int, int]

    @property
    def channels(self) -> int:
        """1 where the mask has no channels."""
        return self.shape[0]

    @property
    def has_places(self) -> bool:
        """False for a number a channel."""
        return self.shape[1] * self.shape[2] > 1


class Foreign(nn.Module):
    """Any classifier with the modules named whose outputs are its masks.

        seen = Foreign(timm.create_model("seresnet50"), {"early": "layer1.0.se.gate", "late": "layer4.2.se.gate"}, 224)

    A mask is what the named module *returns*, where that is what multiplies features. Many modules return the product
    instead: in timm's `SEModule` and CBAM the sigmoid within is the mask, as "layer1.0.se.gate",
    "layer1.0.se.channel.gate", "layer1.0.se.spatial.gate". That a product is named, which is as large as the features
    are, cannot be seen from here.

    The network is not copied. Its masks have the part "mask" alone: what is before and after them is known of our own
    attention modules only. Grad-CAM is of the last features.

    Args:
        network: images [N, 3, H, W] to logits [N, K]; compiled or parallel is fine.
        masks: a name of your own -> the path of a module, as `network.named_modules()` has it, that is called once in
            a pass and returns [N, C, H, W], [N, C, 1, 1] or [N, 1, H, W].
        size: of the images, (height, width), or one number for both. Two grey ones are sent through at once, to see
            which shapes there are; others may follow in other sizes.
        classes: class names; those that are missing are called "class 0", "class 1" ...
        prepare: what is done to images (float, [0, 1]) before the network takes them, as `lambda x: (x - m) / s`.
        features: the path of the module whose output Grad-CAM looks at; None: the last one in a pass that returns
            [N, C, H, W] with more than one place.
        fresh: makes the network with new random weights, for "untrained" controls. None: a copy gets them from its
            modules' `reset_parameters`, which begin as torch's layers do, whatever the network's own scheme is.

    Raises:
        ConfigError: no such path, a module that is never or often called, a mask or logits of another shape, images
            that the network does not take.
    """

    def __init__(
        self,
        network: nn.Module,
        masks: Mapping[str, str],
        size: int | Sequence[int],
        *,
        classes: Sequence[str] | None = None,
        prepare: Callable[[Tensor], Tensor] | None = None,
        features: str | None = None,
        fresh: Callable[[], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.prepare, self.fresh = _without_wrappers(network), prepare, fresh
        self.image_size = (size, size) if isinstance(size, int) else tuple(size)
        self.paths, self.features = dict(masks), features
        known = dict(self.network.named_modules(remove_duplicate=False))
        for name, path in self.paths.items():
            _check_path(f"masks[{name!r}]", path, known)
        if features is not None:
            _check_path("features", features, known)
        if {"all", "none"} & self.paths.keys():
            raise ConfigError("masks: 'all' and 'none' are no names for one mask, since tables use them; choose others")
        if len({id(known[path]) for path in self.paths.values()}) < len(self.paths):
            raise ConfigError(f"masks={self.paths}: two names are of one module; leave one of them out")
        self._look(known)
        names = tuple(classes or ())[: self.num_classes]
        self.classes = (*names, *(f"class {k}" for k in range(len(names), self.num_classes)))

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images if self.prepare is None else self.prepare(images))
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            found = f"shape {list(logits.shape)}" if isinstance(logits, Tensor) else f"type {type(logits).__name__}"
            raise ConfigError(
                f"{type(self.network).__name__} returned a value of {found}: logits [N, K] of a classifier are needed; "
                "wrap it in a module that returns these alone"
            )
        return logits

    def attention_modules(self) -> dict[str, ForeignMask]:
        """The masks by their names, in forward order."""
        return {
            name: ForeignMask(self.network.get_submodule(self.paths[name]), self.shapes[name]) for name in self.shapes
        }

    # -- what the explorer asks of a trained network -----------------------------------------------------------------

    @property
    def model(self) -> Foreign:
        """Itself, where weights that were opened have their network."""
        return self

    @property
    def size(self) -> int:
        """The side that pictures are brought to, in pixels."""
        return min(self.image_size)

    @property
    def variant(self) -> object:
        """ConfigError: what asks for it is about our own networks."""
        raise ConfigError(
            f"this is about networks from attnet.build_model, and model is a {type(self.network).__name__} whose masks "
            "alone are known: capture, effects, judge, attention_maps and the explorer take it"
        )

    # -- weights drawn anew ------------------------------------------------------------------------------------------

    def parts(self) -> list[str]:
        """The network's children that hold weights, as they were made, which is from the stem to the head; first
        "itself", where the network has weights that are no child's."""
        return list(dict.fromkeys(_part(key) for key, _ in self.network.named_parameters()))

    def draw_anew(self, parts: Sequence[str], seed: int) -> None:
        """Fresh weights for these parts, from `seed`: those of `fresh`, or of `reset_parameters` module by module.

        Raises:
            ConfigError: a module with weights that cannot reset them, where there is no `fresh`.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            # On the CPU: another device would draw other numbers, from a generator that is not ours to move.
            new = copy.deepcopy(self.network).cpu() if self.fresh is None else _without_wrappers(self.fresh())
            if self.fresh is None:
                _reset(new, parts)
        state = {key: value for key, value in new.state_dict().items() if _part(key) in parts}
        if wrong := {key for key in self.network.state_dict() if _part(key) in parts} ^ state.keys():
            raise ConfigError(
                f"fresh: makes another network, as {min(wrong)!r} shows; let it make one of the same kind"
            )
        self.network.load_state_dict(state, strict=False)

    def _look(self, known: Mapping[str, nn.Module]) -> None:
        """One pass, to see which masks come when and how large, how many classes there are, and the last features."""
        shapes: dict[str, list[object]] = {}
        last: list[str] = []

        def seen(path: str) -> Callable[[nn.Module, object, object], None]:
            def hook(_module: nn.Module, _inputs: object, output: object) -> None:
                shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                shapes.setdefault(path, []).append(shape)
                if _is_map(shape) and shape[2] * shape[3] > 1:
                    last[:] = [path]

            return hook

        weight = next(self.network.parameters(), torch.empty(0))
        images = torch.full((2, 3, *self.image_size), 0.5, device=weight.device, dtype=weight.dtype)
        handles = [module.register_forward_hook(seen(path)) for path, module in known.items() if path]
        try:
            with evaluating(self), uncompiled():
                self.num_classes = self(images).shape[1]
        except ConfigError:
            raise
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:  # what modules raise at a wrong size
            raise ConfigError(
                f"{type(self.network).__name__} does not take images of shape {list(images.shape)} ({error}); give the "
                "size that it was made for"
            ) from error
        finally:
            for handle in handles:
                handle.remove()
        for name, path in self.paths.items():
            _check_mask(f"masks[{name!r}]={path!r}", shapes.get(path, []), tuple(images.shape))
        names = {path: name for name, path in self.paths.items()}
        self.shapes = {names[path]: found[0][1:] for path, found in shapes.items() if path in names}
        if self.features is not None and not any(_is_map(shape) for shape in shapes.get(self.features, [])):
            raise ConfigError(
                f"features={self.features!r}: returned {_said(shapes.get(self.features))}, not [N, C, H, W]"
            )
        self.features = self.features or next(iter(last), None)


def with_masks(model: nn.Module, images: Tensor, masks: Mapping[str, str] | None) -> nn.Module:
    """The network that has masks: `model` itself, or with `masks` a `Foreign` around it, for images of this size."""
    if masks is None:
        return attention_network(model)
    if isinstance(model, Foreign):
        raise ConfigError("masks: this Foreign has masks of its own; give them there")
    if not masks:
        raise ConfigError("masks={}: name at least one module, as masks={'early': 'layer1.0.se.gate'}")
    return Foreign(model, masks, tuple(images.shape[-2:]))


def has_places(module: object) -> bool:
    """Whether a module's mask can say where: not with one number a channel."""
    return getattr(module, "has_places", True)


def without_places(names: Sequence[str]) -> str:
    """Why something does not apply to the masks of these modules."""
    more = f" and {len(names) - NEAR} others" if len(names) > NEAR else ""
    return f"the masks of {', '.join(names[:NEAR])}{more} have no places, only a number a channel"


def _without_wrappers(network: nn.Module) -> nn.Module:
    """The network inside torch.compile and data parallelism. Other wrappers may do something to images: they stay."""
    while True:
        if isinstance(inner := getattr(network, "_orig_mod", None), nn.Module):
            network = inner
        elif isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
            network = network.module
        else:
            return network


def _part(key: str) -> str:
    """Which part a weight belongs to, by its name in the network."""
    head, _, rest = key.partition(".")
    return head if rest else ITSELF


def _reset(network: nn.Module, parts: Sequence[str]) -> None:
    # Backwards, children before those that hold them: these may have another beginning for their children.
    for path, module in reversed(list(network.named_modules())):
        if _part(f"{path}.weight" if path else "weight") not in parts:
            continue
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if reset is not None:
            reset()
        elif any(True for _ in module.parameters(recurse=False)):
            raise ConfigError(
                f"{path or 'the network'}: a {type(module).__name__} has weights and no reset_parameters, so that no "
                "untrained network can be made of this one; give Foreign(..., fresh=...) a function that makes one"
            )


def _check_path(what: str, path: str, known: Mapping[str, nn.Module]) -> None:
    if path in known and path:
        return
    names = [name for name in known if name]
    near = difflib.get_close_matches(path, names, n=NEAR, cutoff=0.5)
    hint = f"near are {', '.join(near)}" if near else "`named_modules()` of the network lists them"
    raise ConfigError(f"{what}={path!r}: the network has no such module; {hint}")


def _check_mask(what: str, shapes: Sequence[object], images: tuple[int, ...]) -> None:
    if len(shapes) != 1:
        often = f"called {len(shapes)} times in a pass" if shapes else "not called in a pass"
        raise ConfigError(f"{what}: the module is {often}; name one that is called once, as a layer of its own")
    shape = shapes[0]
    if not _is_map(shape) or shape[0] != images[0] or 0 in shape:
        raise ConfigError(
            f"{what}: returned {_said(shapes)} for images {list(images)}; a mask is [N, C, H, W], [N, C, 1, 1] or "
            "[N, 1, H, W]. Name the module whose output multiplies the features (in an SE module: its gate); where it "
            "returns [N, C], put nn.Unflatten(1, (C, 1, 1)) behind it and name that"
        )


def _is_map(shape: object) -> bool:
    return not isinstance(shape, str) and len(shape) == 4


def _said(shapes: Sequence[object] | None) -> str:
    if not shapes:
        return "nothing"
    return f"a {shapes[0]}" if isinstance(shapes[0], str) else f"{list(shapes[0])}"
