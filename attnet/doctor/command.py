"""The command: `attnet doctor`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from attnet.doctor import examine, report


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; exit status 0 when attnet works here, 1 when torch or attnet cannot be used at all."""
    description = "What is on this machine, what attnet will do with it, and the mend for each problem."
    parser = argparse.ArgumentParser(prog="attnet doctor", description=description)
    parser.add_argument("--json", action="store_true", help="one JSON object, to be put into a bug report")
    parser.add_argument("--data_path", default="", help="where CIFAR-10 is, as for attnet.train")
    options = parser.parse_args(arguments)
    facts = examine(options.data_path)
    text = json.dumps(facts, indent=2, allow_nan=False) if options.json else report(facts)
    encoding = sys.stdout.encoding or "utf-8"  # a terminal that knows ASCII alone is no reason to fail
    print(text.encode(encoding, "replace").decode(encoding))
    return 0 if facts["usable"] else 1
