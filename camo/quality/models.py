"""Frozen blind image quality models, and how a word names one.

One interface: a module that maps (B, 3, H, W) float RGB in [0, 1] to (B,) float scores on the scale 0..100, higher is better, as the model gives
them (not clamped). Differentiable with respect to the image; parameters frozen; always in eval mode. Preprocessing sits inside each model.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from camo import CamoError
from camo.photos.files import reason
from camo.quality import koncept512
from camo.quality.efficientnet import EfficientNetQuality, load_quality
from camo.quality.koncept512 import KonCept512, load_koncept512
from camo.quality.pyiqa_model import load_pyiqa
from camo.quality.torchscript import load_torchscript, probe_images
from camo.weights import CHECKPOINTS

THRESHOLD = 50.0  # the 2020 task calls an image "high quality" above this score
BUNDLED_WEIGHTS = CHECKPOINTS / "quality.safetensors"


class Frozen(nn.Module):
    """A quality model that cannot be trained: parameters frozen, eval mode whatever ``train()`` asks for.

    Attributes:
        looks_at: what of a photo the model sees, in words.
        window: height and width below which it pads an image with black.
        symmetric: whether the left and the right half of an image count alike. A model of which this is not true says so in an attribute
            ``SYMMETRIC``; training then shows it no mirrored photos.
    """

    def __init__(self, model: nn.Module, looks_at: str, window: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.model, self.looks_at, self.window = model, looks_at, window
        self.symmetric = bool(getattr(model, "SYMMETRIC", True))
        for parameter in model.parameters():  # a ScriptModule has no requires_grad_ of its own
            parameter.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "Frozen":
        """Stay in eval mode: dropout or batch statistics would make scores random or depend on the batch."""
        return super().train(False)

    def forward(self, image: Tensor) -> Tensor:
        """Scores: (B, 3, H, W) float RGB in [0, 1] -> (B,), 0..100. Raises ValueError for another shape."""
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"expected (B, 3, H, W), got {tuple(image.shape)}")
        return self.model(image)


def load(spec: str, device: torch.device | str = "cpu") -> Frozen:
    """Load a frozen quality model.

    Args:
        spec: ``bundled``; ``koncept512`` or ``koncept512:FILE``; ``FILE.safetensors``, written by ``camo.quality.training``; ``FILE.ts``, a
            TorchScript scorer, whose code is run; or ``pyiqa:NAME``.
        device: where it runs.

    Raises CamoError when the name is unknown, a file is missing or damaged, its keys do not match, its weights are not finite, or a scorer breaks the
    interface.
    """
    kind, _, rest = spec.partition(":")
    reduced = "the whole photo, reduced to the area of 512x384 px"
    if spec == "bundled":
        frozen = Frozen(load_bundled(), reduced)
    elif spec.endswith(".safetensors"):
        frozen = Frozen(load_quality(Path(spec)), reduced)
    elif kind == "koncept512":
        model = load_koncept512(weights_of(spec) or koncept512.WEIGHTS)
        frozen = Frozen(model, "the centre 512x384 px, at full resolution", KonCept512.WINDOW)
    elif kind == "pyiqa" and rest:
        frozen = Frozen(load_pyiqa(rest), "what pyiqa's model decides")
    elif spec.endswith(".ts"):
        frozen = Frozen(load_torchscript(Path(spec)), "what the TorchScript file decides")
    else:
        raise CamoError(f"unknown quality model {spec!r}: choose bundled, koncept512, koncept512:FILE, pyiqa:NAME, FILE.safetensors or FILE.ts")
    return frozen.to(device)


def weights_of(spec: str) -> Path | None:
    """The file that ``load`` reads the weights of a quality model from; None for a pyiqa model, which keeps its own."""
    kind, _, rest = spec.partition(":")
    if spec == "bundled":
        return BUNDLED_WEIGHTS
    if kind == "koncept512":
        return Path(rest) if rest else koncept512.WEIGHTS
    return None if kind == "pyiqa" else Path(spec)


def load_bundled() -> EfficientNetQuality:
    """The model that comes with the project, in float32. Raises CamoError for a missing or damaged file."""
    return load_quality(BUNDLED_WEIGHTS)


def require_gradient(scorer: nn.Module, name: str, device: torch.device | str = "cpu") -> None:
    """Raise CamoError, which names the scorer, where its score gives no gradient to train with: it detaches, rounds or fails backwards."""
    image = probe_images()[1:2].to(device).requires_grad_()
    try:
        (gradient,) = torch.autograd.grad(scorer(image).sum(), image)
    except RuntimeError as error:
        raise CamoError(f"{name}: the quality model gives no gradient to train with ({reason(error):.200})") from error
    if not gradient.any():
        raise CamoError(f"{name}: the quality model gives no gradient to train with (it is zero everywhere)")
