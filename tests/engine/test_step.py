"""The step: averaged weights, going on exactly from a state, no waiting for the device, compiled as well as plain."""

import copy
import functools
import os
import weakref

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from conftest import draw_images, draw_weights
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

import attnet
from attnet.base.device import KINDS
from attnet.data.batches import Batch
from attnet.engine.distributed import World
from attnet.engine.evaluation import evaluate
from attnet.engine.loop import Trainer
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import make_plan
from attnet.engine.step import TrainStep, batch_loss
from attnet.model.network import evaluating

SMALL = {
    "model": "attention56_tiny",
    "dataset": "shapes",
    "mode": "rehearsal",
    "train_images": 24,
    "test_images": 20,
    "train_batch_size": 4,
    "total_epochs": 2,
    "progress": "none",
    "device_type": "CPU",
}
BATCH = {"train_batch_size": 8}  # where losses are compared: fewer images would let rounding grow
STRONG = {
    "normalize": True,
    "cutout": 8,
    "mixup": 0.3,
    "flip": "alternating",
    "label_smoothing": 0.1,
    "no_bias_decay": True,
    "ema": 0.9,
}


def make(**changes: object) -> Trainer:
    trainer = Trainer(make_plan(TrainConfig(**{**SMALL, **changes})))
    trainer.model.train()
    return trainer


def losses(trainer: Trainer, steps: int = 4, lr: float = 0.03, double: bool = False) -> list[float]:
    """Of steps on one and the same batch, so that they fall.

    With `double`, in float64, where rounding does not grow to anything within a few steps.
    """
    if double:
        trainer.model.double()
        trainer.train_step.precision.input_dtype = torch.float64
    micro = next(trainer.train_batches.epoch(0))
    return [trainer.train_step(micro, lr).item() for _ in range(steps)]


# ---- the loss ----


def test_mixup_loss():
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]])
    a, b = torch.tensor([0, 1]), torch.tensor([2, 0])
    mixed = batch_loss(logits, Batch(torch.empty(0), a, b, 0.3))
    assert mixed.item() == pytest.approx(
        0.3 * F.cross_entropy(logits, a).item() + 0.7 * F.cross_entropy(logits, b).item()
    )


