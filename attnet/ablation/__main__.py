"""`python -m attnet.ablation`: see `attnet.ablation.command`."""

import sys

from attnet.ablation.command import main

if __name__ == "__main__":
    sys.exit(main())
