import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from camo.__main__ import main
from camo.images import read, to_float
from camo.metrics import psnr

SAMPLE = Path(__file__).parent.parent / "data" / "sample" / "test"


@pytest.fixture
def folders(tmp_path):
    """Two originals, and versions of them: one ruined by JPEG 5, one as it was, the second under a run code."""
    originals, filtered = tmp_path / "originals", tmp_path / "filtered"
    originals.mkdir()
    filtered.mkdir()
    first, second = sorted(SAMPLE.glob("*.jpg"))[:2]
    for photo in (first, second):
        shutil.copy(photo, originals)
    Image.open(first).save(filtered / f"{first.stem}.jpg", quality=5)
    Image.open(second).save(filtered / f"team_base_{second.stem}.png")
    return originals, filtered


def evaluate(originals, *filtered, out):
    return main(["evaluate", str(originals), *map(str, filtered), "--out", str(out), "--jpeg", "90"])


def test_figures_are_those_of_the_files(folders, tmp_path):
    originals, filtered = folders
    assert evaluate(originals, filtered, out=tmp_path / "out") == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    (figures,) = summary["results"].values()
    assert figures["photos"] == 2
    assert figures["protected_q90"] == 0.5  # the ruined one
    assert summary["settings"]["biqa"] == "bundled"
    rows = list(csv.DictReader((tmp_path / "out" / "images.csv").open()))
    ruined = next(row for row in rows if not row["name"].startswith("team"))
    before, after = (to_float(read(folder / ruined["name"]).pixels)[None] for folder in folders)
    assert float(ruined["psnr"]) == pytest.approx(psnr(before, after).item())
    assert float(ruined["score_filtered_q90"]) < 50 < float(ruined["score_clean_q90"])
    assert Image.open(tmp_path / "out" / "contact_sheet.png").width == 3 * 512


def test_several_folders_stand_beside_each_other(folders, tmp_path, capsys):
    originals, filtered = folders
    assert evaluate(originals, filtered, originals, out=tmp_path / "out") == 0
    results = json.loads((tmp_path / "out" / "summary.json").read_text())["results"]
    assert results[str(originals)]["protected_q90"] == 0
    assert results[str(originals)]["psnr"] == 100
    assert str(originals) in capsys.readouterr().out


def test_what_has_no_partner_or_another_size_is_named_and_the_rest_measured(folders, tmp_path, capsys):
    originals, filtered = folders
    Image.new("RGB", (64, 64)).save(filtered / "stranger.png")
    next(filtered.glob("team_*")).unlink()
    (lost,) = (photo for photo in originals.iterdir() if not (filtered / photo.name).exists())
    assert evaluate(originals, filtered, out=tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert "stranger.png" in told
    assert lost.name in told
    (kept,) = (photo for photo in filtered.iterdir() if photo.name != "stranger.png")
    Image.open(kept).resize((256, 192)).save(kept)
    assert evaluate(originals, filtered, out=tmp_path / "out") == 1
    assert "not the size of its original (512x384 and 256x192)" in capsys.readouterr().err


def test_photos_that_score_low_when_clean_are_left_out_of_the_rate(folders, tmp_path):
    originals, filtered = folders
    ruined = next(photo for photo in filtered.iterdir() if photo.suffix == ".jpg")
    shutil.copy(ruined, originals / ruined.name)
    evaluate(originals, filtered, out=tmp_path / "out")
    (figures,) = json.loads((tmp_path / "out" / "summary.json").read_text())["results"].values()
    assert figures["low_when_clean_q90"] == 1
    assert figures["protected_q90"] == 0  # the other photo was not changed


def test_contact_sheet_shows_the_difference_tenfold():
    from camo.report import SheetRow, contact_sheet

    grey = torch.full((3, 20, 30), 100, dtype=torch.uint8)
    sheet = contact_sheet([SheetRow("a", grey, grey + 5, 60.0, 40.0, 34.2)], "title")
    assert sheet.getpixel((75, 40)) == (178, 178, 178)
    assert sheet.getpixel((15, 40)) == (100, 100, 100)
