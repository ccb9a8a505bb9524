"""What tests/engine/test_simulated_npu.py has a process with simulated cards do; each function answers in JSON."""

from __future__ import annotations

import copy
import datetime
import io
import os
import threading
from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class Net(nn.Module):
    """The kinds of layer that the workbench's networks are made of. [N, 3, 16, 16] -> [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.head = nn.Conv2d(8, 8, 1, bias=False), nn.Linear(8 * 8 * 8, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(images)))
        y = F.interpolate(F.max_pool2d(x, 3, 2, 1), scale_factor=2, mode="bilinear", align_corners=True)
        return self.head(F.avg_pool2d(x * torch.sigmoid(self.second(y)) + x, 2).flatten(1))


def drawn(seed: int) -> tuple[Net, Tensor, Tensor]:
    """A network, images and labels, on the CPU."""
    torch.manual_seed(seed)
    return Net(), torch.rand(16, 3, 16, 16), torch.randint(10, (16,))


def steps(net: nn.Module, images: Tensor, labels: Tensor, count: int = 5) -> list[float]:
    """The losses of a few steps of SGD with Nesterov momentum."""
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    losses = []
    for _ in range(count):
        loss = F.cross_entropy(net(images).float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def train(device: str, dtype: str = "float32") -> dict:
    """Losses, then what the trained network says of the images, in evaluation."""
    net, images, labels = drawn(0)
    net = net.to(device)
    for layer in net.children():
        if not isinstance(layer, nn.BatchNorm2d):  # its weights stay float32, as at opt level O2
            layer.to(getattr(torch, dtype))
    images = images.to(device, getattr(torch, dtype))
    losses = steps(net, images, labels.to(device))
    with torch.inference_mode():
        return {"losses": losses, "logits": net.eval()(images).tolist()}


def autocast_types() -> dict[str, str]:
    net, images, labels = drawn(0)
    net, images, labels = net.npu(), images.npu(), labels.npu()
    with torch.autocast("npu", dtype=torch.float16):
        found = {"conv": net.first(images), "linear": net.head(images.new_ones(2, 512))}
        found["batch norm"] = net.norm(found["conv"])
        found["sum"] = found["conv"] + images.mean()
        found["softmax"] = F.softmax(found["linear"], 1)
        found["loss"] = F.cross_entropy(net(images), labels)
    found["loss"].backward()
    return {name: str(value.dtype) for name, value in (found | {"gradient": net.first.weight.grad}).items()}


def scaled_steps() -> list:
    """Per step with GradScaler: whether the weights moved, and the scale after it; the second overflows."""
    layer = nn.Linear(3, 2).npu()
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9, foreach=True)
    scaler = torch.npu.amp.GradScaler(init_scale=8.0, growth_interval=2)
    found = []
    for value in (1.0, float("inf"), 1.0, 1.0):
        before = layer.weight.detach().clone()
        scaler.scale(layer(torch.full((1, 3), value, device="npu")).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        found.append([not torch.equal(before, layer.weight), scaler.get_scale()])
    return found


def _unscale(scaler: torch.amp.GradScaler) -> None:
    layer = nn.Linear(3, 2).npu()
    scaler.scale(layer(torch.ones(1, 3, device="npu")).sum()).backward()
    scaler.unscale_(torch.optim.SGD(layer.parameters(), 0.1))


REFUSED: dict[str, Callable[[], object]] = {
    "NHWC images": lambda: torch.ones(2, 3, 4, 4, device="npu").contiguous(memory_format=torch.channels_last),
    "NHWC weights": lambda: Net().to("npu", memory_format=torch.channels_last),
    "NHWC memory": lambda: torch.empty(2, 3, 4, 4, device="npu", memory_format=torch.channels_last),
    "float64": lambda: torch.zeros(3, dtype=torch.float64, device="npu"),
    "one float64": lambda: torch.tensor(1.0, dtype=torch.float64, device="npu"),
    "to float64": lambda: torch.ones(3, device="npu").double(),
    "sum in float64": lambda: torch.ones(3, device="npu").sum(dtype=torch.float64),
    "float64 in torch's own GradScaler": lambda: _unscale(torch.amp.GradScaler("npu")),
    "float64 from the CPU": lambda: torch.ones(3, dtype=torch.float64).to("npu"),
    "complex128": lambda: torch.ones(3, device="npu").to(torch.complex128),
    "pinned": lambda: torch.ones(3).pin_memory(),
    "empty pinned": lambda: torch.empty(3, pin_memory=True),
    "pinned on a card": lambda: torch.empty(3, device="npu", pin_memory=True),
    "two cards": lambda: torch.ones(3, device="npu:0") + torch.ones(3, device="npu:1"),
    "product of two cards": lambda: torch.mm(torch.ones(2, 2, device="npu:0"), torch.ones(2, 2, device="npu:1")),
    "card and CPU": lambda: torch.ones(3, device="npu") + torch.ones(3),
    "card into CPU": lambda: torch.ones(3).add_(torch.ones(3, device="npu")),
    "CPU generator": lambda: torch.rand(3, device="npu", generator=torch.Generator()),
    "no such card": lambda: torch.ones(3, device="npu:7"),
    "set no such card": lambda: torch.npu.set_device(7),
    "numpy": lambda: torch.ones(3, device="npu").numpy(),
}


def refusals() -> dict[str, str]:
    found = {}
    for name, action in REFUSED.items():
        try:
            found[name] = f"no error: {action()}"
        except (RuntimeError, TypeError) as error:
            found[name] = str(error)
    return found


def everyday() -> None:
    """What programs do with tensors besides training."""
    x = torch.randn(4, 4, device="npu:1")
    here = x.cpu()
    assert x.tolist() == here.tolist() and x[0, 0].item() == here[0, 0].item() and x.cpu().numpy().shape == (4, 4)
    assert repr(x) == repr(here)[:-1] + ", device='npu:1')"
    assert torch.equal(x[x > 0].cpu(), here[here > 0]) and torch.equal(x[torch.tensor([0, 2])].cpu(), here[[0, 2]])
    x[x < 0] = 0
    x[torch.tensor([1])] = 2
    assert torch.equal(x.cpu(), here.clamp(min=0).index_fill(0, torch.tensor([1]), 2))
    out = torch.empty(0, device="npu:1")
    torch.mm(x, x.t(), out=out)
    assert torch.equal(out.cpu(), torch.mm(x.cpu(), x.cpu().t()))
    assert x.view(2, 8).data_ptr() == x.data_ptr() == x.t().data_ptr() == x.unfold(0, 2, 1).data_ptr()
    assert (x * torch.tensor(2.0)).device == (2.0 * x).device == x.device
    net = Net().to("npu:0")
    twin = copy.deepcopy(net)
    file = io.BytesIO()
    torch.save({name: value.cpu() for name, value in net.state_dict().items()}, file)
    state = torch.load(io.BytesIO(file.getvalue()), map_location="npu:1", weights_only=True)
    assert {value.device for value in state.values()} == {torch.device("npu:1")}
    other = Net()
    other.load_state_dict(state)
    for copied in (twin, other.npu()):
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), copied.parameters(), strict=True))


def cards() -> None:
    assert torch.npu.is_available() and torch.npu.device_count() == 4 and torch.npu.current_device() == 0
    seen = []

    def elsewhere() -> None:
        seen.append(torch.npu.current_device())
        torch.npu.set_device(3)
        seen.append(torch.ones(1, device="npu").device.index)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [0, 3] and torch.npu.current_device() == 0
    with torch.npu.device(2):
        assert torch.ones(1, device="npu").device.index == 2
    x = torch.arange(3.0, device="npu:1")
    assert x.to("npu:2", non_blocking=True).tolist() == x.tolist() and (x + 1).device == x.device
    x.requires_grad_()
    (x.to("npu:3") ** 2).sum().backward()
    assert x.grad is not None and x.grad.device == x.device and x.grad.tolist() == [0, 2, 4]


def visible_cards(values: list[str]) -> list[int]:
    """How many cards each value leaves, then how many when the last one's are in use and the variable changes."""
    found = []
    for value in values:
        os.environ["ASCEND_RT_VISIBLE_DEVICES"] = value
        found.append(torch.npu.device_count())
    torch.npu.init()
    os.environ["ASCEND_RT_VISIBLE_DEVICES"] = "0"
    return [*found, torch.npu.device_count()]


