"""The guarantee of ``camo infer --verify``: the very bytes that are written have been decoded, passed through operations of platforms and scored.

The filter's strength becomes the least that protects the photo: it falls where one pass does more than is needed and rises where it does too little.
Where the change would become too visible, the pixels are optimised from there.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from camo import CamoError
from camo.attacks.adam import AdamL2
from camo.device import device_of
from camo.filter.full_size import FullSize
from camo.measure.after import scores_after
from camo.measure.metrics import psnr
from camo.measure.operations import GRID
from camo.photos.files import reason
from camo.photos.images import Photo, decode, encode, to_float, to_uint8
from camo.quality.models import THRESHOLD
from camo.training.channel import soft_jpeg

STRONGER = 1.15  # factor from one strength to the next higher one
STRONGEST = 4.0  # times the strength that was asked for
PRECISION = 0.02  # of the least strength, as a part of the strength that was asked for


@dataclass(frozen=True)
class Verdict:
    """What became of one photo.

    Attributes:
        protected: whether all of ``scores`` are below 50.
        score_before, score_after: of the original and of the file written, by the model and after the operation that scored the latter highest.
        scores: of the file written, by model and operation.
        psnr: dB, of the file written.
        strength: of the filter, in the file written or where the optimisation began; None, not known, for a file that was there already.
        psnr_as_asked: dB, at the strength that was asked for; None for a file that was there already.
        steps: of the optimisation; 0 where the filter alone sufficed.
        seconds: from the decoded photo to the bytes to write, or to the score of the file that was there already.
    """

    protected: bool
    score_before: float
    score_after: float
    scores: dict[str, dict[str, float]]
    psnr: float
    strength: float | None
    psnr_as_asked: float | None
    steps: int
    seconds: float


@dataclass(frozen=True)
class Candidate:
    """A version of a photo: its pixels before encoding, the bytes of its file, and what these hold: PSNR in dB, and scores by model and operation."""

    pixels: Tensor
    content: bytes
    strength: float
    psnr: float
    scores: dict[str, dict[str, float]]

    @property
    def highest(self) -> float:
        """The highest score."""
        return max(score for scores in self.scores.values() for score in scores.values())


class Verifier:
    """``verifier(photo, strength) -> (bytes to write, verdict)``; ``verifier.check(original, written) -> verdict`` of a file that is there.

    Both raise ValueError where an operation cannot be done (a side too long for its format) and RuntimeError where a score is not finite, the former
    EncodeError too; besides, what the filter and the scorers raise on a photo, such as one too large for the memory.

    Args:
        model: the filter.
        scorers: frozen quality models by name, (B, 3, H, W) in [0, 1] -> (B,), 0..100. A photo is protected if none of them scores it 50 or more.
        operations: what happens to the file, of ``camo.measure.operations.GRID``; the photo is protected if it is so after each of them.
        min_psnr: dB; neither a higher strength nor the optimisation goes below it.
        margin: points below 50 that the least strength has to reach.
        refine: steps of per-image optimisation where no strength does; 0 for none.

    Raises CamoError for an operation that does not exist.
    """

    def __init__(
        self,
        model: FullSize,
        scorers: Mapping[str, nn.Module],
        operations: Sequence[str] = ("JPEG 90",),
        min_psnr: float = 36.0,
        margin: float = 3.0,
        refine: int = 0,
    ) -> None:
        if unknown := [operation for operation in operations if operation not in GRID]:
            raise CamoError(f"--channel {unknown[0]!r}: choose one of {'; '.join(GRID)}")
        self.model, self.scorers, self.operations = model, scorers, operations
        self.min_psnr, self.goal, self.refine = min_psnr, THRESHOLD - margin, refine

    def __call__(self, photo: Photo, strength: float) -> tuple[bytes, Verdict]:
        """The weakest version that reaches the margin; where there is none, the one whose highest score is lowest."""
        start = time.monotonic()
        with torch.inference_mode():
            before = self._scores(photo.pixels)
            filtered = self.model.prepare(photo.pixels[None])

            def version(strength: float) -> Candidate:
                return self._candidate(photo, filtered(strength)[0], strength)

            asked = version(strength)
            best = self._weaker(version, 0.0, asked, strength) if self._reached(asked) else self._stronger(version, asked)
        steps = 0
        if not self._reached(best) and self.refine:
            refined, steps = self._refined(photo, best)
            if refined.highest < best.highest and refined.psnr >= self.min_psnr:
                best = refined
        verdict = self._verdict(before, best.scores, best.psnr, start)
        return best.content, replace(verdict, strength=best.strength, psnr_as_asked=min(asked.psnr, 100.0), steps=steps)

    @torch.inference_mode()
    def check(self, original: Photo, written: Photo) -> Verdict:
        """What a file written earlier is worth. Raises ValueError if it is of another size, so of another photo."""
        start = time.monotonic()
        if original.pixels.shape != written.pixels.shape:
            sizes = ["{2}x{1}".format(*photo.pixels.shape) for photo in (written, original)]
            raise ValueError("the existing file has {} px, not {}".format(*sizes))
        distance = psnr(to_float(original.pixels[None]), to_float(written.pixels[None])).item()
        return self._verdict(self._scores(original.pixels), self._scores(written.pixels), distance, start)

    def _reached(self, version: Candidate) -> bool:
        return version.highest < self.goal

    def _stronger(self, version: Callable[[float], Candidate], asked: Candidate) -> Candidate:
        """The least strength above the one asked for that reaches the margin, or the best one, as far as the PSNR allows."""
        best = weaker = asked
        while 0 < weaker.strength * STRONGER <= asked.strength * STRONGEST:
            candidate = version(weaker.strength * STRONGER)
            if candidate.psnr < self.min_psnr:
                break
            if self._reached(candidate):
                return self._weaker(version, weaker.strength, candidate, asked.strength)
            best = min(best, candidate, key=lambda one: one.highest)
            weaker = candidate
        return best

    def _weaker(self, version: Callable[[float], Candidate], low: float, best: Candidate, asked: float) -> Candidate:
        """Halve the interval between a strength that may be too low and one that reaches the margin, as if the score fell steadily between them."""
        if low == 0 < best.strength and self._reached(candidate := version(0.0)):
            return candidate  # a photo that needs no change gets none
        while best.strength - low > PRECISION * asked:
            candidate = version((low + best.strength) / 2)
            if self._reached(candidate):
                best = candidate
            else:
                low = candidate.strength
        return best

    def _refined(self, photo: Photo, begin: Candidate) -> tuple[Candidate, int]:
        """Adam on the pixels from the best version so far. Each step sees the highest score of the very file that would be written."""

        def score(image: Tensor) -> Tensor:
            real = self._candidate(photo, to_uint8(image)[0].cpu(), begin.strength)
            hardest = max(real.scores, key=lambda name: max(real.scores[name].values()))
            soft = self.scorers[hardest](soft_jpeg(image, torch.full((len(image),), 90)))  # the way of the gradient only
            return soft + (real.highest - soft).detach()

        attack = AdamL2(target=self.goal - 0.5, steps=self.refine, learning_rate=1.0, penalty=0.5)  # protected first, near second
        original, start = (to_float(version.pixels[None]).to(device_of(self.model)) for version in (photo, begin))
        result = attack(score, original, start=start)
        return self._candidate(photo, to_uint8(result.images)[0].cpu(), begin.strength), self.refine

    def _candidate(self, photo: Photo, pixels: Tensor, strength: float) -> Candidate:
        content = encode(replace(photo, pixels=pixels))
        written = decode(content)
        with torch.no_grad():
            distance = psnr(to_float(photo.pixels[None]), to_float(written[None])).item()
            return Candidate(pixels, content, strength, distance, self._scores(written))

    def _scores(self, pixels: Tensor) -> dict[str, dict[str, float]]:
        return {name: {operation: self._score(scorer, pixels, operation) for operation in self.operations} for name, scorer in self.scorers.items()}

    def _score(self, scorer: nn.Module, pixels: Tensor, operation: str) -> float:
        try:
            (score,) = scores_after(scorer, [pixels], operation, device_of(self.model))
        except (OSError, ValueError) as error:  # Pillow's words do not always say that the size is at fault
            height, width = pixels.shape[1:]
            raise ValueError(f"--channel {operation!r} fails on {width}x{height} px: {reason(error)}") from error
        return score

    def _verdict(self, before: dict[str, dict[str, float]], after: dict[str, dict[str, float]], distance: float, start: float) -> Verdict:
        highest, name, operation = max((score, name, operation) for name, scores in after.items() for operation, score in scores.items())
        seconds = round(time.monotonic() - start, 3)
        return Verdict(highest < THRESHOLD, before[name][operation], highest, after, min(distance, 100.0), None, None, 0, seconds)
