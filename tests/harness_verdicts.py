"""What the court says where the answer is known beforehand, on record: of masks that know nothing, and of ones that do.

    python tests/harness_verdicts.py --output data/results/verdict_controls.json

Not collected by pytest. As many test images of `shapes` as the verdicts of the shipped weights took; some minutes.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import date

from made_masks import colours, objects, tried, with_masks
from networks import narrow

from attnet.base.device import choose
from attnet.base.errors import in_sentences
from attnet.base.files.outputs import output_file, write_record
from attnet.base.host import environment
from attnet.data.shapes import make_shapes
from attnet.data.splits import Split
from attnet.masks.questions import Verdict
from attnet.masks.verdict import judge

IMAGES, FAITHFUL = 500, 150  # as many as for the weights that come along
UNTRAINED, KNOWING = "untrained", "the object's own mask"


def untrained(split: Split, faithful: int) -> Verdict:
    """Weights as they were drawn, and the images' own classes: nothing but no must come of it."""
    return judge(narrow((1, 0)).eval(), split, faithful=faithful, progress=_say)


def knowing(split: Split, faithful: int) -> Verdict:
    """The same network with M·T, where M is the object's own pixels
    and the class the colour of which they let most pass.

    The object, the need of masks and of their places, and which pixels matter must be yes. Not the first question,
    since where an object lies does not tell its colour; and hardly the last, since a fifth of the pixels, imputed from
    the rest of the object, keeps the colour.
    """
    return tried(with_masks(colours(200.0), split, objects(split)), split, faithful, progress=_say)


NETWORKS: dict[str, Callable[[Split, int], Verdict]] = {UNTRAINED: untrained, KNOWING: knowing}


def _say(line: str) -> None:
    print(f"  {line} ...", file=sys.stderr, flush=True)


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """Ask, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="JSON file to write")
    parser.add_argument("--images", type=int, default=IMAGES, help="test images of shapes")
    parser.add_argument("--faithful_images", type=int, default=FAITHFUL, help="of them for the last two questions")
    options = parser.parse_args(arguments)
    output = output_file(options.output, (".json",))
    split = make_shapes(10, options.images).test
    found = {}
    for name, ask in NETWORKS.items():
        verdict = ask(split, options.faithful_images)
        print(f"{name}\n{verdict.page()}\n", flush=True)
        found[name] = {"is": " ".join(ask.__doc__.split()), **verdict.to_json()}
    record = {
        "kind": "controls",
        "what": "the six questions about masks, asked of networks whose answers are known beforehand",
        "data": f"shapes, {options.images} test images",
        "networks": found,
        "environment": environment(choose("CPU")),
        "date": date.today().isoformat(),
    }
    write_record(output, record, "python tests/harness_verdicts.py --output data/results/verdict_controls.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
