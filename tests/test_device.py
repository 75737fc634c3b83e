"""Which device a network runs on."""

import pytest
import torch
from torch import nn

from camo import CamoError
from camo.device import choose, device_of


@pytest.mark.parametrize("name", ["abacus", "", "cuda:99", "hpu", "meta", "xla"])
def test_a_device_that_cannot_be_used_is_refused_in_one_line(name):
    with pytest.raises(CamoError, match=f"^--device {name}: cannot be used: [^\n]+$"):
        choose(name)


def test_the_device_of_a_module_is_that_of_its_parameters_else_of_its_buffers():
    with_buffer = nn.Module()
    with_buffer.register_buffer("mean", torch.zeros(3, device="meta"))
    modules = [nn.Sequential(nn.ReLU(), nn.Linear(2, 2, device="meta")), with_buffer, nn.ReLU()]
    assert [device_of(module).type for module in modules] == ["meta", "meta", "cpu"]
