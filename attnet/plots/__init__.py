"""Every figure of the workbench; each is one call.

A function returns a matplotlib Figure and shows nothing itself: a notebook displays the value of its last line,
a script calls `savefig`.
"""

from attnet.plots.figure import Picture
from attnet.plots.training import (
    plot_batch,
    plot_confusion,
    plot_curves,
    plot_per_class,
    plot_predictions,
    plot_ranks,
)

__all__ = [
    "Picture",
    "plot_batch",
    "plot_confusion",
    "plot_curves",
    "plot_per_class",
    "plot_predictions",
    "plot_ranks",
]
