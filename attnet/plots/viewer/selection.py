"""What the browser asks for, read and checked: whatever a message may hold, there come values that exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from attnet.base.errors import ConfigError
from attnet.masks.frames import BEST
from attnet.masks.look import View

SMALLEST = 8  # pixels of a region's side

Region = tuple[int, int, int]  # left, top, side, in the picture's pixels


@dataclass(frozen=True)
class Selection:
    """An image, a state of a network and a view.

    `own`: `number` is of the user's pictures, else of the test images. `regions` of a picture of one's own, of which
    `active` is looked at. `network` and `epoch` are places among those there are; `id` is repeated in the answer.
    """

    view: View
    own: bool
    number: int
    epoch: int = 0
    network: int = 0
    regions: tuple[Region, ...] = field(default=())
    active: int = 0
    effects: bool = False
    id: int = 0


def read_selection(
    said: Mapping[str, object], tests: int, pictures: Sequence[tuple[int, int]], epochs: Sequence[int]
) -> Selection:
    """What a message says.

    Args:
        tests: how many test images there are.
        pictures: width and height of the user's.
        epochs: of each network, how many.

    Raises:
        ConfigError: something that is not there.
    """
    image = said.get("image") if isinstance(said.get("image"), Mapping) else {}
    own = image.get("set") == "own"
    number = _place("image", image.get("n"), len(pictures) if own else tests)
    network = _place("network", said.get("network", 0), len(epochs))
    epoch = _place("epoch", said.get("epoch", 0), max(epochs))
    channel, overlay = said.get("channel"), said.get("overlay", 0.8)
    view = View(
        module=str(said.get("module")),
        part=str(said.get("part")),
        reduction=f"channel:{channel}" if isinstance(channel, int) else str(said.get("reduction", BEST)),
        strength=min(1.0, max(0.0, float(overlay))) if isinstance(overlay, int | float) else 0.8,
        intervention=str(said.get("replaced", "none")),
        everywhere=bool(said.get("everywhere")),
    )
    regions = _regions(said.get("regions"), pictures[number]) if own else ()
    return Selection(
        view=view,
        own=own,
        number=number,
        epoch=min(epoch, epochs[network] - 1),
        network=network,
        regions=regions,
        active=_place("region", said.get("active") or 0, len(regions)) if own else 0,
        effects=bool(said.get("effects")),
        id=said["id"] if isinstance(said.get("id"), int) else 0,
    )


def _place(name: str, value: object, count: int) -> int:
    if not isinstance(value, int) or not 0 <= value < count:
        raise ConfigError(f"{name}={value!r}: a whole number from 0 to {count - 1} is needed")
    return value


def _regions(said: object, size: tuple[int, int]) -> tuple[Region, ...]:
    """Squares inside a picture; none given: its middle."""
    width, height = size
    found = []
    for each in said if isinstance(said, list) else ():
        if not isinstance(each, list) or len(each) != 3 or not all(isinstance(value, int | float) for value in each):
            raise ConfigError(f"region={each!r}: left, top and side, in pixels, are needed")
        left, top, side = (round(value) for value in each)
        side = min(max(SMALLEST, side), width, height)
        found.append((min(max(0, left), width - side), min(max(0, top), height - side), side))
    side = min(width, height)
    return tuple(found) or (((width - side) // 2, (height - side) // 2, side),)
