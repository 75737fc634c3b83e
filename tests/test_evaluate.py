import csv
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from camo import biqa, perceptual
from camo.__main__ import main
from camo.evaluate import measure
from camo.images import jpeg_roundtrip, read, to_float
from camo.metrics import psnr, wilson_interval, worst_patch_psnr
from camo.operations import GRID, QUICK
from camo.report import SheetRow, contact_sheet

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


def evaluate(originals, *filtered, out, more=()):
    return main(["evaluate", str(originals), *map(str, filtered), "--out", str(out), "--quick", "--overwrite", *more])


def results(out):
    return json.loads((out / "summary.json").read_text())["results"]


def test_only_some_operations(folders, tmp_path):
    assert main(["evaluate", *map(str, folders), "--out", str(tmp_path / "out"), "--only", "flip"]) == 0
    (figures,) = results(tmp_path / "out").values()
    assert set(figures["operations"]) == {"JPEG 90", "JPEG 75", "flip"}


def test_figures_are_those_of_the_files(folders, tmp_path, capsys):
    originals, filtered = folders
    assert evaluate(originals, filtered, out=tmp_path / "out") == 0
    (figures,) = results(tmp_path / "out").values()
    at90 = figures["operations"]["JPEG 90"]
    assert figures["photos"] == 2
    assert at90["protected"] == at90["accuracy"] == 0.5  # the ruined one
    assert set(figures["operations"]) == set(QUICK)
    rows = list(csv.DictReader((tmp_path / "out" / "images.csv").open()))
    ruined = next(row for row in rows if not row["name"].startswith("team"))
    before, after = (to_float(read(folder / ruined["name"]).pixels)[None] for folder in folders)
    assert float(ruined["psnr"]) == pytest.approx(psnr(before, after).item())
    assert float(ruined["worst_patch_psnr"]) == pytest.approx(worst_patch_psnr(before, after).item())
    assert float(ruined["worst_patch_psnr"]) < float(ruined["psnr"])
    assert int(ruined["largest_change"]) == round(255 * (before - after).abs().max().item())
    scorer = biqa.load("bundled")
    assert float(ruined["filtered JPEG 90"]) == pytest.approx(scorer(jpeg_roundtrip(after, 90)).item(), abs=1e-3)
    assert float(ruined["clean none"]) == pytest.approx(scorer(before).item(), abs=1e-3)
    assert re.search(r"^JPEG 90 +50\.0%", capsys.readouterr().out, re.MULTILINE)


def test_summary_says_with_what_it_was_measured(folders, tmp_path):
    checkpoint = tmp_path / "filter.safetensors"
    checkpoint.write_bytes(b"weights")
    evaluate(*folders, out=tmp_path / "out", more=["--checkpoint", str(checkpoint), "--threshold", "45"])
    settings = json.loads((tmp_path / "out" / "summary.json").read_text())["settings"]
    assert settings["checkpoint_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert (settings["biqa"], settings["threshold"], settings["torch"]) == ("bundled", 45.0, torch.__version__)


def test_figures_are_not_replaced_unasked(folders, tmp_path, capsys):
    (tmp_path / "summary.json").write_text("mine")
    assert main(["evaluate", *map(str, folders), "--out", str(tmp_path), "--quick"]) == 1
    assert "holds figures already" in capsys.readouterr().err
    assert (tmp_path / "summary.json").read_text() == "mine"


def test_the_report_stands_by_itself(folders, tmp_path):
    evaluate(*folders, out=tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r"\$\w", page.split("<script>")[0])
    assert set(re.findall(r'src="(data:image/webp|[^"]{0,20})', page)) == {"data:image/webp"}
    assert not re.search(r'(href|src)="http', page)
    ruined = sorted(SAMPLE.glob("*.jpg"))[0].name
    for expected in (ruined, "50.0%", "resize 0.5 and back", "<svg", 'type="range"', "@media print"):
        assert expected in page
    assert "\\toprule" in (tmp_path / "out" / "table.tex").read_text()
    assert "filtered & 50.0 &" in (tmp_path / "out" / "table.tex").read_text()


def test_several_folders_stand_beside_each_other(folders, tmp_path, capsys):
    originals, filtered = folders
    assert evaluate(originals, filtered, originals, out=tmp_path / "out") == 0
    figures = results(tmp_path / "out")[str(originals)]
    assert figures["operations"]["JPEG 90"]["protected"] == 0
    assert figures["psnr"] == 100
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
    (figures,) = results(tmp_path / "out").values()
    assert figures["operations"]["JPEG 90"]["low_when_clean"] == 1
    assert figures["operations"]["JPEG 90"]["protected"] == 0  # the other photo was not changed


def test_lpips_is_measured_where_its_weights_are_at_hand(tmp_path, monkeypatch):
    from torchvision.models import AlexNet_Weights, alexnet

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert not perceptual.lpips_at_hand("alex")
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(alexnet().state_dict(), tmp_path / "hub" / "checkpoints" / AlexNet_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1])
    assert perceptual.lpips_at_hand("alex")
    photo = sorted(SAMPLE.glob("*.jpg"))[0]
    Image.open(photo).save(tmp_path / "ruined.jpg", quality=5)
    figures = measure(photo, tmp_path / "ruined.jpg", biqa.load("bundled"), ["none"], perceptual.Lpips("alex").network)
    assert figures.lpips > 0


