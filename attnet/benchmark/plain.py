"""A training loop as the reference repository has it: a `DataLoader` over PIL images, contiguous float32, torch's SGD.

It is what our engine is measured against; nothing else uses it. torchvision's three transforms are written out here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader

from attnet.base import device as devices
from attnet.base.device import Device
from attnet.data.splits import Split
from attnet.engine.plan import Plan
from attnet.model.variants import build_model

PADDING, TEST_BATCH, SHOWN = 4, 20, 100  # the reference's: zero pixels, images a test step, steps between its losses


def flip(image: Image.Image) -> Image.Image:
    """Left and right exchanged."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def crop(image: Image.Image, top: int, left: int) -> Image.Image:
    """As large a piece of the image padded with zeros, `top` and `left` pixels from the padded corner."""
    return ImageOps.expand(image, PADDING).crop((left, top, left + image.width, top + image.height))


def to_tensor(image: Image.Image) -> Tensor:
    """float32 [3, H, W] in [0, 1], contiguous."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)


def augment(image: Image.Image) -> Image.Image:
    """Mirrored or not, and cropped anywhere."""
    if torch.rand(1) < 0.5:
        image = flip(image)
    top, left = (int(torch.randint(2 * PADDING + 1, (1,))) for _ in range(2))
    return crop(image, top, left)


class Pictures(torch.utils.data.Dataset):
    """A split image by image: float32 [3, H, W], contiguous, and its label."""

    def __init__(self, split: Split, augmented: bool) -> None:
        self.pixels = split.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels, self.augmented = split.labels.tolist(), augmented

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.pixels[index])
        return to_tensor(augment(image) if self.augmented else image), self.labels[index]


class PlainLoop:
    """The reference's loop around our network of the plan, with the plan's batch size."""

    def __init__(self, plan: Plan, workers: int) -> None:
        self.device, self.batch_size, self.workers = plan.device, plan.config.train_batch_size, workers
        devices.seed_everything(plan.config.seed)
        self.network = build_model(plan.config.model, plan.config.num_classes).to(self.device.torch_device)
        parameters = self.network.parameters()
        self.optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)

    def epoch(self, plan: Plan) -> dict[str, float]:
        """Seconds of training ("train") and testing ("test") on the plan's images, and Top-1, per cent."""
        devices.seed_everything(plan.config.seed)
        begun = time.perf_counter()
        self.train(plan.dataset.train)
        self.device.synchronize()
        trained = time.perf_counter()
        top1 = self.test(plan.dataset.test)
        return {"train": trained - begun, "test": time.perf_counter() - trained, "top1": top1}

    def train(self, split: Split) -> list[float]:
        """An epoch over `split`; the losses that the reference shows, one every 100 steps, nats."""
        pictures = Pictures(split, augmented=True)
        loader = DataLoader(pictures, batch_size=self.batch_size, shuffle=True, num_workers=self.workers)
        criterion = nn.CrossEntropyLoss()
        losses = []
        self.network.train()
        for number, (images, labels) in enumerate(moved(loader, self.device), 1):
            self.optimizer.zero_grad()
            loss = criterion(self.network(images), labels)
            loss.backward()
            self.optimizer.step()
            if number % SHOWN == 0:
                losses.append(loss.item())
        return losses

    def test(self, split: Split) -> float:
        """Top-1 on `split`, per cent; the network is left in evaluation mode."""
        loader = DataLoader(Pictures(split, augmented=False), batch_size=TEST_BATCH)
        correct = 0
        self.network.eval()
        with torch.no_grad():
            for images, labels in moved(loader, self.device):
                correct += (self.network(images).argmax(dim=1) == labels).sum().item()
        return 100 * correct / len(split)


def moved(loader: DataLoader, device: Device) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches on the device."""
    for images, labels in loader:
        yield images.to(device.torch_device), labels.to(device.torch_device)
