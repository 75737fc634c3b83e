"""The filter, or a quality model, as files that run without this package.

- ``filter.ts`` (TorchScript): ``torch.jit.load("filter.ts")(image, strength)``, strength a float, 1.0 where it is left out;
- ``filter.pt2`` (torch.export): ``torch.export.load("filter.pt2").module()(image, torch.tensor(strength))``;
- ``filter.onnx``: inputs ``image`` and ``strength`` (``np.array(strength, np.float32)``), output ``filtered``;
- ``bundled.onnx``, ``koncept512.onnx``: input ``image``, output ``score``, shape (B,).

Images are (B, 3, H, W) float32 RGB in [0, 1], any batch, sides of 16 px or more. The exported filter does what ``infer.py`` does, the second pass
over the centre of large photos included, except that it works on the whole photo at once rather than in strips and leaves the rounding to 8 bits to
its user. Each file holds its provenance as JSON: ``provenance.json`` among the extra files of the first two, ``provenance`` in ONNX's metadata.
A file gets its name only after a fresh process that cannot import camo has run it and its output was that of the eager model.
"""

import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camo import CamoError, __version__
from camo.export.checked import Case, claim, write
from camo.export.formats import onnx, serialized, torchscript, trace
from camo.filter.checkpoint import load_filter, read_provenance
from camo.filter.full_size import FullSize
from camo.filter.generator import Filter
from camo.filter.look_pixels import Looked, LookPixels
from camo.filter.look_settings import LOOKS, LookChoice
from camo.filter.looks import Look
from camo.filter.two_pass import TwoPass
from camo.photos.files import sha256
from camo.photos.images import to_float, to_uint8
from camo.quality import models

FILTER_TOLERANCE = 1 / 255  # one step of an 8-bit file
SCORE_TOLERANCE = 0.05  # points of 100
# What the check runs: the smallest size, sizes below, at and above the 512x384 pixels near which the networks look at photos, and a large photo.
FILTER_CASES = ((1, 16, 16, 1.0), (1, 321, 481, 1.0), (1, 384, 512, 2.0), (2, 427, 640, 0.5), (1, 1100, 800, 1.0))  # batch, height, width, strength
SCORE_CASES = ((1, 321, 481), (2, 384, 512), (1, 387, 515), (1, 600, 901))  # batch, height, width

EXPORTABLE = ("bundled", "koncept512")  # quality models
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class LookedFilter(nn.Module):
    """A look, and then the filter on the photo in this look. Shape: as ``TwoPass``."""

    def __init__(self, look: Look, photo_filter: TwoPass) -> None:
        super().__init__()
        self.looked, self.filter = Looked(look), photo_filter

    def forward(self, image: Tensor, strength: float = 1.0) -> Tensor:
        """Dress a batch up, and filter it; ``strength`` as for the filter."""
        return self.filter(self.looked(image), strength)


def export_filter(checkpoint: Path, out: Path, overwrite: bool = False, choice: LookChoice | None = None) -> None:
    """Write ``filter.ts``, ``filter.pt2`` and, where ONNX's packages are installed, ``filter.onnx`` into ``out``.

    A look that is chosen goes before the filter, into the same files.

    Raises CamoError: a bad checkpoint, a file that exists already or cannot be written, one that fails its check.
    """
    model = load_filter(checkpoint)
    look = Look(LOOKS[choice.name], choice.amount) if choice else None
    both = LookedFilter(look, TwoPass(model)).eval() if look else TwoPass(model).eval()
    provenance = {**origin(checkpoint), "arguments": model.arguments, "training": read_provenance(checkpoint)}
    if choice:
        provenance["look"] = {"name": choice.name, "amount": choice.amount, "numbers": asdict(LOOKS[choice.name])}
    missing = missing_onnx_packages()
    script_path, program_path, onnx_path = targets = [out / f"filter.{suffix}" for suffix in ("ts", "pt2", "onnx")]
    claim(targets[:2] if missing else targets, overwrite)
    cases = filter_cases(model, look)
    write(script_path, torchscript(both, provenance), cases, FILTER_TOLERANCE)
    program = trace(both, image=photo_like(2, 48, 64), strength=torch.tensor(1.0))
    write(program_path, serialized(program, provenance), cases, FILTER_TOLERANCE)
    if missing:
        print(f"{onnx_path} left out: {', '.join(missing)} not installed (pip install {' '.join(ONNX_PACKAGES)})")
    else:
        write(onnx_path, onnx(program, ("image", "strength"), "filtered", provenance), cases, FILTER_TOLERANCE)


def export_biqa(spec: str, out: Path, overwrite: bool = False) -> None:
    """Write the quality model ``bundled`` or ``koncept512[:FILE]`` into ``out``, as ``bundled.onnx`` or ``koncept512.onnx``.

    Raises CamoError: another model, missing weights, ONNX's packages not installed, and what ``export_filter`` raises for files.
    """
    name, weights = spec.partition(":")[0], models.weights_of(spec)
    if name not in EXPORTABLE or weights is None:
        raise CamoError(f"cannot export the quality model {spec!r}: choose bundled or koncept512[:FILE]")
    if missing := missing_onnx_packages():
        raise CamoError(f"--what biqa needs {', '.join(missing)}: pip install {' '.join(ONNX_PACKAGES)}")
    model = models.load(spec)
    path = out / f"{name}.onnx"
    claim([path], overwrite)
    program = trace(model, image=photo_like(2, 48, 64))
    provenance = origin(weights)
    write(path, onnx(program, ("image",), "score", provenance), score_cases(model), SCORE_TOLERANCE)


def missing_onnx_packages() -> list[str]:
    """Those of the packages needed to write and run ONNX files that are not installed."""
    return [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]


def origin(weights: Path) -> dict[str, Any]:
    """Where an exported file comes from: versions, and the weights' file name and SHA-256."""
    return {"camo": __version__, "torch": torch.__version__, "weights": weights.name, "sha256": sha256(weights)}


def photo_like(batch: int, height: int, width: int) -> Tensor:
    """(B, 3, H, W) float32 in [0, 1], always the same: smooth colours from dark to bright under a fine texture."""
    random = torch.Generator().manual_seed(0)
    colours = F.interpolate(torch.rand(batch, 3, 6, 8, generator=random), (height, width), mode="bilinear")
    return 0.8 * colours + 0.2 * torch.rand(batch, 3, height, width, generator=random)


def filter_cases(model: Filter, look: Look | None = None) -> list[Case]:
    """``FILTER_CASES`` and the 8-bit pixels that ``FullSize``, and so ``infer.py``, makes of them."""
    photos = [(to_uint8(photo_like(*size)), strength) for *size, strength in FILTER_CASES]
    dress: nn.Module = LookPixels(look) if look else nn.Identity()
    full_size = FullSize(model)
    return [
        {"image": to_float(photo), "strength": torch.tensor(strength), "expected": full_size(dress(photo), strength)} for photo, strength in photos
    ]


@torch.no_grad()
def score_cases(model: nn.Module) -> list[Case]:
    """``SCORE_CASES`` and the eager model's scores."""
    return [{"image": image, "expected": model(image)} for image in (photo_like(*size) for size in SCORE_CASES)]