def memory() -> list[int]:
    """Bytes on a card: before, with a tensor and what was computed of it, after; peaks before and after a reset."""
    before = torch.npu.memory_allocated(3)
    x = torch.ones(1000, device="npu:3")
    y = (x + 1) * 2
    held = torch.npu.memory_allocated(3)
    del x, y
    peak = torch.npu.max_memory_allocated(3)
    torch.npu.reset_peak_memory_stats(3)
    return [before, held, torch.npu.memory_allocated(3), peak, torch.npu.max_memory_allocated(3)]


def random_numbers() -> None:
    draws: dict[str, Callable[[], Tensor]] = {
        "randn": lambda: torch.randn(8, device="npu:1"),
        "randint": lambda: torch.randint(9, (8,), device="npu:1"),
        "randperm": lambda: torch.randperm(8, device="npu:1"),
        "in place": lambda: torch.empty(8, device="npu:1").normal_().uniform_().bernoulli_(),
        "dropout": lambda: F.dropout(torch.ones(8, device="npu:1", requires_grad=True)),
    }
    for name, draw in draws.items():
        torch.manual_seed(5)
        first, second = draw(), draw()
        torch.rand(3), torch.rand(3, device="npu:0")  # neither the CPU's nor another card's numbers
        state = torch.npu.get_rng_state(1)
        third = draw()
        torch.manual_seed(5)
        assert torch.equal(first, draw()) and torch.equal(second, draw()), name
        torch.npu.set_rng_state(state, 1)
        assert torch.equal(third, draw()), name
        torch.manual_seed(5)
        torch.rand(3, device="npu:1")
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5))), name
    generator = torch.Generator(device="npu").manual_seed(7)
    first = torch.randn(3, device="npu", generator=generator)
    assert torch.equal(first, torch.randn(3, device="npu", generator=generator.manual_seed(7)))


