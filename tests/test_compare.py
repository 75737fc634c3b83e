import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from camo.__main__ import main
from camo.compare import METHODS, at_distortion
from camo.images import to_float, to_uint8
from camo.metrics import psnr

SAMPLE = Path(__file__).parent.parent / "data" / "sample" / "test"


@pytest.fixture
def folder(tmp_path):
    """Two small photos of different size."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for photo, size in zip(sorted(SAMPLE.glob("*.jpg")), [(128, 96), (112, 96)], strict=False):
        Image.open(photo).resize(size).save(photos / f"{photo.stem}.png")
    return photos


FAST = ["--steps", "2", "--cw-max-iterations", "2", "--cw-binary-search-steps", "2"]


def test_every_method_in_one_run(folder, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["compare", str(folder), "--out", str(out), "--dev", str(folder), "--through-jpeg", "90", "--cw-targets", "50", "30", *FAST]
    assert main(words) == 0
    rows = {row["method"]: row for row in json.loads((out / "compare.json").read_text())["rows"]}
    plain = [name for name in rows if "at the" not in name]
    assert plain[0] == "filter"
    assert {name.split()[0] for name in plain} == set(METHODS)
    assert {"cw 50", "cw 30", "cw 50 through JPEG 90", "cw-jnd 50", "adam through JPEG 90", "color"} <= set(plain)
    for name in plain[1:]:
        assert rows[f"{name} at the filter's PSNR"]["photos"] == 2
    assert len(list((out / "cw-50-through-JPEG-90").glob("*.png"))) == 2
    assert rows["pgd"]["largest_change"] <= 4
    assert [row["method"] for row in csv.DictReader((out / "table.csv").open())] == list(rows)
    assert (out / "plot.svg").read_text().count("<circle") == len(plain)
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 2


def test_the_filter_is_what_infer_writes(folder, tmp_path):
    import infer

    main(["compare", str(folder), "--methods", "filter", "--out", str(tmp_path / "out")])
    infer.main([str(folder), "--out", str(tmp_path / "inferred")])
    for photo in folder.iterdir():
        compared, inferred = (Image.open(tmp_path / place / photo.name).tobytes() for place in ("out/filter", "inferred"))
        assert compared == inferred


def test_another_generator_stands_beside_the_filter(folder, tmp_path):
    from camo.checkpoint import SHIPPED_FILTER

    shutil.copy(SHIPPED_FILTER, tmp_path / "again.safetensors")
    words = ["compare", str(folder), "--methods", "filter", "--generator", f"again={tmp_path / 'again.safetensors'}", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    first, again, scaled = json.loads((tmp_path / "out" / "compare.json").read_text())["rows"]
    assert (again["psnr"], again["operations"]) == (first["psnr"], first["operations"])
    assert scaled["psnr"] == pytest.approx(first["psnr"], abs=0.1)


def test_changes_are_scaled_to_the_wanted_psnr(photos):
    noise = 0.002 * torch.randn(photos.shape, generator=torch.Generator().manual_seed(0))
    scaled = at_distortion(list(photos), list((photos + noise).clamp(0, 1)), 38.0)
    reached = torch.cat([psnr(a[None], to_float(to_uint8(b))[None]) for a, b in zip(photos, scaled, strict=True)]).mean().item()
    assert reached == pytest.approx(38.0, abs=0.15)


@pytest.mark.parametrize("wanted", [36.0, 39.0, 45.0])
def test_a_change_of_whole_steps_can_be_scaled_too(photos, wanted):
    images = 0.1 + 0.8 * photos[:2]
    steps = torch.randint(0, 2, images.shape, generator=torch.Generator().manual_seed(1)) * 4 - 2
    changed = to_float(to_uint8(images)) + steps / 255
    scaled = torch.stack(at_distortion(list(to_float(to_uint8(images))), list(changed), wanted))
    assert psnr(to_float(to_uint8(images)), scaled).mean().item() == pytest.approx(wanted, abs=0.1)
    assert torch.equal(scaled, to_float(to_uint8(scaled)))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--generator", "mine"], "mine: should be NAME=FILE"),
        (["--generator", "mine=nowhere.safetensors"], "nowhere.safetensors: no such checkpoint"),
        (["--biqa", "other"], "unknown quality model"),
    ],
)
def test_faults_are_one_line(folder, tmp_path, capsys, words, told):
    assert main(["compare", str(folder), "--out", str(tmp_path / "out"), "--methods", "filter", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_a_bad_photo_is_told_and_the_others_compared(folder, tmp_path, capsys):
    (folder / "bad.png").write_bytes(b"nothing")
    assert main(["compare", str(folder), "--methods", "filter", "--out", str(tmp_path / "out")]) == 1
    assert "bad.png" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["rows"][0]["photos"] == 2


def test_results_are_not_replaced_unasked(folder, tmp_path, capsys):
    (tmp_path / "compare.json").write_text("mine")
    assert main(["compare", str(folder), "--methods", "filter", "--out", str(tmp_path)]) == 1
    assert "holds results already" in capsys.readouterr().err
    assert (tmp_path / "compare.json").read_text() == "mine"
