"""What every data set comes in: `Split`, images with their labels, and `Dataset`, two of them; and parts of both."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnet.base.errors import DataError, brief
from attnet.base.words import names_of


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels; a part of a split keeps everything that is known of its images.

    `masks` (the object's pixels) exist only where the set was drawn by us or every picture has its own beside it,
    `true_labels` only where label noise has replaced some of `labels`. `places` says where in the whole split each
    image stands; None: 0, 1, 2 …
    """

    images: Tensor  # uint8 [N, 3, S, S]; S is 32 but for image folders
    labels: Tensor  # int64 [N]
    masks: Tensor | None = None  # bool [N, S, S]
    true_labels: Tensor | None = None  # int64 [N]
    places: Tensor | None = None  # int64 [N]

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, chosen: Tensor) -> Split:
        """The images at `chosen`, int64 [n], in that order."""
        places = torch.arange(len(self)) if self.places is None else self.places
        parts = {spec.name: getattr(self, spec.name) for spec in dataclasses.fields(self)} | {"places": places}
        return Split(**{name: None if part is None else part[chosen] for name, part in parts.items()})

    def subset(self, n: int, seed: int = 0) -> Split:
        """The images that `evenly` chooses."""
        return self.rows(self.evenly(n, seed))

    def evenly(self, n: int, seed: int = 0) -> Tensor:
        """Positions in this split of `n` images, as even over the classes as the labels allow: int64 [n], rising.

        `n` and `seed` alone decide which; with one seed, fewer are part of more.
        Raises DataError unless 1 <= n <= len(self).
        """
        if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= len(self):
            raise DataError(f"n: {n!r}; give a whole number from 1 to {len(self)}, the images of this split")
        shuffled = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        labels, by_class = self.labels.cpu()[shuffled].sort(stable=True)
        counts = labels.bincount()
        # The how-manieth of its class is each image? The first of every class go in, then the second, …
        nth = torch.arange(len(self)) - (counts.cumsum(0) - counts)[labels]
        turn = torch.empty_like(nth).scatter_(0, by_class, nth)
        return shuffled[turn.argsort(stable=True)[:n]].sort().values


@dataclass(frozen=True, eq=False)
class Dataset:
    """Both splits of one set, its class names in label order, and where it came from."""

    train: Split
    test: Split
    classes: tuple[str, ...]
    name: str
    source: str  # for people: the path read
    warnings: tuple[str, ...] = ()  # what is odd, though not wrong

    def of_classes(self, wanted: str | Sequence[str]) -> Dataset:
        """The images of some classes alone, whose labels become 0, 1, 2 … in the order given.

        Args:
            wanted: names or numbers of classes: "cat,dog" or "3,5", a list, or its text as `names_of` takes it.

        Raises:
            DataError: an unknown class (with the nearest name), one given twice, fewer than two, or labels that were
                replaced already: noise is drawn last, among the classes that are left.
        """
        if self.train.true_labels is not None:
            raise DataError(f"classes={wanted!r}: choose classes before label noise is drawn")
        numbers = [self._class_number(word, wanted) for word in names_of(wanted, "classes")]
        if twice := [self.classes[k] for k in numbers if numbers.count(k) > 1]:
            raise DataError(f"classes={wanted!r}: {twice[0]!r} is there twice; give each class once")
        if len(numbers) < 2:
            raise DataError(f"classes={wanted!r}: one class alone leaves nothing to tell apart; give two or more")
        kept = {"train": _of_classes(self.train, numbers), "test": _of_classes(self.test, numbers)}
        return dataclasses.replace(self, **kept, classes=tuple(self.classes[k] for k in numbers))

    def _class_number(self, word: str, wanted: str | Sequence[str]) -> int:
        if word in self.classes:
            return self.classes.index(word)
        if word.isdecimal() and len(word) < 10 and int(word) < len(self.classes):
            return int(word)
        near = difflib.get_close_matches(word.lower(), self.classes, n=1)
        shown = ", ".join(self.classes[:10]) + (" …" if len(self.classes) > 10 else "")
        hint = f"did you mean {near[0]!r}?" if near else f"known are 0 to {len(self.classes) - 1}: {shown}"
        raise DataError(f"classes={brief(repr(wanted), 160)}: {word[:80]!r} is no class of {self.name}; {hint}")


def _of_classes(split: Split, numbers: Sequence[int]) -> Split:
    """The images labelled with one of `numbers`, labelled with its position there."""
    found, position = (split.labels[:, None] == torch.tensor(numbers)).max(dim=1)
    chosen = found.nonzero().squeeze(1)
    return dataclasses.replace(split.rows(chosen), labels=position[chosen])
