"""Distillation: a student of the bundled model's architecture learns to score as another quality model, the target, does.

The student starts from the bundled model. Every step shows both networks the same pictures: photos, photos distorted as in
``camo.quality.distortions``, and photos that filters have camouflaged; half of them through JPEG. The target only scores, so it need not pass
a gradient (Hinton et al., "Distilling the knowledge in a neural network", 2015; for black boxes Papernot et al., "Practical black-box attacks
against machine learning", 2017).
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from camo import CamoError
from camo.device import device_of
from camo.filter.generator import Filter
from camo.photos.images import jpeg_roundtrip, to_float, to_uint8
from camo.quality.agreement import figures
from camo.quality.distortions import DEGRADATIONS
from camo.quality.efficientnet import EfficientNetQuality, save_quality
from camo.quality.models import Frozen
from camo.quality.training import disagreement, optimisation, setting
from camo.settings import require_at_least
from camo.training.channel import mirror_out
from camo.training.crops import CentreCrops, RandomCrops
from camo.training.workers import ignore_signals

KINDS = ("photos", "distorted", "filtered")  # a third of the pictures each
STRENGTH = (0.25, 1.5)  # range of the filters' strength
QUALITY = (60, 95)  # range of the JPEG quality


@dataclass(frozen=True)
class Settings:
    """What decides the result of a distillation, apart from the photos, the target and the filters. Raises CamoError for one out of range."""

    crop_height: int = setting(384, "height of the crops that both models are shown, in pixels")
    crop_width: int = setting(512, "width of the crops, in pixels")
    enlarged: float = setting(1.25, "how far crops may be enlarged")
    hold_out: int = setting(8, "hold out every Nth photo to validate on")
    steps: int = setting(3000, "updates of the weights")
    batch_size: int = setting(12, "pictures per step")
    rate: float = setting(3e-4, "peak learning rate of the backbone; three times that for the head")
    ema: float = setting(0.99, "decay of the weights' moving average, which is what is validated and saved")
    validate_every: int = setting(500, "steps between validations, each of which also saves the student")
    workers: int = setting(1, "processes that decode and distort photos; 0: none beside the main process")
    seed: int = setting(0, "of the crops, the distortions, the strengths and the JPEG qualities")

    def __post_init__(self) -> None:
        sides = {"crop_height": 64, "crop_width": 64}
        require_at_least(self, sides | {"hold_out": 1, "steps": 2, "batch_size": 2, "validate_every": 1, "workers": 0})
        if not 1 <= self.enlarged <= 4:
            raise CamoError(f"--enlarged {self.enlarged}: should be within 1..4")


class Variants(Dataset[tuple[Tensor, int]]):
    """Crops that take turns in being of each kind; those of the kind "distorted" are distorted, at a random severity.

    Items: (3, H, W) uint8 RGB and the number of the kind in ``KINDS``. Item i depends on ``seed`` and i alone.

    Args:
        crops: (3, H, W) uint8 RGB.
        length: number of items.
        versions: how many items in a row are made of the same crop.
        seed: of the distortions.
    """

    def __init__(self, crops: Dataset[Tensor], length: int, versions: int, seed: int) -> None:
        self.crops, self.length, self.versions, self.seed = crops, length, versions, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Item ``index``."""
        pixels, kind = self.crops[index // self.versions], index % len(KINDS)
        if KINDS[kind] != "distorted":
            return pixels, kind
        rng = Generator().manual_seed(self.seed * 1_000_003 + index)
        distortion = DEGRADATIONS[int(torch.randint(len(DEGRADATIONS), (), generator=rng))]
        return to_uint8(distortion(to_float(pixels), torch.rand((), generator=rng).item(), rng)), kind


class Shown:
    """``shown(pixels, kinds, number)``: a batch as both models see it: those of the kind "filtered" filtered, half of all through JPEG.

    Shape: (B, 3, H, W) uint8 and (B,) on the CPU -> (B, 3, H', W') float in [0, 1] on ``device``, 8-bit values, no smaller than ``least``.

    Args:
        filters: they take turns from batch to batch.
        least: height and width below which pictures are continued by their mirror image.
        seed: of the strengths and the JPEG qualities, together with the batch's number.
        device: where the filters are.
    """

    def __init__(self, filters: Sequence[Filter], least: tuple[int, int], seed: int, device: torch.device) -> None:
        self.filters, self.least, self.seed, self.device = filters, least, seed, device

    @torch.no_grad()
    def __call__(self, pixels: Tensor, kinds: Tensor, number: int) -> Tensor:
        """The batch of that number."""
        rng, count = Generator().manual_seed(self.seed * 1_000_003 + number), len(pixels)
        strength = STRENGTH[0] + (STRENGTH[1] - STRENGTH[0]) * torch.rand(count, 1, 1, 1, generator=rng)
        qualities = torch.randint(QUALITY[0], QUALITY[1] + 1, (count,), generator=rng).tolist()
        compressed = (torch.rand(count, generator=rng) < 0.5).nonzero().flatten().tolist()
        image, filtered = to_float(pixels), kinds == KINDS.index("filtered")
        if filtered.any():
            original = image[filtered].to(self.device)
            residual = self.filters[number % len(self.filters)].whole_residual(original)
            image[filtered] = to_float(to_uint8(original + strength[filtered].to(self.device) * residual)).cpu()
        for i in compressed:
            image[i : i + 1] = jpeg_roundtrip(image[i : i + 1], qualities[i])
        return mirror_out(image.to(self.device), self.least)


class Agreement:
    """``agreement(student)``: how far it agrees with the target on held-out photos, as they are, distorted and filtered; ``figures`` by kind.

    The target scores once, when this is made. Raises CamoError where it gives all pictures the same score, or one that is not finite.
    """

    def __init__(self, target: nn.Module, held: list[Path], shown: Shown, settings: Settings) -> None:
        crops = CentreCrops(held, (settings.crop_height, settings.crop_width))
        self.loader = DataLoader(Variants(crops, len(KINDS) * len(held), len(KINDS), settings.seed), settings.batch_size)
        self.shown = shown
        self.wanted = self._scores(target)
        if not self.wanted.isfinite().all() or self.wanted.max() == self.wanted.min():
            raise CamoError(f"the target gives {len(self.wanted)} pictures scores from {self.wanted.min():.4g} to {self.wanted.max():.4g}")

    def __call__(self, student: nn.Module) -> dict[str, dict[str, float]]:
        """Correlations and mean absolute error in points, for all pictures and for each kind."""
        scores, kinds = self._scores(student), torch.arange(len(self.wanted)) % len(KINDS)
        groups = {"all": kinds >= 0} | {kind: kinds == number for number, kind in enumerate(KINDS)}
        every = {name: figures(scores[group], self.wanted[group]) for name, group in groups.items()}
        # Where a target gives all pictures of a kind one score, there is no correlation
        return {name: {key: values[key] for key in ("srcc", "plcc", "error") if math.isfinite(values[key])} for name, values in every.items()}

    @torch.no_grad()
    def _scores(self, model: nn.Module) -> Tensor:
        batches = (self.shown(pixels, kinds, number) for number, (pixels, kinds) in enumerate(self.loader))
        return torch.cat([model(image).float().cpu() for image in batches])


def distil(
    target: Frozen,
    student: EfficientNetQuality,
    photos: tuple[list[Path], list[Path]],
    filters: Sequence[Filter],
    settings: Settings,
    out: Path,
    provenance: dict[str, Any],
) -> dict[str, dict[str, float]]:
    """Train ``student``, in place, to score as ``target`` does; all on one device. Writes the average of its weights to ``out`` at each validation.

    Args:
        target: its scores alone count; it need not pass a gradient.
        student: where to start.
        photos: to train on and to validate on, two or more.
        filters: in eval mode, whose photos are among those shown.
        settings: of the run.
        out: the student's file.
        provenance: what the file's header shall say besides the settings and the figures.

    Returns the last figures by kind of picture. Raises CamoError where the target's scores cannot be learned from, or a photo cannot be read.
    """
    torch.manual_seed(settings.seed)
    device = device_of(student)
    training, held = photos
    shown = Shown(filters, target.window, settings.seed, device)
    agreement = Agreement(target, held, shown, settings)
    average = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(settings.ema))
    optimizer, schedule = optimisation(student, settings.rate, settings.steps)
    length = settings.steps * settings.batch_size
    crops = RandomCrops(training, (settings.crop_height, settings.crop_width), length, settings.seed, settings.enlarged)
    variants = Variants(crops, length, 1, settings.seed)
    loader = DataLoader(variants, settings.batch_size, num_workers=settings.workers, worker_init_fn=ignore_signals)
    progress = tqdm(loader, desc="distil", mininterval=5, disable=None)
    reached = report(0, agreement(student))
    for step, (pixels, kinds) in enumerate(progress, 1):
        image = shown(pixels, kinds, step)
        with torch.no_grad():
            wanted = target(image).float()
        if not wanted.isfinite().all():
            raise CamoError(f"step {step}: the target gives a score that is not finite")
        loss = torch.stack(list(disagreement(student(image), wanted).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 20.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(student)
        if step % settings.validate_every == 0 or step == settings.steps:
            reached = report(step, agreement(average.module))
            about = provenance | {"settings": asdict(settings), "step": step, "validation": reached}
            save_quality(out, cast(EfficientNetQuality, average.module), about)
    return reached


def report(step: int, reached: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Print the figures of one validation on the standard error, and return them."""
    parts = (f"{kind} " + ", ".join(f"{key} {value:.3f}" for key, value in values.items()) for kind, values in reached.items())
    tqdm.write(f"step {step}: " + "; ".join(parts), file=sys.stderr)
    return reached
