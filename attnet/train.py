"""`python -m attnet.train --data_path … --total_epochs 1 …`: every parameter of `TrainConfig` is a flag.

With `--device_num` above 1 it starts itself through torchrun, a process a card; under torchrun it is one of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from attnet.command import in_sentences
from attnet.distributed import World, is_watched, redirect_output
from attnet.engine import fit
from attnet.flags import parse_arguments
from attnet.launcher import launch
from attnet.report import result_table


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """Train, print the result row; exit status 0, 2 for a mistake in the parameters or data, 128 + signal."""
    redirect_output()
    world = World.from_environment()
    config = parse_arguments(arguments)
    result = launch(config) if config.device_num > 1 and world.size == 1 else fit(config)
    if world.is_main and not is_watched():  # else `attnet.launch` shows the result
        print(result_table([result]))
        print(f"run folder: {result.output_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
