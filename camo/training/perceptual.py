"""Perceptual terms of the objective: how visible the change is. One of them compares deep features: of the bundled model, or as LPIPS does."""

import warnings
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d, spatial_gradient
from torch import Tensor, nn

from camo import CamoError
from camo.filter.jnd import JustNoticeableDifference
from camo.measure.metrics import MSE_40_DB, patch_errors
from camo.measure.regularity import SILENT, WINDOW, coherence, flat_windows, line_share
from camo.quality.models import load_bundled

CHOICES = ("offline", "lpips-alex", "lpips-vgg", "lpips-squeeze", "none")


def pixel_error(original: Tensor, filtered: Tensor) -> Tensor:
    """Squared error, in units of that at 40 dB: the root mean square over 64x64 px patches, so that a bad patch counts more than its area.

    Shape: two (B, 3, H, W) float RGB in [0, 1] -> scalar; a change spread evenly gives its plain mean squared error.
    """
    return patch_errors(original, filtered).square().mean().sqrt() / MSE_40_DB


class Lpips(nn.Module):
    """Learned perceptual image patch similarity (Zhang et al., CVPR 2018), package ``lpips``.

    Its trunk's ImageNet weights come from the torch hub cache or are fetched there. Raises CamoError where neither works.
    """

    # Reasoned, not tuned, for lack of the trunks' weights: distances of changes this small are some hundredths, and the term should be some tenths,
    # as the one that it replaces.
    WEIGHT = 10.0

    def __init__(self, net: str) -> None:
        super().__init__()
        import lpips  # takes seconds; only this choice pays for it

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # its use of torchvision's old arguments
                self.network = lpips.LPIPS(net=net, verbose=False).requires_grad_(False).eval()
        except (URLError, OSError, RuntimeError) as error:
            raise CamoError(
                f"lpips-{net}: the trunk's ImageNet weights are neither in {torch.hub.get_dir()}/checkpoints nor can they be fetched ({error});"
                " use --perceptual offline, which needs no download"
            ) from error

    def forward(self, original: Tensor, filtered: Tensor) -> dict[str, Tensor]:
        """Shape: two (B, 3, H, W) float RGB in [0, 1] -> {"lpips": weighted scalar}."""
        return {"lpips": self.WEIGHT * self.network(original, filtered, normalize=True).mean()}


def lpips_at_hand(net: str) -> bool:
    """Whether the trunk's weights are in the torch hub cache, so that ``Lpips`` need not fetch them."""
    from torchvision import models

    weights = {"alex": models.AlexNet_Weights, "vgg": models.VGG16_Weights, "squeeze": models.SqueezeNet1_1_Weights}[net]
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.IMAGENET1K_V1.url).name).is_file()


