"""Every training parameter once: name, type, default, help, and all else that is true of it.

The command line, the notebooks, sweeps and checks read this. Names are those of the document (3d_attention_net for
PyTorch). A parameter left at None takes its value from the `mode` (how long, how large) or the `recipe` (how to
train); what is given explicitly always wins. Augmentation, the network's options and the learning rate have their
parameters beside them, in `attnet.data.augment`, `attnet.model.options` and `attnet.engine.schedule`.
"""

from __future__ import annotations

from typing import ClassVar

from attnet.base.device import KINDS
from attnet.base.errors import ConfigError
from attnet.base.values import facts, parameter, parameters
from attnet.data.augment import Augmentation
from attnet.data.registry import READERS
from attnet.engine.precision import LEVELS
from attnet.engine.recipes import MODES, NOT_HERE, RECIPES, by_preset
from attnet.engine.schedule import Rate
from attnet.model.options import NetworkOptions


@parameters
class TrainConfig(NetworkOptions, Augmentation, Rate):
    """Parameters of a run; checked when created, unknown names included.

    Raises:
        ConfigError: naming the parameter, its value, the rule, and for an unknown name the one that was meant.
    """

    # What to run
    mode: str = parameter(
        default="auto",
        help="full, performance, quick, rehearsal; auto: full with an accelerator and CIFAR-10, else rehearsal",
        choices=("auto", *MODES),
    )
    is_train: bool = parameter(
        default=True,
        help="train; False: only evaluate the weights at pretrained on the test images",
        also=("evaluate", "eval_only", "test_only"),
    )
    is_pretrain: bool = parameter(
        default=False,
        help="start from the weights at pretrained",
        decides="start",
        only_with_weights=True,
        also=("finetune",),
    )
    pretrained: str = parameter(
        default="",
        help="weights file: ours or a reference checkpoint; a path",
        path=True,
        decides="start",
        only_with_weights=True,
        also=("weights", "checkpoint", "ckpt", "weights_path", "load_from"),
    )
    new_head: bool | None = parameter(
        default=None,
        help="with is_pretrain: a fresh last layer; None: where the weights' classes are others",
        decides="start",
        only_with_weights=True,
    )
    freeze: str = parameter(
        default="",
        help="parts that keep their weights: stem, stage1 ..., tail, norm, head, or body (all but the head)",
        names=True,
        only_with_weights=True,
    )
    layer_decay: float = parameter(
        default=1.0,
        help="rate of a part (see freeze) over that of the part above it; the head learns at lr",
        low=0,
        high=1,
        only_with_weights=True,
    )
    # Where
    device_type: str = parameter(
        default="auto",
        help="NPU, GPU, MPS or CPU; auto takes the first of these that is here",
        choices=("auto", *KINDS),
        decides="never",
        here=True,
        also=("device", "accelerator"),
    )
    device_id: int = parameter(
        default=0,
        help="which card, counted from 0, when one is used",
        low=0,
        high=1000,
        decides="never",
        here=True,
        also=("gpu", "gpu_id", "local_rank"),
    )
    device_num: int = parameter(
        default=1,
        help="how many cards in all; more than one: attnet.launch or torchrun",
        low=1,
        high=100_000,
        decides="start",
        here=True,
        also=("gpus", "num_gpus", "n_gpus", "n_gpu", "devices", "world_size", "nproc_per_node", "nproc"),
    )
    nnodes: int = parameter(
        default=1, help="how many machines", low=1, high=10_000, decides="never", here=True, also=("num_nodes",)
    )
    node_rank: int = parameter(
        default=0, help="which of them this one is, counted from 0", low=0, high=10_000, decides="never", here=True
    )
    dist_url: str = parameter(
        default="", help="HOST:PORT on machine 0 where several machines meet", decides="never", here=True
    )
    max_restarts: int = parameter(
        default=3, help="how often ranks that died are brought back", low=0, high=10_000, decides="never"
    )
    # Data
    data_path: str = parameter(
        default="./data/cifar-10-batches-py",
        help="CIFAR folder, parent or .tar.gz; image folder; from the repository root",
        path=True,
        decides="start",
        also=("data", "data_dir", "data_root", "root", "dataset_path", "dataset_dir"),
    )
    dataset: str = parameter(
        default="auto",
        help="cifar10, cifar100[_coarse], shapes, folder; auto: what is at data_path, else shapes (rehearsal)",
        choices=("auto", *READERS),
        weights="evaluation",
    )
    classes: str = parameter(
        default="",
        help="train and test on these classes alone, names or numbers, renumbered in this order: cat,dog; empty: all",
        names=True,
        weights="evaluation",
    )
    train_images: int | None = parameter(
        default=None, help="train on a class-balanced subset of this many; 0: all", low=0, high=10**18
    )
    test_images: int | None = parameter(
        default=None, help="test on a class-balanced subset of this many; 0: all", low=0, high=10**18
    )
    label_noise: float = parameter(
        default=0.0,
        help="share of the training labels, 0 to 1, that are replaced by wrong ones, all equally likely",
        low=0,
        high=1,
        weights="evaluation",
    )
    noise_seed: int = parameter(default=0, help="seed of the label noise", low=0, high=2**32 - 1, weights="evaluation")
    # Network
    model: str | None = parameter(
        default=None, help="a name of attnet.variants()", weights="always", also=("arch", "network", "net", "backbone")
    )
    num_classes: int | None = parameter(
        default=None,
        help="outputs of the network; None: as many as the data set has",
        low=1,
        high=100_000,
        weights="evaluation",
    )
    # How long, how large
    total_epochs: int | None = parameter(
        default=None,
        help="epochs",
        low=1,
        high=100_000,
        also=("epochs", "num_epochs", "max_epochs", "n_epochs", "nb_epochs"),
    )
    train_batch_size: int | None = parameter(
        default=None,
        help="images a step and card",
        low=1,
        high=1_000_000,
        also=("batch_size", "bs", "batchsize", "batch", "b"),
    )
    test_batch_size: int = parameter(
        default=500,
        help="images a step of evaluation",
        low=1,
        high=1_000_000,
        also=("eval_batch_size", "val_batch_size"),
    )
    accumulate: int = parameter(
        default=1,
        help="micro-batches of train_batch_size a step; k on one card equals k cards",
        low=1,
        high=100_000,
        decides="start",
        also=("accumulate_grad_batches", "grad_accumulation", "gradient_accumulation_steps", "accum_iter"),
    )
    # How to train
    recipe: str = parameter(
        default="seed",
        help="how to train: seed (the document's), large_batch, best, fast94 (soonest); mode quick has its own",
        choices=tuple(RECIPES),
        weights="evaluation",
    )
    momentum: float | None = parameter(
        default=None, help="Nesterov momentum of SGD; 1 would never forget", low=0, high=0.9999, recipe=0.9
    )
    weight_decay: float | None = parameter(
        default=None, help="L2 penalty on every parameter", low=0, high=10, recipe=1e-4, also=("wd", "l2")
    )
    no_bias_decay: bool | None = parameter(
        default=None,
        help="weight decay on the weights of convolutions and linear layers only, not on biases and norms",
        recipe=False,
    )
    label_smoothing: float | None = parameter(
        default=None, help="share of the label that is spread over all classes, 0 to 1", low=0, high=1, recipe=0.0
    )
    normalize: bool | None = parameter(
        default=None,
        help="standardise each colour by the training set's mean and deviation",
        recipe=False,
        weights="always",
        also=("normalise",),
    )
    ema: float | None = parameter(
        default=None,
        help="decay a step of an exponential moving average of the weights, which is then tested and kept; 0: off",
        low=0,
        high=0.99999,
        recipe=0.0,
    )
    test_flip: bool | None = parameter(
        default=None,
        help="after the last epoch also test with logits averaged over each image and its mirror image: top1_flip",
        recipe=False,
    )
    # Precision and speed
    amp: str = parameter(
        default="auto",
        help=", ".join(f"{name} {level.help}" for name, level in LEVELS.items())
        + "; auto: O2 where that is quick, else O0",
        choices=("auto", *LEVELS),
        weights="evaluation",
        also=("opt_level", "precision", "fp16", "bf16", "use_amp", "mixed_precision"),
    )
    amp_backend: str = parameter(
        default="native",
        help="who does O1 and O2: native torch, or apex where a fitting one is installed",
        choices=("native", "apex"),
        decides="never",
    )
    loss_scale: float | str = parameter(
        default=128.0, help='loss scale of O1 and O2: a number, or "dynamic"', low=1, high=1e29
    )
    channels_last: bool | None = parameter(
        default=None,
        help="keep images and activations as NHWC in memory; None: yes, but not on an NPU, which takes NCHW alone",
        decides="never",
    )
    compile: str = parameter(
        default="auto",
        help="on: torch.compile; graphs: whole steps recorded as CUDA graphs; both; auto: graphs on a GPU",
        choices=("auto", "off", "on", "graphs", "both"),
        true="on",
    )
    # Reproducing
    seed: int = parameter(
        default=0,
        help="seed of weights, data order and augmentation",
        low=0,
        high=2**32 - 1,
        sweep="seeds",
        also=("random_seed", "manual_seed"),
    )
    output_dir: str = parameter(
        default="",
        help="run folder (empty: runs/train_1p); one in use gets a number, nothing is overwritten",
        path=True,
        decides="never",
        sweep="folder",
        also=("save_dir", "log_dir", "out", "output"),
    )
    checkpoint_seconds: float = parameter(
        default=600.0, help="save within an epoch after this many seconds; 0: never", low=0, high=10**9, decides="never"
    )
    keep_epochs: int = parameter(
        default=0,
        help="keep the weights after every so many epochs (and before the first) as epoch_NNN.pt; 0: never",
        low=0,
        high=100_000,
        decides="never",
    )
    log: str = parameter(
        default="",
        help="tell it of every epoch: tensorboard, or a hook of your own as package.module:name; empty: nobody",
        decides="never",
        also=("logger", "report_to", "tensorboard"),
    )
    resume: str = parameter(
        default="",
        help='run folder to continue, or "auto": the newest at output_dir; empty: begin afresh',
        path=True,
        decides="never",
        here=True,
        sweep="",
        also=("resume_from", "resume_from_checkpoint"),
    )
    progress: str = parameter(
        default="auto",
        help="live (bar and curve), lines (one an epoch), none; auto: live when somebody is looking",
        choices=("auto", "live", "lines", "none"),
        decides="never",
        here=True,
        sweep="",
    )

    NOT_HERE: ClassVar = NOT_HERE

    def check(self) -> None:
        if (self.is_pretrain or not self.is_train) and not self.pretrained:
            which = "is_pretrain=True" if self.is_pretrain else "is_train=False"
            raise ConfigError(f"{which} needs weights: give their file as pretrained=PATH")

    @classmethod
    def default_text(cls, name: str) -> str:
        """The default, and where it is None what that means: the value of each mode or recipe."""
        if cls.fields()[name].default is not None:
            return super().default_text(name)
        usual = facts(cls.fields()[name]).recipe
        values = by_preset(name, usual)
        if len(values) == 1 and usual is not None:
            return f"{usual}" or "empty"
        return ", ".join(f"{preset}: {value if value != '' else 'empty'}" for preset, value in values.items()) or "None"

    @classmethod
    def recipe_values(cls, recipe: str) -> dict[str, object]:
        """All that a recipe sets: what recipe `seed` does, and what this one does differently."""
        seed = {name: facts(spec).recipe for name, spec in cls.fields().items() if facts(spec).recipe is not None}
        return seed | RECIPES[recipe]
