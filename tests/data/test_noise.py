"""Label noise: exactly so many labels are wrong, evenly so, always the same ones; and what a network made of them."""

from __future__ import annotations

import pytest
import torch

import attnet
from attnet.base.errors import ConfigError
from attnet.data.noise import LOOKED_AT, memorisation, with_label_noise
from attnet.data.splits import Split
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import make_plan

SMALL = {
    **{"mode": "rehearsal", "dataset": "shapes", "device_type": "CPU", "progress": "none"},
    **{"train_images": 64, "test_images": 20, "train_batch_size": 16, "total_epochs": 1},
}


def split(n: int, classes: int = 10) -> Split:
    return Split(torch.zeros(n, 1, 1, 1, dtype=torch.uint8), torch.arange(n) % classes)


def wrong(part: Split) -> torch.Tensor:
    return part.labels != part.true_labels


# ---- which labels, and what they become ----


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7])
def test_exactly_that_share_is_wrong_and_every_other_class_is_as_likely(share):
    """Over the true classes and the steps from the true to the wrong label; a fair draw passes 999 times in 1,000."""
    noisy = with_label_noise(split(50_000), 10, share)
    assert wrong(noisy).sum() == round(50_000 * share)
    assert torch.equal(noisy.true_labels, torch.arange(50_000) % 10)
    became = noisy.labels[wrong(noisy)]
    steps = (became - noisy.true_labels[wrong(noisy)]) % 10
    table = (noisy.true_labels[wrong(noisy)] * 10 + steps).bincount(minlength=100).view(10, 10)[:, 1:].double()
    assert table.sum() == wrong(noisy).sum(), "no label is replaced by itself"
    chi_square = ((table - table.mean()).square() / table.mean()).sum()
    assert 50 < chi_square < 135  # 89 degrees of freedom: 89 on average, 135 with probability 0.001


@pytest.mark.parametrize(("n", "share", "count"), [(10, 0.25, 2), (7, 0.5, 4), (7, 1.0, 7), (7, 0.0, 0), (3, 0.1, 0)])
def test_the_share_is_rounded(n, share, count):
    assert wrong(with_label_noise(split(n), 10, share)).sum() == count


def test_two_classes_are_swapped():
    noisy = with_label_noise(split(100, 2), 2, 0.3)
    assert torch.equal(noisy.labels[wrong(noisy)], 1 - noisy.true_labels[wrong(noisy)])


