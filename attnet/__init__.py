"""attnet: a workbench for residual attention networks: train them, reproduce them, look into them."""

from attnet.config import TrainConfig
from attnet.data import load_dataset
from attnet.engine import fit
from attnet.evaluation import Evaluation, evaluate, evaluate_weights
from attnet.launch import launch
from attnet.masks import capture, capture_masks
from attnet.model import build_model, variants
from attnet.plan import make_plan, plan_evaluation
from attnet.pretrained import Pretrained, load_pretrained, open_pretrained
from attnet.result import Result
from attnet.weights import load_weights

__version__ = "0.1.0"
__all__ = [
    "Evaluation",
    "Pretrained",
    "Result",
    "TrainConfig",
    "build_model",
    "capture",
    "capture_masks",
    "evaluate",
    "evaluate_weights",
    "fit",
    "launch",
    "load_dataset",
    "load_pretrained",
    "load_weights",
    "make_plan",
    "open_pretrained",
    "plan_evaluation",
    "variants",
]
