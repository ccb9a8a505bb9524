"""SGD without the compiler: torch's numbers, and nothing of torch.compile loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attnet.engine.precision import SGD

OPTIONS = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-2}
ALONE = """
import sys, torch
from attnet.engine.precision import SGD
weight = torch.ones(3, requires_grad=True)
sgd = SGD([weight], lr=0.1, momentum=0.9)
weight.grad = torch.ones(3)
sgd.step()
sgd.load_state_dict(sgd.state_dict())
sgd.zero_grad()
assert weight.grad is None and weight[0] < 1
sys.exit("torch._dynamo" in sys.modules)
"""


@pytest.mark.parametrize("fused", [None, True], ids=["plain", "fused"])
def test_it_takes_torchs_steps_and_reads_its_states(fused):
    """Three steps of each, the third after the state went from one to the other."""
    torch.manual_seed(0)
    start = torch.randn(2, 5, 5)
    weights = [start.clone().requires_grad_() for _ in range(2)]
    own, torchs = (
        kind([weight], **OPTIONS, fused=fused) for kind, weight in zip((SGD, torch.optim.SGD), weights, strict=True)
    )
    for step in range(3):
        if step == 2:
            own_state = own.state_dict()
            own.load_state_dict(torchs.state_dict())
            torchs.load_state_dict(own_state)
        for weight, optimizer in zip(weights, (own, torchs), strict=True):
            (weight**2).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        assert torch.equal(*weights) and not torch.equal(weights[0], start)
    assert all(weight.requires_grad and weight.is_leaf for weight in weights)


@pytest.mark.slow
def test_nothing_of_the_compiler_is_loaded():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", ALONE], cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, check=False
    )
    assert done.returncode == 0
