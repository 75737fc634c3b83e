"""What the tests share: real photos, a small randomised filter, no network, and the cores."""

import os
import socket
from pathlib import Path

# Before torch is imported: the workers of pytest-xdist, and the processes that tests start, have the cores together, not each for itself
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from camo.filter.generator import Filter
from camo.filter.settings import JNDSettings

SAMPLE = Path(__file__).parent.parent / "data" / "sample"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A test that reaches for the outside fails at once; this machine's own address stays open."""
    connect = socket.socket.connect

    def local_only(self, address):
        if self.family != socket.AF_UNIX and address[0] not in {"127.0.0.1", "localhost", "::1"}:
            raise OSError(f"no network in tests: {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture(scope="session")
def photos():
    """Four sample photos as (4, 3, 384, 512) float RGB in [0, 1]: fur, sky, architecture, flowers."""
    files = sorted((SAMPLE / "test").glob("*.jpg"))[::9][:4]
    return torch.stack([pil_to_tensor(Image.open(file).convert("RGB")).float() / 255 for file in files])


@pytest.fixture
def small_filter():
    """A filter of 8 channels with random weights, so that its residual is neither zero nor constant."""
    torch.manual_seed(0)
    model = Filter(width=8, depth=1, jnd=JNDSettings(edges=0.8))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return model.eval()
