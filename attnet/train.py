"""`python -m attnet.train`: what torchrun starts on each card; for people it is `attnet train`."""

from __future__ import annotations

import sys

from attnet.engine.fit import main

if __name__ == "__main__":
    sys.exit(main())
