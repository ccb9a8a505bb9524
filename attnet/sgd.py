"""torch's SGD without the import of torch.compile, which a process that trains alone would pay for at its start."""

from __future__ import annotations

import inspect

import torch


def _plain(method: object) -> object:
    """A method of torch's without the wrappers that keep the compiler out of it.

    torch's optimisers import the whole of `torch._dynamo` to tell it that it has no business with them.
    """
    return inspect.unwrap(method)


class SGD(torch.optim.SGD):
    """`torch.optim.SGD`, the same numbers. It is not to be compiled itself; networks that it trains may be."""

    add_param_group = _plain(torch.optim.SGD.add_param_group)
    state_dict = _plain(torch.optim.SGD.state_dict)
    load_state_dict = _plain(torch.optim.SGD.load_state_dict)
    zero_grad = _plain(torch.optim.SGD.zero_grad)
    step = torch.no_grad()(_plain(torch.optim.SGD.step))
