"""Frozen blind image quality (BIQA) models.

One interface: a module that maps (B, 3, H, W) float RGB in [0, 1] to (B,) float scores on the scale 0..100, higher is better, as the model gives
them (not clamped). Differentiable with respect to the image; parameters frozen; always in eval mode. Preprocessing sits inside each model.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from camo import CamoError
from camo.photos.working_size import working_size
from camo.weights import CHECKPOINTS, USER_CHECKPOINTS, require_finite

THRESHOLD = 50.0  # the 2020 task calls an image "high quality" above this score
BUNDLED_WEIGHTS = CHECKPOINTS / "biqa_lite0.safetensors"
KONCEPT512_WEIGHTS = USER_CHECKPOINTS / "KonCept512.pth"
# Scores that the task's authors published for four KonIQ-10k images, for `score --self-check`.
KONCEPT512_PUBLISHED = {
    "10990887046.jpg": 58.59065,
    "11396447303.jpg": 67.12537,
    "107505789.jpg": 57.88757,
    "10692667386.jpg": 65.55704,
}


def centre_crop(image: Tensor, height: int, width: int) -> Tensor:
    """The centre of an image, padded with black where the image is smaller. Shape: (B, 3, H, W) -> (B, 3, height, width).

    Pixel for pixel torchvision's ``center_crop``, but without a branch on the size, so that torch.export and ONNX carry it for any image.
    """
    top, left = _border(height - image.shape[-2]), _border(width - image.shape[-1])
    return F.pad(image, (left, width - image.shape[-1] - left, top, height - image.shape[-2] - top))  # a negative border cuts


def _border(missing: int) -> int:
    """Half of the pixels that are missing on an axis, rounded down; half of the excess, as a negative number, rounded to even."""
    missing, excess = torch.sym_max(missing, 0), torch.sym_max(-missing, 0)
    return missing // 2 - (excess // 2 + excess % 4 // 3)


class KonCept512(nn.Module):
    """KonCept512 (Hosu et al., "KonIQ-10k", IEEE TIP 2020), the quality model of the 2020 Pixel Privacy task.

    Shape: (B, 3, H, W) float RGB in [0, 1] -> (B,). Only the centre 512x384 counts (smaller images are padded with black), and of the last
    feature map (10 high, 14 wide) only the top-left 8x8 cells, because the official network ends in ``AvgPool2d(8)``. Keys are the official ones.
    """

    def __init__(self) -> None:
        super().__init__()
        import timm  # takes a second, for which no one should wait who only filters

        network = timm.create_model("inception_resnet_v2", pretrained=False, num_classes=0)
        children = dict(network.named_children())
        names = list(children)
        self.base = nn.Sequential(*(children[name] for name in names[: names.index("conv2d_7b") + 1]))
        self.pool = nn.AvgPool2d(8, count_include_pad=False)
        self.fc = nn.Sequential(
            *(nn.Linear(1536, 2048), nn.ReLU(), nn.BatchNorm1d(2048), nn.Dropout(0.25)),
            *(nn.Linear(2048, 1024), nn.ReLU(), nn.BatchNorm1d(1024), nn.Dropout(0.25)),
            *(nn.Linear(1024, 256), nn.ReLU(), nn.BatchNorm1d(256), nn.Dropout(0.5)),
            nn.Linear(256, 1),
        )

    def features(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) float RGB in [0, 1] -> (B, 1536), the pooled features that the head sees."""
        return self.pool(self.base(centre_crop(image, 384, 512) * 2 - 1)).flatten(1)

    def forward(self, image: Tensor) -> Tensor:
        """Scores: (B, 3, H, W) float RGB in [0, 1] -> (B,), 0..100."""
        return self.fc(self.features(image)).flatten()


