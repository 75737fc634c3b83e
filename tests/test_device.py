"""Which device a network runs on."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from camo import CamoError
from camo.__main__ import main
from camo.device import choose, device_of
from camo.quality import agreement, models

SAMPLE = str(Path(__file__).parent.parent / "data" / "sample" / "test")


@pytest.mark.parametrize("name", ["abacus", "", "cuda:99", "hpu", "meta", "xla"])
def test_a_device_that_cannot_be_used_is_refused_in_one_line(name):
    with pytest.raises(CamoError, match=f"^--device {name}: cannot be used: [^\n]+$"):
        choose(name)


def test_the_device_of_a_module_is_that_of_its_parameters_else_of_its_buffers():
    with_buffer = nn.Module()
    with_buffer.register_buffer("mean", torch.zeros(3, device="meta"))
    modules = [nn.Sequential(nn.ReLU(), nn.Linear(2, 2, device="meta")), with_buffer, nn.ReLU()]
    assert [device_of(module).type for module in modules] == ["meta", "meta", "cpu"]


@pytest.mark.parametrize("words", [["score", SAMPLE], ["evaluate", SAMPLE, SAMPLE, "--out", "out"], ["compare", SAMPLE, "--out", "out"], []])
def test_every_command_that_scores_uses_the_gpu_unless_told_otherwise(monkeypatch, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", lambda size, device: SimpleNamespace(device=device, item=lambda: 0.0))  # what a device is tried with
    (tmp_path / "opinions.csv").write_text("name,score\na,50\n")
    monkeypatch.setattr(sys, "argv", ["agreement", "--opinions", "opinions.csv", "--photos", "."])
    chosen = []

    def load(spec, device):
        chosen.append(device)
        raise CamoError("seen enough")

    monkeypatch.setattr(models, "load", load)
    assert (main([*words, "--methods", "filter"] if words[:1] == ["compare"] else words) if words else agreement.main()) == 1
    assert chosen == [torch.device("cuda")]
