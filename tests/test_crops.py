import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from camo import CamoError
from camo.photos.images import read
from camo.training.crops import CentreCrops, RandomCrops, hold_out, list_photos, random_crop

SAMPLE = Path(__file__).parent.parent / "data" / "sample"


def test_sample_sets_share_no_photograph():
    dev, test = ({photo.stem.removesuffix("-detail") for photo in list_photos([SAMPLE / part])} for part in ("dev", "test"))
    assert len(list_photos([SAMPLE / "dev"])) >= 96
    assert len(list_photos([SAMPLE / "test"])) >= 32
    assert not dev & test


def test_sample_photos_are_small_and_attributed():
    attributed = (SAMPLE / "ATTRIBUTION.md").read_text()
    photos = list_photos([SAMPLE])
    assert sum(photo.stat().st_size for photo in photos) < 15_000_000
    for photo in photos:
        assert Image.open(photo).size == (512, 384)
        assert f"| {photo.relative_to(SAMPLE)} |" in attributed


def test_crops_depend_on_seed_and_index_alone():
    photos = list_photos([SAMPLE / "dev"])[:6]
    crops = RandomCrops(photos, (96, 128), length=20, seed=3)
    wanted = torch.stack([crops[i] for i in range(20)])
    assert wanted.dtype == torch.uint8
    assert wanted.shape == (20, 3, 96, 128)
    for workers in (0, 2):
        loaded = torch.cat(list(DataLoader(crops, batch_size=7, num_workers=workers)))
        assert torch.equal(loaded, wanted)
    assert not torch.equal(RandomCrops(photos, (96, 128), 20, seed=4)[0], wanted[0])
    assert not torch.equal(crops[0], crops[6])  # the same photos again, other crops


def test_photos_of_the_size_of_the_crops_vary_only_where_crops_may_be_enlarged():
    """As KonIQ-10k's photos of 512x384 do against KonCept512, which looks at just that much."""
    photo = read(list_photos([SAMPLE / "dev"])[0]).pixels
    size = tuple(photo.shape[-2:])
    for enlarged, least, most in ((1.0, 1, 2), (1.25, 20, 20)):
        crops = [random_crop(photo, size, torch.Generator().manual_seed(seed), enlarged) for seed in range(20)]
        assert {crop.shape for crop in crops} == {photo.shape}
        assert least <= len({crop.numpy().tobytes() for crop in crops}) <= most  # the photo and its mirror image
    strip = random_crop(photo[:, :100], size, torch.Generator().manual_seed(0), 1.25)
    assert strip.shape == photo.shape


def test_every_photo_comes_once_an_epoch(tmp_path):
    for value in range(0, 250, 50):
        Image.fromarray(np.full((80, 90, 3), value, np.uint8)).save(tmp_path / f"{value}.png")
    crops = RandomCrops(list_photos([tmp_path]), (64, 64), length=10, seed=0)
    brightness = [round(crops[i].float().mean().item()) for i in range(10)]
    assert len(set(brightness[:5])) == 5


def test_unreadable_photo_is_named_and_the_next_one_taken(tmp_path):
    photo = list_photos([SAMPLE / "dev"])[0]
    shutil.copy(photo, tmp_path / "good.jpg")
    (tmp_path / "bad.jpg").write_bytes(photo.read_bytes()[:5000])
    crops = RandomCrops(list_photos([tmp_path]), (64, 64), length=2, seed=0)
    with pytest.warns(UserWarning, match=r"bad\.jpg"):
        assert len({crops[i].shape for i in range(2)}) == 1


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    with warnings.catch_warnings(), pytest.raises(CamoError, match="none of the 1 photos"):
        warnings.simplefilter("ignore")
        RandomCrops(list_photos([tmp_path]), (64, 64), 1, 0)[0]


def test_empty_folder_is_an_error(tmp_path):
    with pytest.raises(CamoError, match="no photo in this folder"):
        list_photos([tmp_path])


def test_a_detail_stays_with_its_photograph():
    photos = [Path(f"{name}.jpg") for name in ("a", "b", "b-detail", "c", "d")]
    training, validation = hold_out(photos, 2)
    assert validation == [Path("b.jpg"), Path("b-detail.jpg"), Path("d.jpg")]
    assert training == [Path("a.jpg"), Path("c.jpg")]
    with pytest.raises(CamoError, match="too few"):
        hold_out(photos[:1], 2)


def test_centre_crops_cover_any_shape(tmp_path):
    for name, size in {"wide": (300, 100), "tall": (90, 400), "small": (20, 17)}.items():
        Image.new("RGB", size, "grey").save(tmp_path / f"{name}.png")
    crops = CentreCrops(list_photos([tmp_path]), (96, 128))
    assert all(crops[i].shape == (3, 96, 128) for i in range(3))