class BundledQuality(nn.Module):
    """The embedded stand-in: EfficientNet-Lite0 features (Liu 2020) and a small head, trained on pseudo-labels by ``camo.quality.training``.

    It is not the task's model: its labels come from a full-reference metric on synthetic distortions, not from people.

    Shape: (B, 3, H, W) float RGB in [0, 1], any size -> (B,). Images of more than 512x384 pixels of area are first reduced to that area, antialiased.
    """

    AREA = 512 * 384  # pixels; the size that the model was trained near

    def __init__(self) -> None:
        super().__init__()
        import timm

        # Symmetric padding, not TensorFlow's SAME, so that an odd side does not move the stride grid by a pixel.
        self.backbone = timm.create_model("efficientnet_lite0", pretrained=False, features_only=True, out_indices=(1, 2, 3, 4))
        width = 2 * sum(self.backbone.feature_info.channels())
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 1))

    def features(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float RGB in [0, 1] -> four maps at strides 4, 8, 16 and 32 with 24, 40, 112 and 320 channels."""
        size = working_size(image.shape[-2], image.shape[-1], self.AREA)
        image = F.interpolate(image, size, mode="bilinear", antialias=True)  # to the same size: exactly the same pixels
        return self.backbone(image * 2 - 1)

    def forward(self, image: Tensor) -> Tensor:
        """Scores: (B, 3, H, W) float RGB in [0, 1] -> (B,), 0..100."""
        pooled = []
        for feature in self.features(image):
            variance, mean = torch.var_mean(feature.float(), dim=(2, 3), correction=0)
            pooled += [mean, (variance + 1e-6).sqrt()]
        return 50 + 20 * self.head(torch.cat(pooled, dim=1)).flatten()


class Frozen(nn.Module):
    """A quality model that cannot be trained: parameters frozen, eval mode whatever ``train()`` asks for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
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
    """Load a frozen quality model: ``bundled``, ``koncept512``, ``koncept512:FILE`` or a TorchScript ``FILE.ts``.

    Raises CamoError when the name is unknown, the file is missing or damaged, its keys do not match, its weights are not finite, or a scorer breaks
    the interface.
    """
    if spec == "bundled":
        model: nn.Module = load_bundled()
    elif spec.split(":", 1)[0] == "koncept512":
        model = _load_koncept512(Path(spec.split(":", 1)[1]) if ":" in spec else KONCEPT512_WEIGHTS)
    elif spec.endswith(".ts"):
        model = _load_torchscript(Path(spec))
    else:
        raise CamoError(f"unknown quality model {spec!r}: choose bundled, koncept512, koncept512:FILE or FILE.ts")
    return Frozen(model).to(device)


def require_gradient(scorer: nn.Module, device: torch.device | str = "cpu") -> None:
    """Raise CamoError where a scorer's score does not depend on the image in a way to train with: it detaches, rounds or fails backwards."""
    image = _probe_images()[1:2].to(device).requires_grad_()
    try:
        (slope,) = torch.autograd.grad(scorer(image).sum(), image)
    except RuntimeError as error:
        raise CamoError(f"the quality model gives no gradient to train with ({_first_line(error)})") from error
    if not slope.any():
        raise CamoError("the quality model gives no gradient to train with (it is zero everywhere)")


def load_bundled(path: Path = BUNDLED_WEIGHTS) -> BundledQuality:
    """The bundled model in float32, its batch normalisations folded into the convolutions (same scores, less time).

    Raises CamoError for a missing or damaged file, other keys or weights that are not finite.
    """
    model = BundledQuality().eval()
    if not path.is_file():
        raise CamoError(f"{path}: the bundled quality model's weights are missing; install camo again, or fetch them again with the clone")
    try:
        model.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    except (SafetensorError, RuntimeError) as error:
        raise CamoError(f"{path}: not weights of the bundled quality model ({_first_line(error)})") from error
    require_finite(path, model.state_dict())
    fold_batch_norm(model.backbone)
    return model.to(memory_format=torch.channels_last)


def fold_batch_norm(module: nn.Module) -> None:
    """Fold every batch normalisation into the convolution before it, in place; the activation that timm fuses with it stays."""
    previous_name, previous = "", None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(previous, nn.Conv2d):
            setattr(module, previous_name, nn.utils.fuse_conv_bn_eval(previous, child))
            setattr(module, name, getattr(child, "act", nn.Identity()))
        else:
            fold_batch_norm(child)
        previous_name, previous = name, child


def _load_koncept512(path: Path) -> KonCept512:
    if not path.is_file():
        raise CamoError(
            f"{path}: no such file; get KonCept512.pth from the MediaEval 2020 Pixel Privacy task's page"
            f" and put it at {KONCEPT512_WEIGHTS}, or name it with koncept512:FILE"
        )
    model = KonCept512()
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch.load names no closed set of errors for damaged files
        raise CamoError(f"{path}: not a KonCept512 state dict ({_first_line(error)})") from error
    require_finite(path, model.state_dict())
    return model.to(memory_format=torch.channels_last)


def _load_torchscript(path: Path) -> nn.Module:
    if not path.is_file():
        raise CamoError(f"{path}: no such file")
    probes = _probe_images()
    try:
        model = torch.jit.load(path, map_location="cpu").eval()
        scores = model(probes)
    except Exception as error:  # a foreign file fails in any way, at loading or when it runs
        raise CamoError(f"{path}: does not load or run as a TorchScript scorer ({_first_line(error)})") from error
    if not isinstance(scores, Tensor) or scores.shape != (len(probes),):
        seen = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise CamoError(f"{path}: a scorer maps (B, 3, H, W) to (B,); for B = {len(probes)} it gave {seen}")
    values = ", ".join(f"{score:.4g}" for score in scores.tolist())
    if not scores.isfinite().all() or scores.min() < -50 or scores.max() > 150 or scores.abs().max() <= 1:
        raise CamoError(f"{path}: scores should be on the scale 0..100; three test patterns scored {values}")
    return model


def _probe_images() -> Tensor:
    """Three patterns (smooth, textured, noisy) at 512x384: a scorer on the scale 0..1 stays within it on all of them."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 384), torch.linspace(0, 1, 512), indexing="ij")
    smooth = torch.stack([rows, columns, 1 - rows])
    textured = (0.5 + 0.3 * torch.sin(60 * rows) * torch.sin(80 * columns)).expand(3, -1, -1)
    noisy = torch.rand(3, 384, 512, generator=torch.Generator().manual_seed(0))
    return torch.stack([smooth, textured, noisy])


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if len(lines) < 2 else " ".join(lines[:2]))[:200] if lines else type(error).__name__
