"""What modes and recipes set: how long and how large, and how to train."""

from __future__ import annotations

# mode -> what it sets. The document's train_full_* and train_performance_*, and a rehearsal of the same code that
# takes about a minute on two CPU cores.
MODES: dict[str, dict[str, object]] = {
    "full": {
        "model": "attention92",
        "total_epochs": 300,
        "train_batch_size": 512,
        "train_images": 0,
        "test_images": 0,
    },
    "performance": {
        "model": "attention92",
        "total_epochs": 1,
        "train_batch_size": 512,
        "train_images": 0,
        "test_images": 0,
    },
    "rehearsal": {
        "model": "attention56_tiny",
        "total_epochs": 5,
        "train_batch_size": 32,
        "train_images": 2000,
        "test_images": 500,
    },
}

# recipe -> how to train. `seed` is what the document's code does.
RECIPES: dict[str, dict[str, object]] = {
    "seed": {
        "lr": 0.1,
        "lr_batch": 0,
        "schedule": "step",
        "warmup_epochs": 0.0,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "no_bias_decay": False,
        "label_smoothing": 0.0,
        "flip": "random",
        "crop_padding": 4,
        "cutout": 0,
        "mixup": 0.0,
        "mixup_off_epochs": 0,
        "normalize": False,
        "ema": 0.0,
        "test_flip": False,
    },
}
# `large_batch`: the document's rows lose nine points at 4,096 images a step. The rate grows with the batch after a
# warm-up, as in Goyal et al., "Accurate, Large Minibatch SGD" (2017).
RECIPES["large_batch"] = RECIPES["seed"] | {"lr_batch": 256, "warmup_epochs": 5.0}
# `best`: what the Gluon port reached 97.14 % with (mixup, warm-up, cosine, cutout, no bias decay; He et al., "Bag of
# Tricks for Image Classification", 2019), the stronger weight decay of wide residual networks, averaged weights, and
# the last epochs without mixup, on the images as they are.
RECIPES["best"] = RECIPES["seed"] | {
    "lr_batch": 128,
    "schedule": "cosine",
    "warmup_epochs": 5.0,
    "weight_decay": 5e-4,
    "no_bias_decay": True,
    "cutout": 16,
    "mixup": 0.2,
    "mixup_off_epochs": 15,
    "normalize": True,
    "ema": 0.999,
    "test_flip": True,
}
# `fast94`: few epochs at a high rate, as in Page, "How to Train Your ResNet" (2018), and Jordan, "94 % on CIFAR-10
# in 3.29 Seconds on a Single GPU" (2024). No mixup: it pays in long trainings only.
RECIPES["fast94"] = RECIPES["seed"] | {
    "lr_batch": 128,
    "schedule": "onecycle",
    "warmup_epochs": 5.0,
    "weight_decay": 5e-4,
    "no_bias_decay": True,
    "label_smoothing": 0.1,
    "flip": "alternating",
    "cutout": 8,
    "normalize": True,
    "test_flip": True,
}
# recipe -> how long, in mode full, where it differs from the mode's.
LENGTHS: dict[str, dict[str, object]] = {
    "best": {"total_epochs": 250, "train_batch_size": 128},
    "fast94": {"total_epochs": 24},
}
# What a recipe counts in epochs keeps its share when another mode, or somebody, makes the run shorter.
COUNTED_IN_EPOCHS = ("warmup_epochs", "mixup_off_epochs")
