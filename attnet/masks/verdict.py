"""The court: a network's masks against the strongest control, question by question.

A number alone says little: edges find objects too, an untrained network has masks too, and taking anything away does
harm. So each claim stands beside what says the same without the masks, or without what was learned, on the same
images; the answer is that of the paired difference.

Sources: Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018; Rong et al., "A consistent and efficient
evaluation strategy for attribution methods", ICML 2022; Liu et al., "Rethinking attention-model explainability through
faithfulness violation test", ICML 2022.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.base.intervals import confidence_interval
from attnet.data.splits import Split
from attnet.masks.capture import capture
from attnet.masks.controls import SEEDS, image_controls, random_maps, untrained
from attnet.masks.faithfulness import Removal
from attnet.masks.foreign import Foreign, has_places, with_masks, without_places
from attnet.masks.localise import localise
from attnet.masks.questions import CANNOT_TELL, DOES_NOT_APPLY, NO, QUESTIONS, Answer, Verdict, decide
from attnet.masks.reduce import applicable, find_reduction, upsample
from attnet.masks.replace import Replacing, applies
from attnet.masks.saliency import grad_cam
from attnet.model.folding import folded
from attnet.model.network import is_hooked

REDUCTIONS = ("mean", "max", "std")  # what is asked of masks as maps; each upright and turned round
STEPS = 6  # points of a ROAD curve: a fifth of the pixels each
OF_PLACES = ("object", "places", "pixels", "polarity")  # questions that masks without places cannot be asked
CHOOSING = 60  # images on which the map that does best is chosen, where each map costs many passes


def judge(
    model: nn.Module,
    split: Split,
    *,
    faithful: int = 150,
    batch_size: int = 100,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    masks: Mapping[str, str] | None = None,
) -> Verdict:
    """Hold the masks of a network against their controls.

    Which of its maps (a module, a reduction, upright or turned round) does best is chosen on some of the images and
    measured on the others, so that choosing among many earns nothing. For ROAD, where a choice costs many passes, the
    untrained networks give the map that was chosen for the network. The strongest control is that of the best mean on
    the images measured, which is an advantage for the controls.

    Masks [N, C, 1, 1], a number a channel, are asked the first and the third question; where no mask has places, the
    others do not apply. Untrained networks of a `Foreign` are made as it says.

    Args:
        model: a network from `build_model` with masks, or a `Foreign`; DDP- or compile-wrapped is fine. Images of
            another size than it was made for are fine too.
        split: images with labels, four or more; without its objects' pixels the second question cannot be told. All of
            it is used: take `split.subset(500)` of a large one.
        faithful: images for the last two questions, which cost well over a hundred passes an image.
        seed: of the untrained networks, of shuffles and of choices.
        progress: called with a line before each part of the work.
        masks: as `capture_masks`, of another network that takes images in [0, 1].

    Raises:
        ConfigError: a network without masks, or fewer than four images; with `masks` as `Foreign`.
    """
    network = with_masks(model, split.images, masks)
    if not any(module.mask is not None for module in network.attention_modules().values()):
        raise ConfigError("model has no masks to judge: its network was built with attention='none'")
    if len(split) < 4:
        raise ConfigError(
            f"{len(split)} images: at least four are needed, two to choose a map on and two to measure it"
        )
    say = progress or (lambda line: None)
    here = split.rows(torch.randperm(len(split), generator=torch.Generator().manual_seed(seed)))
    say("masks of the network and of untrained ones")
    seen = [_Seen(network, here.images, batch_size)]
    for number in range(SEEDS):
        seen.append(_Seen(untrained(network, here.images, seed + number), here.images, batch_size))
    answers = {"learned": _learned(seen, here)}
    say("replaced masks")
    replaced, is_at_chance = _replaced(network, here, seen[0], batch_size, seed)
    answers |= replaced
    modules = network.attention_modules()
    if any(has_places(module) for module in modules.values()):
        say("the object")
        answers["object"] = _object(network, here, seen, batch_size, seed)
        faithful = min(faithful, len(here) // 2)
        chosen_on = min(CHOOSING, faithful, len(here) - faithful)
        say(f"ROAD on {faithful} images")
        answers |= _faithful(network, here, seen, faithful, chosen_on, batch_size, seed, say)
    else:
        faithful, reason = 0, without_places(list(modules))
        answers |= {key: Answer(key, DOES_NOT_APPLY, reason=reason) for key in OF_PLACES}
    if is_at_chance:  # whatever the numbers do then, they do by chance
        reason = "the network's predictions are no better than chance: nothing was learned, and nothing can matter"
        for key in (key for key in QUESTIONS if key != "object" and answers[key].verdict != DOES_NOT_APPLY):
            answers[key] = dataclasses.replace(answers[key], verdict=NO, reason=reason)
    return Verdict({key: answers[key] for key in QUESTIONS}, len(here), faithful)


# -- what is seen of a network; maps by (module, reduction, whether turned round) --------------------------------------

Key = tuple[str, str, bool]


class _Seen:
    """What one pass of all images through a network leaves: nothing is asked of it twice.

    `logits` float32 [N, K]. `means` and `deviations`, module -> [N, C]: of every channel of its mask over positions.
    Maps are kept as small as the features are, and enlarged when they are asked for. All on the CPU.
    """

    def __init__(self, network: nn.Module, images: Tensor, batch_size: int) -> None:
        modules = network.attention_modules()
        placed = any(has_places(module) for module in modules.values())
        wanted = applicable(network, None, REDUCTIONS) if placed else {}
        logits: list[Tensor] = []
        means: dict[str, list[Tensor]] = {}
        deviations: dict[str, list[Tensor]] = {}
        small: dict[tuple[str, str], list[Tensor]] = {
            (name, kind): [] for kind in REDUCTIONS for name in wanted if kind in wanted[name]
        }
        for batch in images.split(batch_size):
            found = capture(network, batch)
            logits.append(found.logits.float().cpu())
            masks = {name: parts["mask"] for name, parts in found.features.items() if parts}
            for name, mask in masks.items():
                for into, moment in zip((means, deviations), _moments(mask), strict=True):
                    into.setdefault(name, []).append(moment.float().cpu())
            for (name, kind), pieces in small.items():
                pieces.append(find_reduction(kind).reduce(masks[name]).float().cpu())
        self.logits = torch.cat(logits)
        self.means, self.deviations = (
            {name: torch.cat(pieces) for name, pieces in moments.items()} for moments in (means, deviations)
        )
        self._small, self._size = {key: torch.cat(pieces) for key, pieces in small.items()}, images.shape[-2:]

    @property
    def gains(self) -> Tensor:
        """All means and deviations, [N, features]."""
        return torch.cat([moment[name] for name in self.means for moment in (self.means, self.deviations)], dim=1)

    def upright(self) -> list[Key]:
        return [(*key, False) for key in self._small]

    def map(self, key: Key, where: slice = slice(None)) -> Tensor:
        """Float32 [n, H, W], as large as the images."""
        module, reduction, turned = key
        maps = upsample(self._small[module, reduction][where], self._size)
        return -maps if turned else maps


def _named(key: Key) -> str:
    module, reduction, turned = key
    return f"{'low ' if turned else ''}{reduction} of {module}"


# -- the questions -----------------------------------------------------------------------------------------------------


def _answer(
    question: str, claim: tuple[str, Tensor], controls: Mapping[str, Tensor], beside: Mapping[str, Tensor] | None = None
) -> Answer:
    """Values an image, [N], of the claim and of every control on the same images, to an answer."""
    strongest = max(controls, key=lambda name: controls[name].double().mean().item())
    difference = confidence_interval(claim[1].double() - controls[strongest].double())
    intervals = {name: confidence_interval(values) for name, values in controls.items()}
    return Answer(
        question,
        decide(difference, QUESTIONS[question].least),
        (claim[0], confidence_interval(claim[1])),
        (strongest, intervals[strongest]),
        difference,
        intervals,
        {name: confidence_interval(values) for name, values in (beside or {}).items()},
    )


def _learned(seen: Sequence[_Seen], split: Split) -> Answer:
    """Whether the masks tell the classes that were learned, beside those of untrained networks and bare colours."""
    half, labels = len(split) // 2, split.labels.cpu()

    def read(features: Tensor) -> Tensor:
        return 100 * (probe(features[:half], labels[:half], features[half:]) == labels[half:]).double()

    mine, *others = (read(one.gains) for one in seen)
    controls = {f"untrained network {number}": values for number, values in enumerate(others, 1)}
    controls["colours"] = read(torch.cat(_moments(split.images.float().cpu()), dim=1))
    return _answer("learned", ("the masks", mine), controls)


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """[N, C, H, W] to [N, C] twice."""
    return features.mean(dim=(2, 3)), features.flatten(2).std(dim=2, correction=0)


def probe(seen: Tensor, labels: Tensor, new: Tensor) -> Tensor:
    """The classes of `new`, int64 [m], by ridge regression on `seen` [n, F] and their classes; λ is 1 a feature.

    Features are standardised by those seen; such without spread are left out by that.
    """
    mean, spread = seen.double().mean(dim=0), seen.double().std(dim=0, correction=0).clamp(min=1e-6)
    seen, new = ((values.double() - mean) / spread for values in (seen, new))
    kernel = seen @ seen.T / seen.shape[1]
    targets = F.one_hot(labels).double()
    weights = torch.linalg.solve(kernel + torch.eye(len(seen), dtype=torch.float64), targets - targets.mean(dim=0))
    return (new @ seen.T / seen.shape[1] @ weights + targets.mean(dim=0)).argmax(dim=1)


def _object(network: nn.Module, split: Split, seen: Sequence[_Seen], batch_size: int, seed: int) -> Answer:
    if split.masks is None:
        return Answer("object", CANNOT_TELL, reason="the objects' pixels of these images are not known")
    half = len(split) // 2
    objects = split.masks

    def chosen(candidates: _Seen) -> tuple[Key, Tensor]:
        """The map farthest from chance on the first half; turned round it wins where it lost."""
        scores = {key: localise(candidates.map(key), objects).auroc for key in candidates.upright()}
        mean = {key: scores[key][:half].mean().item() for key in scores}
        best = max(mean, key=lambda key: abs(mean[key] - 0.5))
        turned, found = mean[best] < 0.5, scores[best][half:]
        return (*best[:2], turned), 1 - found if turned else found

    (best, mine), *others = (chosen(candidates) for candidates in seen)
    images = split.images[half:]
    controls = image_controls(images) | {"random": random_maps(len(images), tuple(images.shape[-2:]), seed)}
    scores = {name: localise(values, objects[half:]).auroc for name, values in controls.items()}
    scores["untrained networks"] = torch.stack([values for _, values in others]).mean(dim=0)
    cam = localise(grad_cam(network, images, batch_size=batch_size), objects[half:]).auroc
    return _answer("object", (_named(best), mine), scores, {"Grad-CAM": cam})


def _replaced(
    network: nn.Module, split: Split, seen: _Seen, batch_size: int, seed: int
) -> tuple[dict[str, Answer], bool]:
    """Whether masks are needed, and whether their places are: with all modules' masks replaced at once.

    And whether the network, as it is, does no better than who always names the class that is most frequent.
    """
    modules = {name: module for name, module in network.attention_modules().items() if module.mask is not None}
    replacing = Replacing(network, split.images, batch_size=batch_size, seed=seed, means=seen.means)

    def right(logits: Tensor) -> Tensor:
        return 100 * (logits.argmax(dim=1) == split.labels.cpu()).double()

    untouched, found = right(seen.logits), {}
    words = {
        **{"zero": "masks 0", "one": "masks 1", "constant": "a constant a channel"},
        **{"mean": "mean over positions", "shuffled": "positions shuffled", "resampled": "another image's mask"},
    }
    for kind in words:
        found[kind] = right(replacing.logits({name: kind for name in modules if applies(kind, modules[name])}))
    blind = {words[kind]: found[kind] for kind in ("zero", "one", "constant")}
    placeless = {words[kind]: found[kind] for kind in ("mean", "shuffled")}
    claim = ("untouched", untouched)
    answers = {
        "needed": _answer("needed", claim, blind),
        "places": _answer("places", claim, placeless, {words["resampled"]: found["resampled"]}),
    }
    often = 100 * split.labels.bincount().max().item() / len(split)
    return answers, confidence_interval(untouched).low <= often


def _quick(network: nn.Module) -> nn.Module:
    """What computes the same sooner, without some batch norms, where it is one of ours with nothing hung on it."""
    if isinstance(network, Foreign) or is_hooked(network):
        return network
    return folded(network, next(network.parameters()).dtype)


def _faithful(
    network: nn.Module,
    split: Split,
    seen: Sequence[_Seen],
    count: int,
    chosen_on: int,
    batch_size: int,
    seed: int,
    say: Callable[[str], None],
) -> dict[str, Answer]:
    options = {"steps": STEPS, "baseline": "linear", "batch_size": batch_size, "seed": seed}
    images, here, choosing = split.images[:count], slice(count), slice(count, count + chosen_on)
    quick = _quick(network)
    removal, trial = (Removal(quick, part, **options) for part in (images, split.images[choosing]))

    def road(maps: Tensor) -> tuple[Tensor, Tensor]:
        curves = removal.curves(maps)
        return curves.contrast, curves.right_way

    contrast = {key: trial.curves(seen[0].map(key, choosing)).contrast.mean().item() for key in seen[0].upright()}
    best = max(contrast, key=lambda key: abs(contrast[key]))
    best = (*best[:2], contrast[best] < 0)  # turned round it has the other order, and the contrast the other sign
    say(f"ROAD: {len(seen) - 1} untrained networks")
    strangers = [road(one.map(best, here)) for one in seen[1:]]
    methods = image_controls(images) | {"random": random_maps(count, tuple(images.shape[-2:]), seed)}
    scores = {}
    for number, (name, values) in enumerate(methods.items(), 1):
        say(f"ROAD: control {number} of {len(methods)}, {name}")
        scores[name] = road(values)
    mine = road(seen[0].map(best, here))
    cam = road(grad_cam(network, images, batch_size=batch_size))
    answers = {}
    for place, question in enumerate(("pixels", "polarity")):
        controls = {name: values[place] for name, values in scores.items()}
        controls["untrained networks"] = torch.stack([values[place] for values in strangers]).mean(dim=0)
        answers[question] = _answer(question, (_named(best), mine[place]), controls, {"Grad-CAM": cam[place]})
    return answers
