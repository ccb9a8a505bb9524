"""Diagrams of a residual unit and of an attention module, drawn by walking the object.

Every shape and count in them comes from the object (`attnet.model.anatomy`), so that a figure of a changed network
shows the change. Diagrams are laid out in inches, with letters of at least 8 points.
"""

from __future__ import annotations

from matplotlib.figure import Figure
from torch import nn

from attnet.base.errors import ConfigError
from attnet.model.anatomy import activations, shape_text
from attnet.model.modules import AttentionModule, MaskLevel
from attnet.model.network import attention_network, choose_modules, unwrap
from attnet.model.units import ResidualUnit
from attnet.plots.figure import BLUE, GREEN, GREY, ORANGE, RED, TALL, UNIT, Drawing

__all__ = ["plot_attention_module", "plot_residual_unit"]

# What each attention type does to the second convolution's output, and the range that gives.
HEADS = {
    "mixed": ("sigmoid", "(0, 1)"),
    "channel": ("÷ L2 of channels", "[−1, 1]"),
    "spatial": ("standardise, sigmoid", "(0, 1)"),
    "gain": ("sigmoid, mean", "(0, 1)"),
}


def plot_residual_unit(unit_or_model: nn.Module) -> Figure:
    """The pre-activation bottleneck with its channel counts, stride and shortcut, drawn from the object.

    Args:
        unit_or_model: a `ResidualUnit`; or a network, of which a unit that changes shape (with stride 2, if it has
            one) and the first that keeps it are drawn.

    Raises:
        ConfigError: anything else, also a network of other units.
    """
    found = unwrap(unit_or_model)
    if isinstance(found, ResidualUnit):
        rows = [("", found)]
    else:
        named = attention_network(found).named_modules()
        units = [(name, unit) for name, unit in named if isinstance(unit, ResidualUnit)]
        if not units:
            raise ConfigError(
                f"plot_residual_unit: draws the pre-activation unit, and {attention_network(found).variant.label} "
                "has none; its units are described in attnet.model.units, or by you"
            )
        changing = max((row for row in units if row[1].shortcut is not None), key=lambda row: row[1].conv2.stride)
        rows = [next(row for row in units if row[1].shortcut is None), changing]
    sheet = Drawing(9.8, 1.75 * len(rows))
    for index, (name, unit) in enumerate(rows):
        title = name.replace("stages.", "").replace(".attention", "")  # as attention modules are named elsewhere
        _draw_unit(sheet, 1.75 * (len(rows) - index) - 1.25, title, unit)
    return sheet.figure


def _draw_unit(sheet: Drawing, y: float, name: str, unit: ResidualUnit) -> None:
    above, convs = y + 0.62, (unit.conv1, unit.conv2, unit.conv3)
    keeps = unit.shortcut is None
    kind = "shape stays: the shortcut is the input itself" if keeps else "shape changes: the shortcut is a 1×1 conv"
    sheet.text(0.15, y + 1.02, name, ha="left", weight="bold", fontsize=9)
    sheet.text(9.65, y + 1.02, kind, ha="right", color=GREY)
    left, forks = 0.15, [0.68]
    for conv, colour, room in zip(convs, (GREEN, BLUE, GREEN), (0.75, 0.3, 0.3), strict=True):
        sheet.arrow((left, y), (left + room, y))
        sheet.box(left + room + 0.4, y, "BN\nReLU", GREY, 0.8)
        left += room + 0.8
        forks.append(left + 0.13)
        sheet.arrow((left, y), (left + 0.3, y))
        sheet.box(left + 0.9, y, _conv_text(conv), colour, 1.2)
        left += 1.5
    end = left + 0.43
    sheet.arrow((left, y), (end - 0.13, y))
    sheet.sign(end, y, "+")
    sheet.arrow((end + 0.13, y), (9.65, y))
    for x, channels in ((0.36, unit.conv1.in_channels), (9.4, unit.conv3.out_channels)):
        sheet.text(x, y + 0.16, f"C = {channels}")
    fork = forks[0] if keeps else forks[1]
    sheet.dot(fork, y)
    if not keeps:
        sheet.arrow((fork, y), (fork, above), (4.2, above))
        sheet.box(4.8, above, _conv_text(unit.shortcut), RED, 1.2)
    sheet.arrow(*([(fork, y), (fork, above)] if keeps else [(5.4, above)]), (end, above), (end, y + 0.13))
    sheet.text(4.8, above + 0.12, "identity" if keeps else "")


def _conv_text(conv: nn.Conv2d) -> str:
    stride = f", stride {conv.stride[0]}" if conv.stride[0] > 1 else ""
    return f"{conv.kernel_size[0]}×{conv.kernel_size[1]} conv{stride}\n{conv.in_channels} → {conv.out_channels}"


