"""A quality model of the user's own, as a TorchScript file. Loading one runs the code inside it: load only files that you trust."""

from pathlib import Path

import torch
from torch import Tensor, nn

from camo import CamoError
from camo.photos.files import reason


def load_torchscript(path: Path) -> nn.Module:
    """The scorer in a file, (B, 3, H, W) float RGB in [0, 1] -> (B,) on 0..100, tried on three test patterns.

    Raises CamoError where the file is missing, does not load or run, or its scores have another shape or scale.
    """
    if not path.is_file():
        raise CamoError(f"{path}: no such file")
    probes = probe_images()
    try:
        model = torch.jit.load(path, map_location="cpu").eval()
        scores = model(probes)
    except Exception as error:  # a foreign file fails in any way, when it is loaded or when it runs
        raise CamoError(f"{path}: does not load or run as a TorchScript scorer ({reason(error):.200})") from error
    if not isinstance(scores, Tensor) or scores.shape != (len(probes),):
        seen = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise CamoError(f"{path}: a scorer maps (B, 3, H, W) to (B,); for B = {len(probes)} it gave {seen}")
    values = ", ".join(f"{score:.4g}" for score in scores.tolist())
    if not scores.isfinite().all() or scores.min() < -50 or scores.max() > 150 or scores.abs().max() <= 1:
        raise CamoError(f"{path}: scores should be on the scale 0..100; three test patterns scored {values}")
    return model


def probe_images() -> Tensor:
    """Three patterns (smooth, textured, noisy) at 512x384: a scorer on the scale 0..1 stays within it on all of them."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 384), torch.linspace(0, 1, 512), indexing="ij")
    smooth = torch.stack([rows, columns, 1 - rows])
    textured = (0.5 + 0.3 * torch.sin(60 * rows) * torch.sin(80 * columns)).expand(3, -1, -1)
    noisy = torch.rand(3, 384, 512, generator=torch.Generator().manual_seed(0))
    return torch.stack([smooth, textured, noisy])
