"""What a study may change of a network of the table: the options of `build_model`, and of a run."""

from __future__ import annotations

from attnet.base.values import Parameters, parameter, parameters
from attnet.model.modules import ATTENTION_TYPES, COMBINE_TYPES, SUM_TYPES


@parameters
class NetworkOptions(Parameters):
    """The options of a network; None: the model's own."""

    attention: str | None = parameter(
        default=None,
        help="how masks are normalised; gain: their means over positions; constant: learned; None: the model's",
        choices=ATTENTION_TYPES,
        weights="options",
    )
    combine: str | None = parameter(
        default=None,
        help="mask on trunk: (1 + M)·T or M·T; None: the model's own",
        choices=COMBINE_TYPES,
        weights="options",
    )
    sums: str | None = parameter(
        default=None,
        help="what a mask branch adds up: the reference's sums, or fewer, the paper's own networks'; None: the model's",
        choices=SUM_TYPES,
        weights="options",
    )
    unit: str | None = parameter(
        default=None,
        help="preact, resnext, inception, or yours as package.module:name; None: preact",
        weights="options",
    )
    p: int | None = parameter(
        default=None,
        help="units before a module's branches, and after; None: the model's own",
        low=1,
        high=100,
        weights="options",
    )
    t: int | None = parameter(
        default=None, help="units of a trunk branch; None: the model's own", low=1, high=100, weights="options"
    )
    r: int | None = parameter(
        default=None,
        help="units between two poolings of a mask branch; None: the model's own",
        low=1,
        high=100,
        weights="options",
    )
    modules: str | None = parameter(
        default=None,
        help="attention modules a stage, as 1,2,3; None: the model's own",
        counts=True,
        low=0,
        high=100,
        weights="options",
    )


# What `build_model` lets a study change.
OPTIONS = tuple(NetworkOptions.fields())
