"""The command: `attnet doctor`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from attnet.base.errors import answer, in_sentences
from attnet.doctor import examine, report
from attnet.doctor.guide import ascend_guide


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; exit status 0 when attnet works here, 1 when torch or attnet cannot be used at all."""
    description = "What is on this machine, what attnet will do with it, and the mend for each problem."
    parser = argparse.ArgumentParser(prog="attnet doctor", description=description)
    parser.add_argument("--json", action="store_true", help="one JSON object, to be put into a bug report")
    parser.add_argument("--ascend", action="store_true", help="what it takes to work on Ascend NPUs, and nothing else")
    parser.add_argument("--data_path", default="", help="where CIFAR-10 is, as for attnet train")
    options = parser.parse_args(arguments)
    if options.ascend:
        answer(ascend_guide())
        return 0
    facts = examine(options.data_path)
    answer(json.dumps(facts, indent=2, allow_nan=False) if options.json else report(facts))
    return 0 if facts["usable"] else 1
