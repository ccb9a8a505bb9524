"""torchrun as `launch` starts it: asked to stop twice, it still lets its ranks save.

Slurm with cgroups signals every process of a job, so that torchrun hears of it from Slurm and from `launch`; and Slurm
asks again when the time is up. At the second signal torchrun would end at once, and its ranks with it. Of a warning
`launch` hears as well, and asks in its own way; torchrun would end at once.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from torch.distributed.run import main

from attnet.base.processes import JOBS

Handler = Callable[[int, object], object]


def heed_once(handler: Handler) -> Handler:
    """`handler` for the first signal of each kind; those after it change nothing."""
    heard = set()

    def heed(number: int, frame: object) -> None:
        if number not in heard:
            heard.add(number)
            handler(number, frame)

    return heed


def _install(number: int, handler: Handler | int | None) -> object:
    return _original(number, heed_once(handler) if callable(handler) and number == signal.SIGTERM else handler)


if __name__ == "__main__":
    for warning in JOBS:
        signal.signal(warning, signal.SIG_IGN)  # by its ranks as well
    _original, signal.signal = signal.signal, _install
    main()
