"""`python -m attnet.report`: see `attnet.report.command`."""

import sys

from attnet.report.command import main

if __name__ == "__main__":
    sys.exit(main())
