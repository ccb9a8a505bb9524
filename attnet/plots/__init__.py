"""Every figure of the workbench; each is one call.

A function returns a matplotlib Figure and shows nothing itself: a notebook displays the value of its last line,
a script calls `savefig`.
"""

from attnet.plots.ablation import plot_ablation
from attnet.plots.anatomy import plot_parts, plot_receptive_fields, plot_signal
from attnet.plots.architecture import plot_attention_module, plot_network, plot_residual_unit
from attnet.plots.changes import plot_mask_changes, plot_masks_before_after
from attnet.plots.contrasts import plot_masks_through_training, plot_right_and_wrong
from attnet.plots.figure import Picture
from attnet.plots.masks import overlay, plot_channels, plot_figure1, plot_module, plot_overlays
from attnet.plots.measures import plot_deletion_insertion, plot_effects, plot_localisation, plot_mask_statistics
from attnet.plots.performance import plot_epoch, plot_growth, plot_step_shares
from attnet.plots.roofline import plot_roofline
from attnet.plots.runs import plot_runs, plot_top1
from attnet.plots.training import (
    plot_batch,
    plot_confusion,
    plot_curves,
    plot_per_class,
    plot_predictions,
    plot_ranks,
)
from attnet.plots.view import plot_look, plot_view

__all__ = [
    "Picture",
    "overlay",
    "plot_ablation",
    "plot_attention_module",
    "plot_batch",
    "plot_channels",
    "plot_confusion",
    "plot_curves",
    "plot_deletion_insertion",
    "plot_effects",
    "plot_epoch",
    "plot_figure1",
    "plot_growth",
    "plot_localisation",
    "plot_look",
    "plot_mask_changes",
    "plot_mask_statistics",
    "plot_masks_before_after",
    "plot_masks_through_training",
    "plot_module",
    "plot_network",
    "plot_overlays",
    "plot_parts",
    "plot_per_class",
    "plot_predictions",
    "plot_ranks",
    "plot_receptive_fields",
    "plot_residual_unit",
    "plot_right_and_wrong",
    "plot_roofline",
    "plot_runs",
    "plot_signal",
    "plot_step_shares",
    "plot_top1",
    "plot_view",
]
