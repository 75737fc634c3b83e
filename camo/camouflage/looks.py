"""Which look each photo gets: the one that was asked for, or the one that suits both the photo and its camouflage."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camo.device import device_of
from camo.filter.full_size import FullSize
from camo.filter.look_pixels import LookPixels, dress
from camo.filter.look_settings import LOOKS, LookChoice
from camo.filter.looks import Look
from camo.measure.after import scores_after
from camo.measure.metrics import psnr
from camo.photos.images import Photo, to_float, to_uint8
from camo.photos.working_size import working_size
from camo.quality.models import THRESHOLD

TINGE = 0.06  # difference between the means of red and blue, in [0, 1], from which a photo counts as warm or as cool
PARTS = (0.5, 0.7, 1.0)  # of the strength that was asked for, tried one after the other
AREA = 512 * 384  # px of the reduced copies that are tried


class OneLook:
    """``look(photo) -> (name, the photo in this look)``.

    Args:
        name: of ``LOOKS``.
        amount: how much of it, above 0 and up to 1.5.
        device: where to compute it.
    """

    def __init__(self, name: str, amount: float, device: torch.device | str = "cpu") -> None:
        self.name = str(LookChoice(name, amount))
        self.pixels = LookPixels(Look(LOOKS[name], amount)).to(device)

    def __call__(self, photo: Photo) -> tuple[str, Photo]:
        """Give the photo the look."""
        return self.name, dress(photo, self.pixels)


class SuitableLook:
    """``look(photo) -> (name, the photo in this look)``, of the looks that suit the photo the one whose camouflage needs the least residual.

    A look suits unless it is black and white, makes a warm photo warmer or makes a cool photo cooler. That nothing is clipped holds for every look.
    Those that suit are tried on a reduced copy with rising strengths. Of the looks that are protected after JPEG 90 at the first strength at which
    any is, the one of the highest PSNR against its photo before the filter is taken; where none is at the strength asked for, the one of the lowest
    score.

    Args:
        photo_filter: the filter.
        scorers: frozen quality models, each (B, 3, H, W) in [0, 1] -> (B,), 0..100. The highest of their scores counts.
        amount: of each look, above 0 and up to 1.5.
        strength: the strength that was asked for.
    """

    def __init__(self, photo_filter: FullSize, scorers: Sequence[nn.Module], amount: float = 1.0, strength: float = 1.0) -> None:
        self.photo_filter, self.scorers, self.strength = photo_filter, scorers, strength
        self.looks = {name: OneLook(name, amount, device_of(photo_filter)) for name in LOOKS}

    def __call__(self, photo: Photo) -> tuple[str, Photo]:
        """Choose a look and give it to the photo. Raises what the filter and the scorer raise."""
        size = working_size(photo.pixels.shape[-2], photo.pixels.shape[-1], AREA, smallest=16)
        reduced = to_uint8(F.interpolate(to_float(photo.pixels[None]), size, mode="bilinear", antialias=True))
        return self.looks[self.choose(reduced)](photo)

    @torch.inference_mode()
    def choose(self, pixels: Tensor) -> str:
        """The name of the look for a photo, (1, 3, H, W) uint8 on the CPU."""
        looked = {name: self.looks[name].pixels(pixels) for name in suitable(pixels)}
        at_strength = {name: self.photo_filter.prepare(photo) for name, photo in looked.items()}
        scores: dict[str, float] = {}
        for part in PARTS:
            filtered = {name: version(part * self.strength) for name, version in at_strength.items()}
            scores = {name: self._score(result) for name, result in filtered.items()}
            if protected := [name for name, score in scores.items() if score < THRESHOLD]:
                return max(protected, key=lambda name: psnr(to_float(looked[name]), to_float(filtered[name])).item())
        return min(scores, key=lambda name: scores[name])

    def _score(self, pixels: Tensor) -> float:
        """The highest score of a photo, (1, 3, H, W) uint8, after JPEG 90."""
        return max(scores_after(scorer, pixels, "JPEG 90", device_of(self.photo_filter))[0] for scorer in self.scorers)


def suitable(pixels: Tensor) -> list[str]:
    """The names of the looks that suit a photo, (1, 3, H, W) uint8."""
    red, _, blue = to_float(pixels).mean((0, 2, 3)).tolist()
    tinge = red - blue
    colour = {name: settings for name, settings in LOOKS.items() if not settings.mono}
    return [name for name, settings in colour.items() if abs(tinge) < TINGE or settings.warmth * tinge <= 0]
