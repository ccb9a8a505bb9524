"""`python -m attnet.sweep`."""

import sys

from attnet.sweep.command import main

sys.exit(main())