def plot_attention_module(model: nn.Module, module: str = "stage1.0") -> Figure:
    """The diagram of one attention module, drawn from the object: trunk above, mask branch as a U below it.

    Args:
        model: a network from `build_model`; DDP- or compile-wrapped is fine.
        module: a name of `attention_modules()`.

    Returns:
        A figure in which every box says what it is and which shape (C×H×W) leaves it at the network's input size.

    Raises:
        ConfigError: an unknown module; the message lists the known ones.
    """
    network = attention_network(model)
    [block] = choose_modules(network, module).values()
    shapes = {step: shape_text(shape) for name, step, shape in activations(network) if name == module}
    return _ModuleDiagram(block, shapes, f"{module} of {network.variant.name}").draw()


class _ModuleDiagram:
    """Where everything of an attention module stands, in inches, and the drawing of it."""

    LEVEL, LAST = 1.44, 0.9  # from one scale of the mask branch down to the next, and to the coarsest

    def __init__(self, block: AttentionModule, shapes: dict[str, str], title: str) -> None:
        self.block, self.shapes = block, shapes
        masked, pools = block.mask is not None, block.mask.depth if block.mask else 0
        count = len(block.trunk)
        # Two units stand apart, up to four close together, more are one stack.
        boxes, width, gap = (1, UNIT, 0.0) if count > 4 else (count, UNIT, 0.28) if count < 3 else (count, 0.9, 0.17)
        trunk = boxes * width + (boxes - 1) * gap
        self.pre, self.split = 1.43, 2.36
        self.end = self.split + max(trunk + 0.6, 3.0 if pools > 1 else 1.9)  # T, and the right arm of the U
        self.middle = (self.split + self.end) / 2
        self.trunk = [self.middle - trunk / 2 + width / 2 + i * (width + gap) for i in range(boxes)]
        self.trunk_width = width
        self.times = self.end + 1.25
        self.plus = self.times + (0.62 if block.combine == "residual" else 0)
        self.post = (self.times + 1.17 if masked else self.end + 0.35) + UNIT / 2
        below = 2.1 + self.LEVEL * max(pools - 1, 0) + (self.LAST if pools else 0) if masked else 0.5
        self.top = below
        self.zero = below - 1.6  # full resolution in the mask branch
        self.sheet = Drawing(self.post + UNIT / 2 + 0.8, below + 1.2)
        self.sheet.text(0.12, below + 1.02, title, ha="left", weight="bold", fontsize=9.5)
        self.sheet.text(0.12, below + 0.8, self.formula(), ha="left", color=GREY)

    def formula(self) -> str:
        block = self.block
        sizes = f"p = {len(block.pre)}, t = {len(block.trunk)}"
        product = "(1 + M) · T" if block.combine == "residual" else "M · T"
        if block.mask is None:
            constant = "M a learned number a channel: " if block.level is not None else ""
            product = product if constant else "T"
            return f"output = post({product})      {constant}no mask branch      {sizes}"
        level, depth = block.mask.levels, block.mask.depth
        return (
            f"output = post({product})      {block.mask.head.attention} attention      {sizes}, "
            f"r = {len(level.units) // (2 if level.below is None else 1)}, {depth} pooling{'s' * (depth != 1)}"
        )

    def draw(self) -> Figure:
        sheet, y, half = self.sheet, self.top, UNIT / 2
        sheet.arrow((0.12, y), (self.pre - half, y))
        sheet.text(0.42, y + 0.14, "input")
        sheet.units(self.pre, y, len(self.block.pre), self.shapes["pre"], GREY)
        last = self.draw_trunk()
        if self.block.mask is not None:
            self.draw_mask()
            last = self.draw_product(last)
        sheet.arrow((last, y), (self.post - half, y))
        sheet.units(self.post, y, len(self.block.post), self.shapes["post"], GREY)
        sheet.arrow((self.post + half, y), (self.post + half + 0.7, y))
        sheet.text(self.post + half + 0.4, y + 0.14, "output")
        return sheet.figure

    def draw_trunk(self) -> float:
        """The units of the trunk; where their last arrow starts."""
        sheet, y, count = self.sheet, self.top, len(self.block.trunk)
        sheet.region(self.split + 0.1, y - 0.36, self.end - 0.1, y + 0.62, BLUE)
        sheet.text(self.split + 0.22, y + 0.47, "trunk branch", ha="left", color=BLUE, weight="bold")
        right, half = self.pre + UNIT / 2, self.trunk_width / 2
        for number, x in enumerate(self.trunk, 1):
            sheet.arrow((right, y), (x - half, y))
            if len(self.trunk) < count:
                sheet.units(x, y, count, self.shapes[f"trunk unit {count}"], BLUE)
            else:
                name = "residual unit" if count < 3 else f"unit {number}"
                sheet.box(x, y, f"{name}\n{self.shapes[f'trunk unit {number}']}", BLUE, self.trunk_width)
            right = x + half
        return right

    def draw_product(self, last: float) -> float:
        """T times M, plus T in a residual module; where the next arrow starts."""
        sheet, y = self.sheet, self.top
        sheet.arrow((last, y), (self.times - 0.13, y))
        sheet.sign(self.times, y, "×")
        adds_trunk = self.block.mask.depth and self.block.mask.sums == "reference"
        if self.block.combine == "residual" or adds_trunk:
            sheet.dot(self.end, y)
        sheet.text(self.end + 0.18, y + 0.15, "T", style="italic", fontsize=10)
        if self.block.combine == "residual":
            sheet.arrow((self.times + 0.13, y), (self.plus - 0.13, y))
            sheet.sign(self.plus, y, "+")
            sheet.arrow((self.end, y), (self.end, y + 0.42), (self.plus, y + 0.42), (self.plus, y + 0.13))
        return self.plus + 0.13

    def draw_mask(self) -> None:
        """The U: down on the left, the coarsest scale at the bottom, up on the right; the head under the product."""
        sheet, branch, zero, half = self.sheet, self.block.mask, self.zero, UNIT / 2
        sheet.region(self.split - 1.08, 0.12, self.times + 0.82, zero + 0.96, ORANGE)
        sheet.text(self.split - 0.96, zero + 0.8, "mask branch", ha="left", color=ORANGE, weight="bold")
        sheet.dot(self.split, self.top)
        sheet.text(self.split - 0.13, self.top + 0.15, "x", style="italic", fontsize=10)
        level, above, y, scale = branch.levels, self.top, zero, 1
        while level.below is not None:
            scale, y = 2 * scale, y - self.LEVEL
            lift = 0.05 * (min(len(level.units), 3) - 1)  # the cards behind the first
            sheet.arrow((self.split, above), (self.split, y + TALL / 2 + lift))
            sheet.text(self.split + 0.08, y + TALL / 2 + 0.24, "max-pool", ha="left")
            self.draw_scale(level, f"1/{scale}", y)
            level, above = level.below, y - TALL / 2
        bottom, coarsest = (y - self.LAST, f"1/{2 * scale}") if branch.depth else (zero, "1")
        sheet.arrow((self.split, above), (self.split, bottom), (self.middle - half, bottom))
        sheet.units(self.middle, bottom, len(level.units), self.shapes[f"mask {coarsest}"], ORANGE)
        if branch.depth:
            sheet.text(self.split + 0.08, bottom + 0.38, "max-pool", ha="left")
            sheet.text(self.split - 0.72, bottom, coarsest, ha="right", color=GREY)
            sheet.arrow((self.middle + half, bottom), (self.end, bottom), (self.end, y - 0.13))
            sheet.text(self.end + 0.08, bottom + 0.45, "up-sample", ha="left")
            if branch.sums == "reference":
                sheet.arrow((self.end, self.top), (self.end, zero + 0.13))
                sheet.sign(self.end, zero, "+")
            notes = "max-pool: 3×3, stride 2\nup-sample: bilinear, to the size\nit was pooled from"
            sheet.text(self.times + 0.95, zero + 0.3, notes, ha="left", color=GREY, linespacing=1.5)
        start = [(self.end + 0.13 if branch.depth else self.middle + half, zero)]
        if branch.depth and branch.sums != "reference":
            start = [(self.end, zero - 0.13), (self.end, zero)]
        sheet.arrow(*start, (self.times - 0.67, zero))
        last, span = HEADS[branch.head.attention]
        for row, text in enumerate(("BN–ReLU–1×1", "BN–ReLU–1×1", last)):
            sheet.box(self.times, zero + 0.33 * row, text, RED if row == 2 else GREY, 1.34, 0.27)
        sheet.arrow((self.times, zero + 0.8), (self.times, self.top - 0.13))
        sheet.text(self.times + 0.13, zero + 1.21, "M", style="italic", fontsize=10)
        sheet.text(self.times + 0.25, zero + 1.21, f"{self.shapes['mask head']}\nin {span}", ha="left")

    def draw_scale(self, level: MaskLevel, scale: str, y: float) -> None:
        """One scale: units down, a skip unit (in the reference the identity, too) across, the sum, units up."""
        sheet, half = self.sheet, UNIT / 2
        middle, fork = self.middle + 0.12, self.split + half + 0.2
        sheet.text(self.split - 0.72, y, scale, ha="right", color=GREY)
        sheet.units(self.split, y, len(level.units), self.shapes[f"mask {scale} down"], ORANGE)
        sheet.arrow((self.split + half, y), (middle - half, y))
        sheet.box(middle, y, f"skip unit\n{self.shapes[f'mask {scale} skip']}", ORANGE)
        sheet.arrow((middle + half, y), (self.end - 0.13, y))
        if level.sums == "reference":
            sheet.dot(fork, y)
            sheet.arrow((fork, y), (fork, y + 0.37), (self.end - 0.32, y + 0.37), (self.end - 0.09, y + 0.1))
        sheet.sign(self.end, y, "+")
        up = y + 0.76
        sheet.arrow((self.end, y + 0.13), (self.end, up - TALL / 2))
        sheet.units(self.end, up, len(level.up), self.shapes[f"mask {scale} up"], ORANGE)
        sheet.arrow((self.end, up + TALL / 2), (self.end, y + self.LEVEL - 0.13))
        sheet.text(self.end + 0.08, y + self.LEVEL - 0.24, "up-sample", ha="left")