def test_contact_sheet_shows_the_difference_tenfold():
    grey = torch.full((3, 20, 30), 100, dtype=torch.uint8)
    sheet = contact_sheet([SheetRow("a", grey, grey + 5, 60.0, 40.0, 34.2)], "title")
    assert sheet.getpixel((75, 40)) == (178, 178, 178)
    assert sheet.getpixel((15, 40)) == (100, 100, 100)


@pytest.fixture(scope="module")
def photo():
    return Image.open(sorted(SAMPLE.glob("*.jpg"))[0]).convert("RGB")


@pytest.mark.parametrize("name", GRID)
def test_every_operation_gives_an_rgb_picture_and_changes_it_little(name, photo):
    result = GRID[name](photo)
    assert result.mode == "RGB"
    if "shift" in name or "degrees" in name:
        assert 0 < photo.width - result.width < 32
        return
    assert result.size == photo.size
    change = pil_to_tensor(result.convert("L")).int() - pil_to_tensor(photo.convert("L")).int()
    if name == "none":
        assert not change.any()
    elif name != "flip":
        assert 0.2 < change.float().square().mean().sqrt() < 20


def test_operations_are_what_their_names_say(photo):
    assert GRID["flip"](photo).getpixel((0, 0)) == photo.getpixel((511, 0))
    assert GRID["shift by 4 px"](photo).getpixel((0, 0)) == photo.getpixel((4, 4))
    assert all(value % 8 == 0 for value in GRID["5 bits"](photo).getpixel((9, 9)))
    large = photo.resize((3000, 1000))
    assert GRID["at most 2048 px, JPEG 85"](large).size == (2048, 683)
    assert GRID["centre 512x384, JPEG 90"](large).size == (512, 384)
    assert GRID["centre 512x384, JPEG 90"](photo.resize((600, 300))).size == (512, 300)
    chroma = {name: GRID[name](photo).convert("YCbCr").getchannel("Cr") for name in ("JPEG 90", "JPEG 90 4:4:4")}
    assert chroma["JPEG 90"].tobytes() != chroma["JPEG 90 4:4:4"].tobytes()


def test_wilson_interval_of_known_cases():
    assert wilson_interval(0, 0) == (0, 1)
    assert wilson_interval(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)  # Newcombe 1998 gives the same to four places
    assert wilson_interval(32, 32) == pytest.approx((0.8928, 1.0), abs=1e-4)


def test_worst_patch_is_the_worst():
    image = torch.zeros(1, 3, 128, 192)
    changed = image.clone()
    changed[..., 32:96, 64:128] = 0.1
    assert worst_patch_psnr(image, changed).item() == pytest.approx(20, abs=1e-3)
    assert worst_patch_psnr(image[..., :10, :10], image[..., :10, :10] + 0.1).item() == pytest.approx(20, abs=1e-3)