def parallel(file: str, rank: int) -> list[float]:
    """One of two processes over hccl; its losses and a sum of its weights, trained on its half of the images."""
    torch.npu.set_device(rank)
    timeout = datetime.timedelta(seconds=60)
    dist.init_process_group("hccl", timeout=timeout, store=dist.FileStore(file, 2), rank=rank, world_size=2)
    try:
        _collectives(torch.device("npu", rank), rank)
        net, images, labels = drawn(rank)  # DDP spreads rank 0's weights
        _, images, labels = drawn(0)
        net.norm.eval()  # statistics of half a batch are others
        per_card = {"broadcast_buffers": False}
        net = DistributedDataParallel(net.npu(), device_ids=[rank], gradient_as_bucket_view=True, **per_card)
        mine = slice(8 * rank, 8 * rank + 8)
        with net.no_sync():
            net(images[mine].npu()).sum().backward()
        net.zero_grad()
        return steps_and_weights(net, images[mine].npu(), labels[mine].npu())
    finally:
        dist.destroy_process_group()


def alone() -> list[float]:
    """What `parallel` does, by one process on all images."""
    net, images, labels = drawn(0)
    net.norm.eval()
    return steps_and_weights(net.npu(), images.npu(), labels.npu())


def steps_and_weights(net: nn.Module, images: Tensor, labels: Tensor) -> list[float]:
    return [*steps(net, images, labels), sum(p.abs().sum().item() for p in net.parameters())]


def _collectives(device: torch.device, rank: int) -> None:
    x = torch.full((2,), rank + 1, device=device, dtype=torch.float16)
    dist.all_reduce(x)
    assert x.tolist() == [3, 3]
    dist.broadcast(x.fill_(rank), src=1)
    assert x.tolist() == [1, 1]
    parts = [torch.empty(1, device=device) for _ in range(2)]
    dist.all_gather(parts, torch.tensor([float(rank)], device=device))
    assert [part.item() for part in parts] == [0, 1]
    objects: list = [None, None]
    dist.all_gather_object(objects, {"rank": rank})
    assert objects == [{"rank": 0}, {"rank": 1}]
    box = [rank]
    dist.broadcast_object_list(box, src=1)
    assert box == [1]
    if rank == 0:
        dist.send(x + 1, 1)
    else:
        dist.recv(x, 0)
        assert x.tolist() == [2, 2]
    dist.barrier()
    odd = torch.zeros(1, dtype=torch.uint16, device=device)
    for bad, message in ((torch.ones(1), "device type cpu"), (odd, "uint16")):
        try:
            dist.all_reduce(bad)
        except (RuntimeError, TypeError) as error:
            assert message in str(error)
        else:
            raise AssertionError(f"no error: {message}")


def fail() -> None:
    print("said before")
    raise KeyError("a reason")


def die() -> None:
    print("last words", flush=True)
    os._exit(3)
