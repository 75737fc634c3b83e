from pathlib import Path

import torch
from PIL import Image

from camo.measure.figures import Evaluator
from camo.quality import models
from camo.training import perceptual

SAMPLE = Path(__file__).parent.parent / "data" / "sample" / "test"


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
    evaluator = Evaluator({"bundled": models.load("bundled")}, ["none"], perceptual.Lpips("alex").network)
    figures = evaluator.measure(photo, tmp_path / "ruined.jpg")
    assert figures.lpips > 0
