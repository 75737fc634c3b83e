"""The 2020 task's own path from the archives to the run's archive, in small: every command of docs/training.md, one after the other."""

import io
import json
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_task import tar_member, write_tar, write_zip
from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

import train
from camo.__main__ import main
from camo.filter.checkpoint import SHIPPED_FILTER, load_filter, read_provenance
from camo.quality.koncept512 import KonCept512

SAMPLE = Path(__file__).parent.parent / "data" / "sample"
CODE = "rtest_base"


def jpeg(photo, size):
    file = io.BytesIO()
    Image.open(photo).resize(size).save(file, "JPEG", quality=95)
    return file.getvalue()


def archives(folder):
    """The official files, with two photos in each set."""
    dev, test = ({photo.name: photo for photo in sorted((SAMPLE / part).glob("*.jpg"))[:2]} for part in ("dev", "test"))
    write_zip(folder / "koniq10k_512x384.zip", [(f"512x384/{name}", photo.read_bytes()) for name, photo in dev.items()])
    write_tar(folder / "val_large.tar", [tar_member(f"val_large/{name}", jpeg(photo, (683, 512))) for name, photo in test.items()])
    rows = "".join(f"{name},70.0,validation\n" for name in dev)
    (folder / "koniq10k_distributions_sets.csv").write_text(f"image_name,MOS,set\n{rows}")
    (folder / "MEPP20test.csv").write_text("".join(f"{name}\n" for name in test))
    (folder / "MEPP20test_manual.csv").write_text(f"{next(iter(test))}\n")
    return [Path(name).stem for name in test]


def koncept512(path):
    """KonCept512 with random weights, scaled so that photos score around 60."""
    torch.manual_seed(0)
    model = KonCept512().eval()
    with torch.no_grad():
        image = torch.rand(1, 3, 384, 512)
        last = model.fc[-1]
        last.weight.mul_(1 / (model(image) - last.bias).abs())
        last.bias.fill_(60.0)
    torch.save(model.state_dict(), path)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_from_the_official_archives_to_a_checked_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    cached = tmp_path / "torch" / "hub" / "checkpoints" / SqueezeNet1_1_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
    cached.parent.mkdir(parents=True)
    torch.save(squeezenet1_1().state_dict(), cached)  # the smallest of LPIPS's trunks, its weights random
    stems = archives(tmp_path)
    koncept512(tmp_path / "KonCept512.pth")
    target = ["--biqa", "koncept512:KonCept512.pth"]

    def run(words):
        assert main([*words.split(), *target] if words.startswith("evaluate") else words.split()) == 0, words

    run("prepare --koniq koniq10k_512x384.zip --koniq-metadata koniq10k_distributions_sets.csv --places val_large.tar --labels . --out data/task")
    few = "--steps 2 --accumulate 2 --batch-size 1 --validate-every 2 --hold-out 2 --workers 0 --perceptual lpips-squeeze --cpu"
    words = ["train.py", "--preset", "task", "--init", str(SHIPPED_FILTER), "--out", "runs/task", *few.split(), *target]
    monkeypatch.setattr(sys, "argv", words)
    assert train.main() == 0
    best = Path("runs/task/best.safetensors")
    assert load_filter(best).arguments == load_filter().arguments | {"gain": 14.0, "coordinates": True}
    settings = read_provenance(best)["settings"]
    assert (settings["preset"], settings["data"], settings["crop_width"]) == ("task", ["data/task/dev"], 512)
    run(f"infer data/task/test --checkpoint {best} --out hidden --run-code {CODE} --device cpu")
    run(f"evaluate data/task/test hidden --checkpoint {best} --only none --out measured --device cpu")
    (figures,) = json.loads(Path("measured/summary.json").read_text())["results"].values()
    assert figures["photos"] == 2
    assert 37 < figures["psnr"] < 60
    run(f"package hidden --run-code {CODE} --originals data/task/test --out runs/submission")
    run(f"package --check runs/submission/{CODE}.zip --originals data/task/test")
    with zipfile.ZipFile(f"runs/submission/{CODE}.zip") as archive:
        assert sorted(archive.namelist()) == sorted(f"{CODE}_{stem}.png" for stem in stems)