def test_the_seed_alone_decides():
    first, again, other = (with_label_noise(split(1000), 10, 0.3, seed).labels for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    # On record, since a run that goes on next year needs the same labels.
    assert with_label_noise(split(12), 10, 0.5).labels.tolist() == [0, 1, 2, 3, 3, 5, 4, 8, 5, 4, 8, 1]


def test_more_noise_leaves_what_is_wrong_as_it_is():
    little, much = (with_label_noise(split(1000), 10, share) for share in (0.1, 0.7))
    assert wrong(much)[wrong(little)].all()
    assert torch.equal(much.labels[wrong(little)], little.labels[wrong(little)])


def test_subsets_have_the_exact_share_and_mostly_the_labels_of_the_whole():
    whole = split(10_000)
    noisy = with_label_noise(whole, 10, 0.3)
    part, again = (with_label_noise(whole.subset(2_000), 10, 0.3) for _ in range(2))
    assert wrong(part).sum() == 600 and torch.equal(part.labels, again.labels)
    assert part.true_labels.bincount().tolist() == [200] * 10, "the subset is balanced by true labels"
    assert (part.labels == noisy.labels[part.places]).double().mean() > 0.95


# ---- in a run ----


def test_the_plan_spoils_training_labels_alone():
    clean, noisy = (make_plan(TrainConfig(**SMALL, label_noise=share)) for share in (0, 0.3))
    assert wrong(noisy.dataset.train).sum() == 19  # of 64
    assert torch.equal(noisy.dataset.train.true_labels, clean.dataset.train.labels)
    assert torch.equal(noisy.dataset.train.images, clean.dataset.train.images)
    assert torch.equal(noisy.dataset.test.labels, clean.dataset.test.labels)
    assert noisy.dataset.test.true_labels is None and clean.dataset.train.true_labels is None
    assert "label noise 30 %: 19 of 64 training labels are wrong, seed 0" in noisy.describe().splitlines()
    assert noisy.dataset_label == "shapes, 64 of 2,000 images (label noise 30 %)"
    assert "noise" not in clean.describe()
    other = make_plan(TrainConfig(**SMALL, label_noise=0.3, noise_seed=1))
    assert not torch.equal(other.dataset.train.labels, noisy.dataset.train.labels)
    assert "seed 1" in other.describe()


def test_noise_stays_among_the_chosen_classes():
    plan = make_plan(TrainConfig(**SMALL, classes="ring,disc,moon", label_noise=0.5))
    train = plan.dataset.train
    assert (len(train), int(wrong(train).sum())) == (64, 32)
    assert train.labels.unique().tolist() == [0, 1, 2]
    assert train.true_labels.bincount().tolist() in ([21, 21, 22], [21, 22, 21], [22, 21, 21])
    assert plan.dataset_label == "shapes (ring, disc, moon), 64 of 600 images (label noise 50 %)"


@pytest.mark.parametrize("share", [1.5, -0.1, 30, "some"])
def test_a_share_is_from_0_to_1(share):
    with pytest.raises(ConfigError, match=rf"label_noise={share!r}: a number at least 0 and at most 1 is needed"):
        TrainConfig(label_noise=share)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> attnet.Result:
    folder = tmp_path_factory.mktemp("runs") / "noisy"
    return attnet.fit(TrainConfig(**SMALL, label_noise=0.5, test_batch_size=20, output_dir=str(folder)))


def test_the_result_says_what_was_memorised(run):
    train = make_plan(TrainConfig(**SMALL, label_noise=0.5)).dataset.train
    part = train.rows(wrong(train).nonzero().squeeze(1))
    network = attnet.load_pretrained(run.output_dir / "last.pt")
    with torch.no_grad():
        said = network.model(part.images / 255).argmax(1)
    expected = {
        "images": 32,
        "true": 100 * (said == part.true_labels).float().mean().item(),
        "wrong": 100 * (said == part.labels).float().mean().item(),
    }
    assert run.memorisation == pytest.approx(expected)
    assert attnet.Result.load(run.output_dir).memorisation == run.memorisation


def test_evaluation_counts_true_labels(run):
    asked = TrainConfig(pretrained=str(run.output_dir), device_type="CPU")
    train, test = (attnet.plan_evaluation(asked, name) for name in ("train", "test"))
    clean = attnet.load_dataset(None, "shapes")
    assert torch.equal(train.dataset.test.labels, clean.train.labels)
    assert torch.equal(test.dataset.test.labels, clean.test.labels)
    assert "labels are the true ones: label noise (50 %) is for training alone" in train.describe()
    assert train.dataset_label == "shapes, 2,000 train images"
    alone = TrainConfig(**SMALL, label_noise=0.5, is_train=False, pretrained=str(run.output_dir))
    assert make_plan(alone).dataset_label == "shapes, 2,000 images"


def test_a_run_goes_on_with_its_own_noise_alone(run, tmp_path):
    for name in ("config.json", "last.pt"):
        (tmp_path / name).write_bytes((run.output_dir / name).read_bytes())
    with pytest.raises(ConfigError, match=r"other parameters: label_noise=0\.3 \(was 0\.5\), noise_seed=1 \(was 0\)"):
        attnet.fit(TrainConfig(resume=str(tmp_path), device_type="CPU", label_noise=0.3, noise_seed=1))
    again = attnet.fit(TrainConfig(resume=str(tmp_path), device_type="CPU", progress="none"))
    assert again.memorisation == run.memorisation


# ---- memorisation ----


def test_memorisation_counts_wrongly_labelled_images_alone():
    labels, true_labels = torch.tensor([[0, 1, 2, 0, 1, 2], [0, 2, 1, 1, 2, 2]])
    whole = Split(torch.zeros(6, 1, 1, 1), labels, true_labels=true_labels)
    said = torch.tensor([9, 2, 2, 9, 2, 9])
    assert memorisation(whole, lambda part: said[part.places]) == {"images": 4, "true": 50, "wrong": 25}


def test_memorisation_looks_at_a_few_thousand_at_most():
    noisy, seen = with_label_noise(split(20_000), 10, 0.5), []
    found = memorisation(noisy, lambda part: seen.append(part) or part.labels)
    assert found == {"images": LOOKED_AT, "true": 0, "wrong": 100} and len(seen[0]) == LOOKED_AT
    assert wrong(seen[0]).all() and seen[0].labels.bincount().tolist() == [LOOKED_AT // 10] * 10


def test_memorisation_without_wrong_labels_is_none():
    for part in (split(20), with_label_noise(split(20), 10, 0)):
        assert memorisation(part, pytest.fail) is None
