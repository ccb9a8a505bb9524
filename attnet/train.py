"""`attnet train`, and what torchrun starts on each card as `python -m attnet.train`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attnet.engine.fit import main as _main
from attnet.engine.plan import Plan

if TYPE_CHECKING:
    from attnet.plots import LoggedPictures


def main(arguments: Sequence[str] | None = None) -> int:
    """See `attnet.engine.fit.main`."""
    return _main(arguments, pictures=_pictures)


def _pictures(plan: Plan) -> LoggedPictures:
    from attnet.plots import LoggedPictures  # here, since a training does without matplotlib

    return LoggedPictures(plan)


if __name__ == "__main__":
    sys.exit(main())
