"""Which device a network runs on."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from camo import CamoError
from camo.__main__ import main
from camo.device import LAUNCHER_VARIABLES, choose, device_of
from camo.quality import agreement, models

SAMPLE = str(Path(__file__).parent.parent / "data" / "sample" / "test")


@pytest.fixture
def two_gpus(monkeypatch):
    """As if this machine had two GPUs."""
    zeros = torch.zeros

    class OnGpu:
        def __init__(self, device):
            self.device = torch.device("cuda", device.index or 0)

        def item(self):
            return 0.0

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "zeros", lambda size, device: OnGpu(device) if device.type == "cuda" else zeros(size, device=device))


def launch(monkeypatch, local_rank):
    for name, value in zip(LAUNCHER_VARIABLES, ("5", "8", str(local_rank), "127.0.0.1", "29500"), strict=True):
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("name", [None, "cuda"])
def test_each_process_of_a_group_gets_its_own_gpu(monkeypatch, two_gpus, name):
    assert choose(name) == torch.device("cuda", 0)
    chosen = []
    for local_rank in range(4):
        launch(monkeypatch, local_rank)
        chosen.append(choose(name).index)
    assert chosen == [0, 1, 0, 1]  # more processes than GPUs share them


def test_an_index_is_what_it_says_and_a_variable_left_behind_counts_for_nothing(monkeypatch, two_gpus):
    launch(monkeypatch, 1)
    assert (choose("cuda:0"), choose("cpu")) == (torch.device("cuda", 0), torch.device("cpu"))
    monkeypatch.delenv("MASTER_PORT")
    assert choose("cuda") == torch.device("cuda", 0)


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
def test_every_command_that_scores_uses_the_gpu_unless_told_otherwise(monkeypatch, tmp_path, two_gpus, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "opinions.csv").write_text("name,score\na,50\n")
    monkeypatch.setattr(sys, "argv", ["agreement", "--opinions", "opinions.csv", "--photos", "."])
    chosen = []

    def load(spec, device):
        chosen.append(device)
        raise CamoError("seen enough")

    monkeypatch.setattr(models, "load", load)
    assert (main([*words, "--methods", "filter"] if words[:1] == ["compare"] else words) if words else agreement.main()) == 1
    assert chosen == [torch.device("cuda", 0)]
