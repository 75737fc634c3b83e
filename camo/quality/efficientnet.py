"""The quality model that camo trains itself: EfficientNet-Lite features and a small head, taught by people's opinions."""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from camo import CamoError
from camo.photos.files import atomic_write, reason
from camo.photos.working_size import working_size
from camo.weights import require_finite

BACKBONES = ("efficientnet_lite0", "efficientnet_lite2")


class EfficientNetQuality(nn.Module):
    """EfficientNet-Lite (Liu 2020), batch normalisations folded, and a head on the mean and the deviation of each channel of four stages.

    Shape: (B, 3, H, W) float RGB in [0, 1], any size -> (B,) on 0..100. Images of more than 512x384 pixels of area are first reduced to that area,
    antialiased.

    Args:
        backbone: one of ``BACKBONES``.
    """

    AREA = 512 * 384  # pixels; the size that the model is trained at

    def __init__(self, backbone: str = "efficientnet_lite0") -> None:
        super().__init__()
        import timm  # takes a second, for which no one should wait who only filters

        # Symmetric padding, not TensorFlow's SAME, so that an odd side does not move the stride grid by a pixel.
        self.name = backbone
        network: Any = timm.create_model(backbone, pretrained=False, features_only=True, out_indices=(1, 2, 3, 4)).eval()
        width = 2 * sum(network.feature_info.channels())
        fold_batch_norm(network)
        self.backbone: nn.Module = network
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 1))
        self.to(memory_format=torch.channels_last)

    def features(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float RGB in [0, 1] -> four maps at strides 4, 8, 16 and 32."""
        size = working_size(image.shape[-2], image.shape[-1], self.AREA)
        image = F.interpolate(image, size, mode="bilinear", antialias=True)  # to the same size: exactly the same pixels
        return self.backbone(image * 2 - 1)

    def judge(self, features: list[Tensor]) -> Tensor:
        """The scores that the maps of ``features`` lead to, (B,), computed in float32."""
        pooled = []
        for feature in features:
            variance, mean = torch.var_mean(feature.float(), dim=(2, 3), correction=0)
            pooled += [mean, (variance + 1e-6).sqrt()]
        return 50 + 20 * self.head(torch.cat(pooled, dim=1)).flatten()

    def forward(self, image: Tensor) -> Tensor:
        """Scores: (B, 3, H, W) float RGB in [0, 1] -> (B,), 0..100."""
        return self.judge(self.features(image))


def fold_batch_norm(module: nn.Module) -> None:
    """Fold every batch normalisation into the convolution before it, in place; the activation that timm fuses with it stays.

    The biases that this makes require no gradient.
    """
    previous_name, previous = "", None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(previous, nn.Conv2d):
            setattr(module, previous_name, nn.utils.fuse_conv_bn_eval(previous, child))
            setattr(module, name, getattr(child, "act", nn.Identity()))
        else:
            fold_batch_norm(child)
        previous_name, previous = name, child


def save_quality(path: Path, model: EfficientNetQuality, provenance: dict[str, object]) -> None:
    """Write weights (convolutions in half precision), the backbone's name and ``provenance`` (JSON-able), atomically."""
    tensors = {key: (value.half() if value.ndim > 1 else value.float()).cpu().contiguous() for key, value in model.state_dict().items()}
    header = {"backbone": model.name, "provenance": json.dumps(provenance)}
    with atomic_write(path, overwrite=True) as part:
        part.write_bytes(save(tensors, header))


def load_quality(path: Path) -> EfficientNetQuality:
    """A model that ``save_quality`` wrote, in float32. Raises CamoError for a missing or damaged file, or weights of something else."""
    if not path.is_file():
        raise CamoError(f"{path}: no such file of weights")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (not a dict)
        if header.get("backbone") not in BACKBONES:
            raise CamoError(f"{path}: not a quality model of this version")
        model = EfficientNetQuality(header["backbone"])
        model.load_state_dict(tensors)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise CamoError(f"{path}: not weights of a quality model ({reason(error):.200})") from error
    require_finite(path, tensors)
    return model.eval()
