from pathlib import Path

import pytest
import torch
from torch import Generator

from camo.quality import models, training
from camo.quality.distortions import FAMILIES, JUDGEABLE, distort

SAMPLE = Path(__file__).parent.parent / "data" / "sample"


def test_there_are_at_least_ten_families():
    assert len({family.__name__ for family in FAMILIES}) >= 10


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_severity_is_continuous_and_lowers_the_label(family, photos):
    labels = []
    for severity in (0.0, 0.3, 0.6, 1.0):
        distorted = [family(photo, severity, Generator().manual_seed(1)).clamp(0, 1) for photo in photos]
        assert all(image.shape == photo.shape for image, photo in zip(distorted, photos, strict=True))
        labels.append(sum(training.pseudo_label(image, photo) for image, photo in zip(distorted, photos, strict=True)) / len(photos))
    assert labels == sorted(labels, reverse=True)
    assert labels[0] > 50 > labels[-1]


def test_label_of_a_clean_photo_is_the_highest(photos):
    assert training.pseudo_label(photos[0], photos[0]) == pytest.approx(training.CLEAN_SCORE, abs=0.01)


def test_distort_is_seeded_and_holds_8_bit_values(photos):
    first, again, other = (distort(photos[0], Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.allclose(first * 255, (first * 255).round(), atol=1e-4)
    assert 0 <= first.min() <= first.max() <= 1


def test_crops_depend_on_seed_and_index_alone():
    photos = sorted((SAMPLE / "dev").glob("*.jpg"))[:3]
    crops = training.DistortedCrops(photos, 4, seed=5)
    assert torch.equal(crops[2][0], training.DistortedCrops(photos, 9, seed=5)[2][0])
    assert crops[2][0].shape == (3, 240, 320)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [([1.0, 2, 3, 4], [10.0, 20, 30, 99], 1.0), ([1.0, 2, 3, 4], [4.0, 3, 2, 1], -1.0), ([1.0, 2, 2, 3], [1.0, 2, 3, 4], 0.9486833)],
)
def test_spearman(first, second, expected):  # the last: scipy.stats.spearmanr
    assert training.spearman(torch.tensor(first), torch.tensor(second)) == pytest.approx(expected)


def test_two_steps_train_save_and_load(tmp_path, photos):
    model = training.train(sorted((SAMPLE / "dev").glob("*.jpg"))[:2], steps=2, batch_size=2, seed=0, workers=0)
    training.save(model, tmp_path / "biqa.safetensors")
    assert (tmp_path / "biqa.safetensors").stat().st_size < 8_000_000
    with torch.inference_mode():
        assert models.load_bundled(tmp_path / "biqa.safetensors")(photos).tolist() == pytest.approx(model(photos).tolist(), abs=0.5)


def test_shipped_weights_on_unseen_photos():
    """A quick look at what the README states from all 32 test photos; the command there is the full measurement."""
    figures = training.judge(models.load("bundled"), sorted((SAMPLE / "test").glob("*.jpg"))[::4], JUDGEABLE, versions=6)
    assert figures["srcc"] > 0.88
    assert figures["clean_above_50"] == 1
    assert figures["strongest_fifth_below_50"] > 0.9
    assert figures["jpeg90_change"] < 3
    assert models.BUNDLED_WEIGHTS.stat().st_size < 8_000_000
