"""`python -m attnet.benchmark`: see `attnet.benchmark.command`."""

import sys

from attnet.benchmark.command import main

if __name__ == "__main__":
    sys.exit(main())
