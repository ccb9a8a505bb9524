"""Puts a stand-in for an apex where `import apex` finds it: `pytest_plugins = "harness_apex"` gives `install`."""

import re
import sys
from pathlib import Path

import pytest
import torch.nn.functional as F
from torch import nn

STAND_INS = Path(__file__).parent / "apex_stand_ins"
OURS = re.compile(r"(apex|small_amp|small_sgd|amp_C|change_data_ptr)(\..*)?")


def forget() -> None:
    for name in [name for name in sys.modules if OURS.fullmatch(name)]:
        del sys.modules[name]


@pytest.fixture
def install(monkeypatch):
    """Put a stand-in (or none) where `import apex` finds it first; afterwards all is as before."""
    patched = [(F, "conv2d"), (F, "linear"), (nn.Module, "zero_grad")]
    for owner, name in patched:
        monkeypatch.setattr(owner, name, getattr(owner, name))

    def put(kind: str) -> None:
        forget()
        monkeypatch.setattr(sys, "path", [p for p in sys.path if not p.startswith(str(STAND_INS))])
        for folder in ("common", kind) if kind != "none" else ():
            monkeypatch.syspath_prepend(str(STAND_INS / folder))

    forget()
    yield put
    forget()