class EarlyFeatures(nn.Module):
    """Distance of early features of the bundled backbone (strides 4 and 8) at half resolution, each cell's vector normalised as in LPIPS.

    Later ones are what the filter has to change when the bundled model is its target. Nothing needs to be downloaded.
    """

    WEIGHT = 10.0

    def __init__(self, bundled: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone: Any = (bundled or load_bundled()).requires_grad_(False).eval()

    def forward(self, original: Tensor, filtered: Tensor) -> dict[str, Tensor]:
        """Shape: two (B, 3, H, W) float RGB in [0, 1] -> {"features": weighted scalar}."""
        with torch.no_grad():
            wanted = self._early(original)
        distances = [(a - b).square().sum(1).mean() for a, b in zip(wanted, self._early(filtered), strict=True)]
        return {"features": self.WEIGHT * torch.stack(distances).mean()}

    def _early(self, image: Tensor) -> list[Tensor]:
        return [F.normalize(map_.float(), dim=1) for map_ in self.backbone.features(F.avg_pool2d(image, 2))[:2]]


class Visibility(nn.Module):
    """Error of the pixels, multi-scale SSIM, a distance of deep features, the residual in JND units, and how much of it exceeds one JND after the
    blur of the eye.

    With that blur a pattern whose period is two or three pixels costs nothing, while a coarser one, as on a sky, would be visible and does. It is the
    Gaussian for luminance of FLIP (Andersson et al., "FLIP: a difference evaluator for alternating images", HPG 2020) at 67 px per degree.
    On smooth ground lines are seen before grain is, so the residual's strongest line counts there, and how far it consists of short ones.
    A residual that varies along a strong edge turns it into a comb, which is seen however much contrast there is across it; so at straight edges, as
    the JND finds them, the residual's slope along the edge counts.

    Args:
        deep: (original, filtered) -> named, weighted distances of deep features.
    """

    SSIM_WEIGHT, JND_WEIGHT, SEEN_WEIGHT = 40.0, 0.5, 12.0
    REGULARITY_WEIGHT, COHERENCE_WEIGHT, COMB_WEIGHT = 12.0, 240.0, 24.0
    GRAIN, UNEVEN = 0.08, 24.0  # share of the strongest line in grain; deviation, of 255, of a ground that hardly counts
    COHERENT = 0.18  # between white noise and coarse grain
    TOOTH = 4.0  # of 255 per px: slope of the residual along an edge that counts 1
    BLUR = 1.03  # px, standard deviation
    SCALES = (0.4, 0.35, 0.25)  # weights of full, half and quarter resolution, in luminance

    def __init__(self, deep: nn.Module) -> None:
        super().__init__()
        self.deep = deep
        self.jnd = JustNoticeableDifference()

    def forward(self, original: Tensor, filtered: Tensor) -> dict[str, Tensor]:
        """The weighted terms "pixels", "ms_ssim", those of ``deep``, "jnd", "regularity", "coherence", "combs" and "seen".

        Shape: two (B, 3, H, W) float RGB in [0, 1] -> scalars by name.
        """
        with torch.no_grad():
            units = self.jnd(original)
        regularity, coherent = self._regularity(original, filtered - original)
        return {
            "pixels": pixel_error(original, filtered),
            "ms_ssim": self.SSIM_WEIGHT * self._ms_ssim(original, filtered),
            **self.deep(original, filtered),
            "jnd": self.JND_WEIGHT * ((filtered - original) / units).square().mean(),
            "regularity": self.REGULARITY_WEIGHT * regularity,
            "coherence": self.COHERENCE_WEIGHT * coherent,
            "combs": self.COMB_WEIGHT * self._combs(original, filtered - original),
            "seen": self.SEEN_WEIGHT * F.relu(self._blurred(filtered - original).abs() / units - 1).square().mean(),
        }

    def _blurred(self, residual: Tensor) -> Tensor:
        luminance = (residual * self.jnd.luma).sum(1, keepdim=True)
        return gaussian_blur2d(luminance, (9, 9), (self.BLUR, self.BLUR))

    def _regularity(self, original: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Means over windows of how far the residual's strongest line, and its coherence, exceed those of grain.

        The flatter the ground, the more the line counts; the more of the filtered photo's slopes are the residual's, the more the coherence.
        """
        if min(original.shape[-2:]) < WINDOW:
            return residual.new_zeros(()), residual.new_zeros(())
        share, deviation = line_share(residual)
        coherent, slopes = coherence(residual)
        seen, hidden = deviation.detach() > SILENT, coherence(original)[1]
        flatness = torch.exp(-flat_windows(original)[1] / self.UNEVEN)
        shown = slopes.square() / (slopes.square() + hidden.square() + 1e-6)
        return (F.relu(share - self.GRAIN) * flatness * seen).mean(), (F.relu(coherent - self.COHERENT) * shown * seen).mean()

    def _combs(self, original: Tensor, residual: Tensor) -> Tensor:
        """Mean square of the residual's slope along the edges of the original; the more a place is one straight, strong edge, the more it counts."""
        with torch.no_grad():
            tensor = self.jnd.structure(self._slopes(original))
            counts = self.jnd.straightness(tensor)
            across = 0.5 * torch.atan2(2 * tensor[:, 2:], tensor[:, :1] - tensor[:, 1:2])  # direction of the steepest slope
        right, down = self._slopes(residual).split(1, 1)
        along = across.cos() * down - across.sin() * right
        return (counts * (along / self.TOOTH).square()).mean()

    def _slopes(self, image: Tensor) -> Tensor:
        """Central differences of the luminance, to the right and downwards, in units of 1/255. Shape: (B, 3, H, W) -> (B, 2, H, W)."""
        return spatial_gradient(255 * (image * self.jnd.luma).sum(1, keepdim=True), mode="diff")[:, 0]

    def _ms_ssim(self, original: Tensor, filtered: Tensor) -> Tensor:
        pair = [(image * self.jnd.luma).sum(1, keepdim=True) for image in (original, filtered)]
        distance = original.new_zeros(())
        for weight in self.SCALES:
            distance = distance + weight * (1 - windowed_ssim(*pair).mean())
            pair = [F.avg_pool2d(image, 2) for image in pair]
        return distance


class NoTerms(nn.Module):
    """No terms: any change within the filter's limit is allowed, as in the published generators that ``--preset facpa`` stands for."""

    def forward(self, original: Tensor, filtered: Tensor) -> dict[str, Tensor]:
        """Nothing."""
        return {}


def windowed_ssim(first: Tensor, second: Tensor) -> Tensor:
    """SSIM (Wang et al., IEEE TIP 2004) in 8x8 windows, four pixels apart: 30 times as fast as a sliding Gaussian window, close enough to train with.

    Shape: two (B, C, H, W) float in [0, 1], sides of 8 px or more -> (B, C, H', W') in -1..1, one value per window.
    """

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 8, stride=4)

    mean1, mean2 = mean(first), mean(second)
    variance1, variance2 = mean(first.square()) - mean1.square(), mean(second.square()) - mean2.square()
    covariance = mean(first * second) - mean1 * mean2
    c1, c2 = 0.01**2, 0.03**2
    return (2 * mean1 * mean2 + c1) * (2 * covariance + c2) / ((mean1.square() + mean2.square() + c1) * (variance1 + variance2 + c2))


def load(choice: str, bundled: nn.Module | None = None) -> nn.Module:
    """The perceptual terms named by one of ``CHOICES``. Raises CamoError for another name, or for weights that cannot be loaded.

    ``bundled`` is the bundled quality model where the caller has it already; "offline" loads it otherwise.
    """
    if choice not in CHOICES:
        raise CamoError(f"unknown perceptual terms {choice!r}: choose one of {', '.join(CHOICES)}")
    if choice == "none":
        return NoTerms()
    return Visibility(EarlyFeatures(bundled) if choice == "offline" else Lpips(choice.removeprefix("lpips-")))
