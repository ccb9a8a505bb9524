"""Several configurations, each with several seeds: one after the other or several at once, resumable, one table out.

    sweep = Sweep(grid(TrainConfig(), lr=(0.1, 0.05), schedule=("step", "cosine")), seeds=(0, 1, 2), folder="runs/lr")
    print(sweep_table(sweep.run()))

`python -m attnet.sweep` does the same from a shell. Each run is a process of its own, `python -m attnet.train` or a
notebook through papermill, and has a folder of its own. What is finished there is not run again, so a sweep that was
stopped in whatever way is simply started again.
"""

from attnet.sweep.configs import grid, read_list
from attnet.sweep.record import as_csv, sweep_record
from attnet.sweep.sweep import Sweep, summary
from attnet.sweep.table import changes_text, failures_text, mean_text, state_table, sweep_table

__all__ = [
    "Sweep",
    "as_csv",
    "changes_text",
    "failures_text",
    "grid",
    "mean_text",
    "read_list",
    "state_table",
    "summary",
    "sweep_record",
    "sweep_table",
]
