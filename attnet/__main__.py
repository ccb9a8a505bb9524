"""`attnet COMMAND …`, the same as `python -m attnet COMMAND …`: the table of commands."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from attnet.base.errors import ConfigError, answer, in_sentences, nearest, say

# command -> the module whose `main(arguments)` does it, loaded when it is asked for, and a line of help.
COMMANDS = {
    "train": ("attnet.train", "train a network, or evaluate weights, on one card or many"),
    "submit": ("attnet.engine.launching.batch", "the same as a Slurm job: the batch script, shown and submitted"),
    "watch": ("attnet.watch_command", "a run or a sweep from anywhere: curve, time left, ranks, log; stop it cleanly"),
    "report": ("attnet.report", "runs, records and published figures as one table; a run as a record"),
    "verify": ("attnet.study.verify", "does a result hold: its hashes, its weights, its training steps again"),
    "sweep": ("attnet.study.sweeps.command", "many trainings as one job that can be stopped and started again"),
    "ablation": (
        "attnet.study.ask_command",
        "the paper's questions, the recipes' ingredients, fine-tuning: as studies",
    ),
    "masks": ("attnet.masks_command", "six questions about a network's masks, each against its strongest control"),
    "explore": ("attnet.explore_command", "look into a network by hand: JupyterLab opens with its masks"),
    "benchmark": ("attnet.benchmark.command", "how fast training is here, and what bounds it"),
    "doctor": ("attnet.doctor.command", "what is on this machine, and the mend for each problem"),
    "export": ("attnet.model.export", "weights as ONNX, as safetensors, or small, in half precision"),
    "download": ("attnet.data.download", "fetch CIFAR-10 or CIFAR-100"),
    "folders": ("attnet.data.folder", "check an image folder of your own, or write an example"),
    "notebooks": ("attnet.base.notebooks", "copy the notebooks to a folder"),
}


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit status, or 2 for one that does not exist."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        answer(_help())
        return 0
    if words[0] == "--version":
        import attnet

        answer(attnet.__version__)
        return 0
    if words[0] not in COMMANDS:
        say(f"attnet: no command {words[0]!r}: {nearest(words[0], COMMANDS)}", sys.stderr)
        return 2
    try:
        os.getcwd()
    except FileNotFoundError:  # torch's libraries do not load there, and say that they are broken
        raise ConfigError("the current directory is gone, taken away or made anew; `cd` to one that is there") from None
    return importlib.import_module(COMMANDS[words[0]][0]).main(words[1:])


def _help() -> str:
    lines = [f"  {name:10} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(["usage: attnet COMMAND …", "", *lines, "", "`attnet COMMAND --help` explains each."])


if __name__ == "__main__":
    sys.exit(main())
