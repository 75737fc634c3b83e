"""The guarantee of ``camo infer --verify``: the very bytes that are written have been decoded, passed through a platform's operation and scored.

Where one pass does not protect a photo, the filter's strength rises; where the change would become too visible, the pixels are optimised from there.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from camo import CamoError
from camo.attacks.adam import AdamL2
from camo.device import device_of
from camo.measure.after import scores_after
from camo.measure.metrics import psnr
from camo.measure.operations import GRID
from camo.photos.files import reason
from camo.photos.images import Photo, decode, encode, to_float, to_uint8
from camo.quality.models import THRESHOLD
from camo.training.channel import soft_jpeg

STRONGER = 1.15  # factor from one strength to the next
STRONGEST = 4.0  # times the strength that was asked for


@dataclass(frozen=True)
class Verdict:
    """What became of one photo.

    Attributes:
        score_before, score_after: of the original and of the file written, after the operation.
        psnr: dB, of the file written.
        strength: of the filter, in the file written or where the optimisation began; None, not known, for a file that was there already.
        steps: of the optimisation; 0 where the filter alone sufficed.
        seconds: from the decoded photo to the bytes to write, or to the score of the file that was there already.
        protected: whether ``score_after`` is below 50.
    """

    score_before: float
    score_after: float
    psnr: float
    strength: float | None
    steps: int
    seconds: float
    protected: bool


@dataclass(frozen=True)
class Candidate:
    """A version of a photo: its pixels before encoding, the bytes of its file, and what these hold: PSNR in dB, and score after the operation."""

    pixels: Tensor
    content: bytes
    strength: float
    psnr: float
    score: float


class Verifier:
    """``verifier(photo, strength) -> (bytes to write, verdict)``; ``verifier.check(original, written) -> verdict`` of a file that is there.

    Both raise ValueError where the operation cannot be done (a side too long for its format) and RuntimeError where the score is not finite, the
    former EncodeError too; besides, what the filter and the scorer raise on a photo, such as one too large for the memory.

    Args:
        model: the filter, (B, 3, H, W) uint8 on the CPU and a strength -> the same shape and type.
        scorer: frozen quality model, (B, 3, H, W) in [0, 1] -> (B,), 0..100.
        operation: what happens to the file, one of ``camo.measure.operations.GRID``.
        min_psnr: dB; neither a higher strength nor the optimisation goes below it.
        refine: steps of per-image optimisation where no strength protects; 0 for none.

    Raises CamoError for an operation that does not exist.
    """

    def __init__(self, model: nn.Module, scorer: nn.Module, operation: str = "JPEG 90", min_psnr: float = 36.0, refine: int = 0) -> None:
        if operation not in GRID:
            raise CamoError(f"--channel {operation!r}: choose one of {'; '.join(GRID)}")
        self.model, self.scorer, self.operation = model, scorer, operation
        self.min_psnr, self.refine = min_psnr, refine

    def __call__(self, photo: Photo, strength: float) -> tuple[bytes, Verdict]:
        """The weakest version that is protected; where there is none, the one of the lowest score."""
        start = time.monotonic()
        with torch.inference_mode():
            before = self._score(photo.pixels)
        candidates = self._stronger(photo, strength)
        best, steps = next(candidates), 0
        while best.score >= THRESHOLD and (candidate := next(candidates, None)):
            best = min(best, candidate, key=lambda version: version.score)
        if best.score >= THRESHOLD and self.refine:
            refined, steps = self._refined(photo, best)
            if refined.score < best.score and refined.psnr >= self.min_psnr:
                best = refined
        seconds = round(time.monotonic() - start, 3)
        protected = best.score < THRESHOLD
        return best.content, Verdict(before, best.score, min(best.psnr, 100.0), best.strength, steps, seconds, protected)

    @torch.inference_mode()
    def check(self, original: Photo, written: Photo) -> Verdict:
        """What a file written earlier is worth. Raises ValueError if it is of another size, so of another photo."""
        start = time.monotonic()
        if original.pixels.shape != written.pixels.shape:
            sizes = ["{2}x{1}".format(*photo.pixels.shape) for photo in (written, original)]
            raise ValueError("the existing file has {} px, not {}".format(*sizes))
        before, after = self._score(original.pixels), self._score(written.pixels)
        distance = psnr(to_float(original.pixels[None]), to_float(written.pixels[None])).item()
        return Verdict(before, after, min(distance, 100.0), None, 0, round(time.monotonic() - start, 3), after < THRESHOLD)

    @torch.inference_mode()
    def _stronger(self, photo: Photo, strength: float) -> Iterator[Candidate]:
        """The strength asked for, then higher ones as long as the PSNR allows."""
        limit = strength * STRONGEST
        asked = True
        while asked or strength <= limit:
            candidate = self._candidate(photo, self.model(photo.pixels[None], strength)[0], strength)
            if not asked and candidate.psnr < self.min_psnr:
                return
            yield candidate
            if strength == 0:
                return
            asked, strength = False, strength * STRONGER

    def _refined(self, photo: Photo, begin: Candidate) -> tuple[Candidate, int]:
        """Adam on the pixels from the best version so far. Each step sees the score of the very file that would be written."""

        def score(image: Tensor) -> Tensor:
            soft = self.scorer(soft_jpeg(image, torch.full((len(image),), 90)))  # the way of the gradient only
            real = self._candidate(photo, to_uint8(image)[0].cpu(), begin.strength).score
            return soft + (real - soft).detach()

        attack = AdamL2(target=THRESHOLD - 0.5, steps=self.refine, learning_rate=1.0, penalty=0.5)  # protected first, near second
        original, start = (to_float(version.pixels[None]).to(device_of(self.model)) for version in (photo, begin))
        result = attack(score, original, start=start)
        return self._candidate(photo, to_uint8(result.images)[0].cpu(), begin.strength), self.refine

    def _candidate(self, photo: Photo, pixels: Tensor, strength: float) -> Candidate:
        content = encode(replace(photo, pixels=pixels))
        written = decode(content)
        with torch.no_grad():
            distance = psnr(to_float(photo.pixels[None]), to_float(written[None])).item()
            return Candidate(pixels, content, strength, distance, self._score(written))

    def _score(self, pixels: Tensor) -> float:
        try:
            (score,) = scores_after(self.scorer, [pixels], self.operation, device_of(self.model))
        except (OSError, ValueError) as error:  # Pillow's words do not always say that the size is at fault
            height, width = pixels.shape[1:]
            raise ValueError(f"--channel {self.operation!r} fails on {width}x{height} px: {reason(error)}") from error
        return score
