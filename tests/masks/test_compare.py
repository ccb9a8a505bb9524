"""The comparison of mask maps with baselines, on networks whose masks are known."""

import json

import pytest
import torch
from torch import nn

import attnet
from attnet.base.errors import ConfigError
from attnet.data.shapes import make_shapes
from attnet.masks import compare as comparison
from attnet.masks import controls
from attnet.masks.compare import (
    SCORES,
    compare_deletion,
    compare_localisation,
    deletion_table,
    localisation_table,
    road_table,
)
from attnet.masks.controls import IMAGE_CONTROLS
from attnet.masks.faithfulness import Curves
from attnet.model.modules import MaskBranch


@pytest.fixture(scope="module")
def split():
    return make_shapes(10, 60).test


@pytest.fixture
def seeing(split, monkeypatch) -> nn.Module:
    """A network whose first mask is the objects' pixels, and whose second is their opposite."""
    model = attnet.build_model("attention56_tiny")
    by_mean = {image.float().mean().item(): mask for image, mask in zip(split.images, split.masks, strict=True)}
    seen: list[torch.Tensor] = []
    model.stem.register_forward_pre_hook(lambda _, inputs: seen.__setitem__(slice(None), [inputs[0]]))
    original, modules = MaskBranch.forward, model.attention_modules()
    kinds = {modules["stage1.0"].mask: False, modules["stage2.0"].mask: True}

    def forward(branch: MaskBranch, x: torch.Tensor, trunk: torch.Tensor) -> torch.Tensor:
        if branch not in kinds:
            return original(branch, x, trunk)
        means = [min(by_mean, key=lambda m: abs(m - 255 * image.mean().item())) for image in seen[0]]
        known = torch.stack([by_mean[m] for m in means])[:, None].float()
        known = nn.functional.interpolate(known, size=trunk.shape[-1], mode="nearest")
        return (1 - known if kinds[branch] else known).expand_as(trunk)

    monkeypatch.setattr(MaskBranch, "forward", forward)
    return model


@pytest.fixture
def few_controls(monkeypatch) -> None:
    """Two of the image and one untrained network, which is as good to see how they are used."""
    kept = {name: IMAGE_CONTROLS[name] for name in ("edges", "centre prior")}
    monkeypatch.setattr(controls, "IMAGE_CONTROLS", kept)
    monkeypatch.setattr(comparison, "SEEDS", 1)


def cells(table: str) -> list[list[str]]:
    """The cells of a Markdown table's rows."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_a_network_that_sees_the_object_wins(seeing, split, few_controls):
    rows = {row.method: row for row in compare_localisation(seeing, split, reductions=("mean", "max"), batch_size=25)}
    maps = [f"stage{i}.0 {how}" for how in ("mean", "max") for i in (1, 2, 3)]
    methods = [name.replace(" ", " mask ") for name in maps]
    lost = ("head", "norm", "tail", "stage3", "stage2", "stage1", "stem")
    of_networks = [f"untrained: {name}" for name in maps]
    of_networks += [f"weights anew down to {part}: {name}" for part in lost for name in maps]
    assert list(rows) == [*methods, "Grad-CAM", "edges", "centre prior", "random", *of_networks]
    assert [row.baseline for row in rows.values()] == [name not in methods for name in rows]
    perfect = rows["stage1.0 mask mean"].scores
    assert {name: interval.mean for name, interval in perfect.items()} == pytest.approx(dict.fromkeys(SCORES, 1.0))
    assert rows["stage2.0 mask mean"].scores["auroc"].mean < 0.1
    assert rows["untrained: stage1.0 mean"].scores["auroc"].mean < 0.95, "the copy does not know the objects"
    noise, centre = rows["random"].scores["auroc"], rows["centre prior"].scores["auroc"]
    assert noise.low < 0.5 < noise.high and centre.low > 0.6
    table = localisation_table(list(rows.values()))
    assert table.count("**1.000 (1.000–1.000)**") == 8
    assert [row[0] for row in cells(table)] == list(rows)


def test_only_known_objects_can_be_found(split):
    with pytest.raises(ConfigError, match="pixels are not known"):
        compare_localisation(
            attnet.build_model("attention56_tiny"), attnet.data.splits.Split(split.images, split.labels)
        )


def test_deletion_by_every_method_explains_the_predicted_class(seeing, split, few_controls):
    images = split.images[:8].float() / 255
    curves = compare_deletion(seeing, images, ["stage1.0"], ["mean"], steps=5, batch_size=3)
    assert list(curves)[:5] == ["stage1.0 mask mean", "Grad-CAM", "edges", "centre prior", "random"]
    assert list(curves)[5] == "untrained: stage1.0 mean" and len(curves) == 6 + 7
    seeing.eval()
    with torch.no_grad():
        whole = seeing(images).softmax(1).amax(1)
    for curve in curves.values():
        assert curve.deletion.shape == curve.insertion.shape == (8, 5)
        torch.testing.assert_close(curve.deletion[:, 0], whole)
        torch.testing.assert_close(curve.insertion[:, -1], whole)
    table = {method: deletion for method, deletion, _ in cells(deletion_table(curves))}
    assert list(table) == list(curves)
    best = min(curves, key=lambda method: curves[method].deletion_area.mean)
    assert table[best] == f"**{curves[best].deletion_area}**"


@pytest.mark.slow
def test_everything_is_measured(seeing, split, few_controls):
    network = attnet.Pretrained(seeing.eval(), tuple("abcdefghij"), "tiny")
    data = attnet.data.splits.Dataset(split, split, tuple("abcdefghij"), "s", "")
    found = comparison.measure(network, data, 6, 2)
    record = found.to_json()
    assert record["tables_of"] == "s, 6 test images (2 for deletion, insertion and ROAD)"
    assert [row["module"] for row in record["statistics"]] == ["stage1.0", "stage2.0", "stage3.0"]
    assert len(record["effects"]) == 1 + 4 * 7
    assert list(record["deletion"]) == list(record["road"]) and len(record["road"]) == 6 + 4 + 6 * 8
    assert {row["method"] for row in record["localisation"]} >= {"stage1.0 mask std", "Grad-CAM", "random"}
    assert all(0 <= row["right_way"]["mean"] <= 1 for row in record["road"].values())
    json.dumps(record)
    page = found.page()
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == [
        "Masks replaced",
        "Where the object is",
        "Deletion and insertion, pixels blurred away",
        "ROAD, pixels imputed from those around them",
    ]
    assert "| resampled " in page
    of_maps = page.split("## ")[2:]
    for control in (
        "Grad-CAM",
        "edges",
        "random",
        "untrained: stage1.0 mean",
        "weights anew down to stem: stage3.0 std",
    ):
        assert all(f"\n| {control} " in part for part in of_maps), control


def test_the_table_of_road_by_hand():
    fractions = torch.tensor([0.0, 0.5, 1.0])
    curves = {
        "sees": Curves(fractions, torch.tensor([[0.8, 0.2, 0.0]]), torch.tensor([[0.0, 0.8, 0.8]])),
        "blind": Curves(fractions, torch.tensor([[0.8, 0.9, 0.0]]), torch.tensor([[0.0, 0.2, 0.8]])),
    }
    rows = {row[0]: [float(cell.strip("*").split()[0]) for cell in row[1:]] for row in cells(road_table(curves))}
    assert rows == {"sees": [0.3, 0.6, 0.3, 1.0], "blind": [0.65, 0.3, -0.35, 0.0]}
    assert road_table(curves).splitlines()[2].count("**") == 8