def test_label_smoothing_is_the_loss_against_softened_labels():
    logits, labels = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]]), torch.tensor([0, 1])
    soft = 0.9 * F.one_hot(labels, 3) + 0.1 / 3
    expected = -(soft * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert batch_loss(logits, Batch(torch.empty(0), labels), 0.1).item() == pytest.approx(expected.item())
    mixed = Batch(torch.empty(0), labels, labels.flip(0), torch.tensor(0.8))
    other = -(soft.flip(0) * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert batch_loss(logits, mixed, 0.1).item() == pytest.approx((0.8 * expected + 0.2 * other).item())


# ---- every way of computing gives the losses of the plain one ----


@functools.cache
def plain(strong: bool) -> list[float]:
    """Contiguous memory, float64, nothing compiled."""
    expected = losses(make(channels_last=False, **BATCH, **(STRONG if strong else {})), double=True)
    assert expected[-1] < expected[0] - 0.1, "it learns this batch"
    return expected


@pytest.mark.parametrize("strong", [False, True], ids=["seed", "strong"])
def test_losses_do_not_depend_on_the_memory_format(strong):
    trainer = make(**BATCH, **(STRONG if strong else {}))
    assert losses(trainer, double=True) == pytest.approx(plain(strong), rel=1e-6)
    stem = trainer.model.stem[0].weight
    assert stem.is_contiguous(memory_format=torch.channels_last) and not stem.is_contiguous()


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [({"amp": "O0"}, 0.03), ({"amp": "O1"}, 0.06), ({"amp": "O2", "loss_scale": "dynamic"}, 0.06)],
    ids=["O0", "O1", "O2"],
)
def test_losses_at_every_precision_are_those_of_float64(changes, tolerance):
    """O3 has test_precision.py alone: half-precision weights do not learn at a small rate."""
    assert losses(make(**changes, **BATCH, **STRONG)) == pytest.approx(plain(True), rel=tolerance)


@pytest.mark.slow
def test_the_compiled_step_has_no_graph_break_and_the_same_losses(monkeypatch, tmp_path):
    """Through torch.compile's tracing and differentiation; the code generator is left out, which takes minutes."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    original, compiled = torch.compile, []

    def compile_(function, *, dynamic: bool):
        compiled.append(function)
        return original(function, dynamic=dynamic, backend="aot_eager", fullgraph=True)

    monkeypatch.setattr(torch, "compile", compile_)
    trainer = make(compile="on", **BATCH, **STRONG)
    assert len(compiled) == 2  # the network, and the making of batches
    try:
        assert losses(trainer, double=True) == pytest.approx(plain(True), rel=1e-5)
    finally:
        torch.compiler.reset()


def test_compiled_code_is_kept_where_the_user_says(monkeypatch, tmp_path):
    """Else below runs/, which outlives a restart of the machine."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    make(compile="on")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    make(compile="off")
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    make(compile="on")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"].endswith("runs/.compiled")


@pytest.mark.parametrize(("amp", "tolerance"), [("O0", 1e-4), ("O1", 0.03), ("O2", 0.03), ("O3", 0.03)])
def test_golden_logits_hold_at_every_precision(amp, tolerance, reference_variants, golden, tmp_path):
    """What an epoch is tested with, given the reference's weights, against the reference's own logits."""
    reference = "ResidualAttentionModel_92_32input_update"
    torch.save(draw_weights(reference_variants[reference]["state_dict"]), tmp_path / "reference.pt")
    trainer = make(model="attention92", amp=amp, is_pretrain=True, pretrained=str(tmp_path / "reference.pt"))
    precision = trainer.train_step.precision
    with precision.autocast():
        logits = trainer.train_step.for_testing()(draw_images(32).to(precision.input_dtype)).float()
    expected = torch.from_numpy(golden[f"{reference}.logits"])
    assert (logits - expected).abs().max() <= tolerance * expected.abs().max()


# ---- nothing waits ----


class Waits(TorchDispatchMode):
    """The operators by which a program asks a device for a number."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
            self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("amp", ["O0", "O1", "O2", "O3"])
def test_no_step_asks_the_device_for_a_number(amp):
    trainer = make(amp=amp, **STRONG)
    stream = trainer.train_batches.epoch(0)
    trainer.train_step(next(stream), 0.1)  # the first one sets up
    with Waits() as waits:
        loss = trainer.train_step(next(stream), 0.1)
        assert waits.seen == []
        loss.item()
    assert len(waits.seen) == 1, "this test sees it when somebody asks"


# ---- the moving average ----


def test_the_average_follows_weights_and_statistics():
    trainer = make(ema=0.5, amp="O2")
    step = trainer.train_step
    expected = {name: value.clone().float() for name, value in step.precision.full_weights(trainer.model).items()}
    for count, micro in enumerate(trainer.train_batches.epoch(0)):
        step(micro, 0.05)
        decay = min(0.5, (1 + count) / (10 + count))
        for name, value in step.precision.full_weights(trainer.model).items():
            expected[name] = decay * expected[name] + (1 - decay) * value.float()
    floating = [name for name, value in trainer.model.state_dict().items() if value.is_floating_point()]
    assert set(step.average) == set(floating) and any("running_var" in name for name in floating)
    for name in floating:
        assert step.average[name].dtype == torch.float32
        torch.testing.assert_close(step.average[name], expected[name], rtol=1e-4, atol=1e-6)
        assert step.weights()[name] is step.average[name]


def test_without_an_average_the_weights_themselves_are_kept():
    trainer = make()
    losses(trainer, 2)
    kept = trainer.train_step.weights()
    assert trainer.train_step.average == {}
    assert all(torch.equal(kept[name], value) for name, value in trainer.model.state_dict().items())


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("amp", ["O0", "O2"])
def test_what_is_tested_is_what_is_kept(amp, ema):
    """The folded copy gives the logits of the kept weights in the plain network."""
    trainer = make(amp=amp, ema=ema)
    losses(trainer, 4, lr=0.1)
    ours = trainer.test()
    network = attnet.build_model("attention56_tiny")
    attnet.load_weights(network, trainer.train_step.weights())
    expected = evaluate(network, trainer.test_batches, trainer.plan.dataset.classes)
    spread = expected.logits.std().item()
    assert torch.allclose(ours.logits, expected.logits, atol=(1e-4 if amp == "O0" else 0.1) * spread)
    assert trainer.model.training and all(module.training for module in trainer.model.modules())


@pytest.mark.parametrize("changes", [{}, STRONG, {"amp": "O2", **STRONG}], ids=["seed", "strong", "strong-O2"])
def test_a_state_goes_on_bit_for_bit(changes):
    def bits(trainer: Trainer) -> list[Tensor]:
        state = trainer.train_step.state()
        return [*state["model"].values(), *state.get("training", {}).values()]

    trainer = make(**changes)
    steps = list(trainer.train_batches.epoch(0))
    for micro in steps[:3]:
        trainer.train_step(micro, 0.05)
    state = copy.deepcopy(trainer.train_step.state())
    for micro in steps[3:]:
        trainer.train_step(micro, 0.05)

    other = make(**changes, seed=1)
    other.train_step.load_state(state)
    for micro in steps[3:]:
        other.train_step(micro, 0.05)
    assert all(torch.equal(a, b) for a, b in zip(bits(trainer), bits(other), strict=True))
    assert trainer.train_step.updates == other.train_step.updates == (len(steps) if "ema" in changes else 0)


# ---- weight decay ----


def test_no_bias_decay_leaves_norms_and_biases_alone():
    """With gradients of zero only the decay moves a weight."""
    for asked, still in ((True, True), (False, False)):
        trainer = make(no_bias_decay=asked, weight_decay=0.1, momentum=0.0)
        before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
        for parameter in trainer.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        trainer.train_step.update(1.0)
        for name, module in trainer.model.named_modules():
            for kind, value in module.named_parameters(recurse=False):
                unmoved = still and (isinstance(module, nn.BatchNorm2d) or kind == "bias")
                expected = before[f"{name}.{kind}"] * (1 if unmoved else 0.9)
                torch.testing.assert_close(value.detach(), expected)


# ---- test-time averaging ----


def test_mirror_images_are_tested_and_reported_apart(tmp_path):
    config = {**SMALL, "total_epochs": 2, "test_flip": True, "output_dir": str(tmp_path / "run")}
    result = attnet.fit(TrainConfig(**config))
    assert result.top1_flip == result.history[-1]["top1_flip"]
    assert "top1_flip" not in result.history[0], "it doubles the cost of a test: after the last epoch alone"
    plan = make_plan(TrainConfig(**config))
    network = attnet.build_model("attention56_tiny")
    attnet.load_weights(network, result.output_dir / "last.pt")
    images, labels = plan.dataset.test.images.float() / 255, plan.dataset.test.labels
    with evaluating(network):
        plain_logits, mirrored = network(images), network(images.flip(3))
    for reported, logits in ((result.last_top1, plain_logits), (result.top1_flip, plain_logits + mirrored)):
        assert reported == pytest.approx(100 * (logits.argmax(1) == labels).float().mean().item())
    without = evaluate(network, plan.test_batches(), plan.dataset.classes)
    with pytest.raises(attnet.base.errors.AttnetError, match=r"top1_flip.*test_flip"):
        _ = without.top1_flip


def test_ddps_wrapper_is_gone_before_the_group(tmp_path):
    """Gloo's threads could wait for ever for one that outlives its process group."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        config = make_plan(TrainConfig(model="attention56_tiny", dataset="shapes", mode="rehearsal")).config
        step = TrainStep(attnet.build_model("attention56_tiny"), config, KINDS["CPU"](), World(size=2))
        wrapper = weakref.ref(step.network)
        assert isinstance(wrapper(), DistributedDataParallel)
        step.let_go()
        assert wrapper() is None
    finally:
        dist.destroy_process_group()
