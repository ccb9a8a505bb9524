"""`python -m attnet.pack RUN_FOLDER FILE`: a finished run's weights as one small file, as the package ships them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from attnet import checkpoint
from attnet.command import in_sentences
from attnet.errors import WeightsError
from attnet.paths import relative_to_root, resolve_path
from attnet.pretrained import load_pretrained
from attnet.result import Result
from attnet.weights import read_checkpoint


def pack(run: str | Path, file: str | Path) -> Path:
    """Write a finished run's best weights in half precision, with their record, to one file; its path.

    Integers and the running statistics of batch norms keep their types: a variance may exceed what half precision
    holds. Raises WeightsError for weights that it cannot hold, AttnetError for a folder without a finished run.
    """
    result = Result.load(resolve_path(run))
    content = dict(read_checkpoint(result.weights))
    for name, value in content["model"].items():
        if value.is_floating_point() and "running" not in name:
            content["model"][name] = half = value.half()
            if not half.isfinite().all():
                raise WeightsError(f"{result.weights}: {name} exceeds what half precision holds")
    content.setdefault("classes", list(result.per_class))
    content["result"] = {k: v for k, v in result.to_json().items() if k not in ("confusion", "environment")}
    file = resolve_path(file)
    checkpoint.save(content, file)
    return file


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, 2 after a sentence when it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m attnet.pack", description=pack.__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("file", help="the file to write, e.g. runs/weights.pt")
    words = parser.parse_args(arguments)
    file = pack(words.run, words.file)
    print(f"{relative_to_root(file)}: {file.stat().st_size / 1e6:.2f} MB, {load_pretrained(file).describe()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
