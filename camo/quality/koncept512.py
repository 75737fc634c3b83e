"""KonCept512, the quality model of the 2020 Pixel Privacy task, with the official weights' layout and pooling."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camo import CamoError
from camo.photos.files import reason
from camo.quality.efficientnet import fold_batch_norm
from camo.weights import USER_CHECKPOINTS, require_finite

WEIGHTS = USER_CHECKPOINTS / "KonCept512.pth"
# Scores that the task's authors published for four KonIQ-10k images, for `score --self-check`.
PUBLISHED = {
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


def _border(length: int) -> Any:
    """Half of the pixels that are missing on an axis, rounded down; half of the excess, as a negative number, rounded to even."""
    missing, excess = torch.sym_max(length, 0), torch.sym_max(-length, 0)
    return missing // 2 - (excess // 2 + excess % 4 // 3)


class KonCept512(nn.Module):
    """KonCept512 (Hosu et al., "KonIQ-10k", IEEE TIP 2020), the quality model of the 2020 Pixel Privacy task.

    Shape: (B, 3, H, W) float RGB in [0, 1] -> (B,). Only the centre 512x384 counts (smaller images are padded with black), and of the last
    feature map (10 high, 14 wide) only the top-left 8x8 cells, because the official network ends in ``AvgPool2d(8)``. Keys are the official ones.
    """

    WINDOW = (384, 512)  # height and width
    SYMMETRIC = False

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
        return self.pool(self.base(centre_crop(image, *self.WINDOW) * 2 - 1)).flatten(1)

    def forward(self, image: Tensor) -> Tensor:
        """Scores: (B, 3, H, W) float RGB in [0, 1] -> (B,), 0..100."""
        return self.fc(self.features(image)).flatten()


def load_koncept512(path: Path = WEIGHTS) -> KonCept512:
    """The model with the weights of a file, in eval mode and channels-last layout, batch normalisations folded into the convolutions before them.

    Raises CamoError for a missing or damaged file, other keys or weights that are not finite.
    """
    if not path.is_file():
        raise CamoError(
            f"{path}: no such file; get KonCept512.pth from the MediaEval 2020 Pixel Privacy task's page"
            f" and put it at {WEIGHTS}, or name it with koncept512:FILE"
        )
    model = KonCept512()
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch.load names no closed set of errors for damaged files
        raise CamoError(f"{path}: not a KonCept512 state dict ({reason(error):.200})") from error
    require_finite(path, model.state_dict())
    model.eval()
    fold_batch_norm(model.base)  # each would keep another map for the way back
    return model.to(memory_format=torch.channels_last)
