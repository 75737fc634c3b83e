"""Train the official KonCept512 from people's opinions: ``python -m camo.quality.koncept512_training --opinions CSV --photos FOLDER --out DIR``.

For those who cannot get the official weights: the same network, head, pooling and preprocessing, so that the task's path can be tried on it. The
network starts from nothing, for which a few thousand opinions say too little; so it learns from a quality model that agrees with people
already, the teacher, as well: its score of each window, and its maps at strides 8, 16 and 32 ("FitNets: Hints for Thin Deep Nets", Romero et al.,
ICLR 2015). It grows while it learns: at first, on small windows, only two of each kind of residual block take part, which is three times as fast; the
others start as identities (their last convolution is zero) and join in the second stage. Windows grow in the third; in the last, on whole photos,
the official pooling takes the place of the mean over the window. At the end the statistics of the batch normalisations are measured anew for the
averaged weights, and the head goes on learning alone, on pooled features of more windows of full size, which puts the scores on people's scale.

Writes to --out: ``KonCept512.pth``, the official layout, for ``--biqa koncept512:FILE``; ``last.pt`` (for --resume), ``figures.json`` and TensorBoard
logs. What an item holds depends on the seed and its number alone.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.data import DataLoader, Subset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from camo.photos.files import atomic_write
from camo.photos.images import to_float
from camo.quality.agreement import agreement
from camo.quality.efficientnet import EfficientNetQuality, load_quality
from camo.quality.koncept512 import KonCept512
from camo.quality.models import BUNDLED_WEIGHTS
from camo.quality.opinions import Opinion
from camo.quality.training import (
    RatedPhotos,
    degrade,
    disagreement,
    load_run,
    log,
    losses,
    recipe_arguments,
    run_recipe,
    save_run,
    setting,
)
from camo.settings import require_at_least

HINTS = (8, 10, 12)  # chains of residual blocks in KonCept512.base; after each its map has stride 8, 16 or 32
CORE = 2  # blocks of each chain that take part from the start
HINT, SCORE = 10.0, 0.1  # weights of the error of the maps, in deviations, and of the losses of the score, in points, which drown it otherwise
TAUGHT = 0.6  # weight of the teacher's score of a window against people's opinion of the photo
PAIRS = 4  # one photo in so many must rank above a degraded version of itself
VALIDATED = 100  # photos of those held out, of which each costs half a second
MEASURED = 192  # photos on which the statistics of the batch normalisations are measured
HEAD_STEPS, HEAD_BATCH, HEAD_RATE = 1000, 256, 1e-3  # of the head alone, on features that were computed once


class Stage(NamedTuple):
    """A part of the run: size of the windows in px (height, width), photos a step, and whether all blocks take part."""

    size: tuple[int, int]
    batch: int
    whole: bool


STAGES = (Stage((160, 160), 16, False), Stage((160, 160), 16, True), Stage((224, 288), 8, True), Stage(KonCept512.WINDOW, 8, True))


@dataclass(frozen=True)
class Settings:
    """What decides the result of a run, apart from the photos, their opinions and the teacher."""

    hold_out: int = setting(300, "photos to validate on, drawn by a seed of their own")
    core_steps: int = setting(2000, "steps of the core of the network on windows of 160x160 px")
    whole_steps: int = setting(600, "steps of the whole network on them")
    larger_steps: int = setting(300, "steps on windows of 288x224 px")
    full_steps: int = setting(60, "steps on windows of 512x384 px, what the network looks at")
    head_photos: int = setting(2400, "windows of that size from which the head learns at the end")
    rate: float = setting(1e-3, "peak learning rate")
    ema: float = setting(0.99, "decay of the weights' moving average, which is what is validated and saved")
    validate_every: int = setting(500, "steps between validations, each of which also saves last.pt")
    workers: int = setting(1, "processes that decode photos")
    seed: int = setting(0, "of the weights, the order, the windows and the degradations")

    def __post_init__(self) -> None:
        steps = ("core_steps", "whole_steps", "larger_steps", "full_steps")
        require_at_least(self, {"workers": 0, "head_photos": 2, **dict.fromkeys((*steps, "validate_every"), 1)})

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps of each stage."""
        return self.core_steps, self.whole_steps, self.larger_steps, self.full_steps


class Student(nn.Module):
    """KonCept512 and the projections of its maps on the teacher's.

    Args:
        channels: of the teacher's maps at strides 8, 16 and 32.
    """

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.network = KonCept512()
        last = cast(nn.Linear, self.network.fc[-1])
        with torch.no_grad():  # start at the middle of the scale, with a deviation of some ten points
            last.weight.mul_(20)
            last.bias.fill_(50)
            for number in HINTS:
                for block in list(cast(nn.Sequential, self.network.base[number]))[CORE:]:
                    for parameter in cast(nn.Conv2d, block.conv2d).parameters():
                        nn.init.zeros_(parameter)
        own = (320, 1088, 2080)
        self.projections = nn.ModuleList(nn.Conv2d(mine, theirs, 1) for mine, theirs in zip(own, channels, strict=True))

    def forward(self, image: Tensor, whole: bool) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) float RGB in [0, 1] -> scores (B,) and maps as wide as the teacher's; of the ``whole`` network or of its core."""
        x, maps = image * 2 - 1, list[Tensor]()
        with torch.autocast(image.device.type, torch.bfloat16):
            for number, part in enumerate(self.network.base):
                x = (part if whole or number not in HINTS else cast(nn.Sequential, part)[:CORE])(x)
                if number in HINTS:
                    maps.append(self.projections[len(maps)](x))
        pooled = self.network.pool(x.float()) if image.shape[-2:] == KonCept512.WINDOW else F.adaptive_avg_pool2d(x.float(), 1)
        return self.network.fc(pooled.flatten(1)).flatten(), maps


def hint_error(maps: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Mean squared error of maps against the teacher's, brought to their size and standardised in each channel, whose scales differ by thousands."""
    errors = []
    for mine, theirs in zip(maps, teacher, strict=True):
        wanted = F.adaptive_avg_pool2d(theirs, (mine.shape[-2], mine.shape[-1]))
        errors.append(F.mse_loss(mine.float(), F.batch_norm(wanted, None, None, training=True, eps=1e-3)))
    return torch.stack(errors).mean()


def step_losses(student: Student, teacher: EfficientNetQuality, whole: bool, pixels: Tensor, wanted: Tensor, rng: Generator) -> dict[str, Tensor]:
    """Terms that add up to the loss of one batch, (B, 3, H, W) uint8 with the opinions (B,); its first photos are degraded as well."""
    image = to_float(pixels)
    worse, margins = zip(*(degrade(one, rng) for one in image[: len(image) // PAIRS]), strict=True)
    device = next(student.parameters()).device
    image = torch.cat([image, torch.stack(worse)]).to(device, memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        features = teacher.backbone(image * 2 - 1)  # at this scale, however small the window
    taught = teacher.judge(features)
    scores, maps = student(image, whole)
    rated, degraded = scores.split([len(pixels), len(worse)])
    clean = TAUGHT * taught[: len(pixels)] + (1 - TAUGHT) * wanted.float().to(device)
    terms = losses(rated, clean, degraded, torch.tensor(margins, device=device))
    terms["degraded"] = F.smooth_l1_loss(degraded, taught[len(pixels) :], beta=5.0) / PAIRS
    return {name: SCORE * term for name, term in terms.items()} | {"hints": HINT * hint_error(maps, [feature.float() for feature in features[1:]])}


def batches(opinions: list[Opinion], settings: Settings, start: int) -> Iterator[tuple[bool, Tensor, Tensor]]:
    """Of every step after ``start``: whether the whole network takes part, pixels and scores."""
    photos = [steps * stage.batch for steps, stage in zip(settings.steps, STAGES, strict=True)]
    first_step = first_item = 0
    for stage, steps, items in zip(STAGES, settings.steps, photos, strict=True):
        done = min(max(start - first_step, 0), steps) * stage.batch
        rated = Subset(RatedPhotos(opinions, stage.size, sum(photos), settings.seed), range(first_item + done, first_item + items))
        for pixels, wanted in DataLoader(rated, stage.batch, num_workers=settings.workers):
            yield stage.whole, pixels, wanted
        first_step, first_item = first_step + steps, first_item + items


@torch.no_grad()
def head_features(
    network: KonCept512, teacher: EfficientNetQuality, opinions: list[Opinion], settings: Settings, device: torch.device
) -> tuple[Tensor, Tensor]:
    """What the head learns from: pooled features, (N, 1536), and scores, (N,), of windows of full size and of degraded versions of some of them."""
    features, wanted = [], []
    photos = RatedPhotos(opinions, KonCept512.WINDOW, settings.head_photos, settings.seed + 2)
    for number, (pixels, opinion) in enumerate(tqdm(DataLoader(photos, None, num_workers=settings.workers), desc="head", mininterval=5)):
        image = to_float(pixels)
        versions = [image, degrade(image, Generator().manual_seed(number))[0]] if number % PAIRS == 0 else [image]
        shown = torch.stack(versions).to(device, memory_format=torch.channels_last)
        taught = teacher(shown)
        taught[0] = TAUGHT * taught[0] + (1 - TAUGHT) * opinion
        wanted.append(taught)
        with torch.autocast(device.type, torch.bfloat16):
            maps = network.base(shown * 2 - 1)
        features.append(network.pool(maps.float()).flatten(1))
    return torch.cat(features), torch.cat(wanted)


def fit_head(head: nn.Sequential, features: Tensor, wanted: Tensor, seed: int) -> None:
    """Train the head, in place, on pooled features and the scores that they should give, with the batch normalisations as they are."""
    rng = torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(head.parameters(), HEAD_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, HEAD_RATE, total_steps=HEAD_STEPS, pct_start=0.1, cycle_momentum=False)
    for part in head:
        part.train(isinstance(part, nn.Dropout))
    for _ in range(HEAD_STEPS):
        batch = torch.randint(len(features), (HEAD_BATCH,), generator=rng)
        loss = torch.stack(list(disagreement(head(features[batch]).flatten(), wanted[batch]).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    head.eval()


def train(
    opinions: list[Opinion], held: list[Opinion], settings: Settings, teacher: EfficientNetQuality, out: Path, resume: bool
) -> dict[str, float]:
    """One run, from the start or from OUT/last.pt to the end; returns the figures on ``held`` of the network that is saved.

    Raises CamoError where there is nothing to resume from, or a run with other settings.
    """
    torch.manual_seed(settings.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = teacher.to(device).requires_grad_(False)
    channels = [feature.shape[1] for feature in teacher.features(torch.zeros(1, 3, 64, 64, device=device))[1:]]
    student = Student(channels).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(student.parameters(), settings.rate, weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.rate, total_steps=sum(settings.steps), pct_start=0.1, cycle_momentum=False)
    average = AveragedModel(student.network, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)
    parts = {"student": student, "average": average, "optimizer": optimizer, "schedule": schedule}
    start, figures = load_run(out / "last.pt", parts, settings) if resume else (0, {})
    writer = SummaryWriter(out, purge_step=start)
    progress = tqdm(batches(opinions, settings, start), total=sum(settings.steps), initial=start, desc="koncept512", mininterval=5)
    for step, (whole, pixels, wanted) in enumerate(progress, start + 1):
        rng = torch.manual_seed(settings.seed * 1_000_003 + step)  # the generator that the head's dropout draws from, too
        terms = step_losses(student.train(), teacher, whole, pixels, wanted, rng)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        nn.utils.clip_grad_norm_(student.parameters(), 20.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(student.network)
        if step % 10 == 0:
            log(writer, "train", {name: term.item() for name, term in terms.items()}, step)
            progress.set_postfix({name: f"{term.item():.1f}" for name, term in terms.items()}, refresh=False)
        if step % settings.validate_every == 0 or step == sum(settings.steps):
            figures, _ = agreement(average.module.eval(), held[:VALIDATED], device)
            progress.write(f"step {step}: " + ", ".join(f"{key} {value:.3f}" for key, value in figures.items()), file=sys.stderr)
            log(writer, "validation", figures, step)
            save_run(out / "last.pt", parts, settings, step, figures)
    writer.close()
    photos = DataLoader(RatedPhotos(opinions, KonCept512.WINDOW, MEASURED, settings.seed + 1), 8)
    network = cast(KonCept512, average.module)
    update_bn(tqdm((to_float(pixels) for pixels, _ in photos), desc="batch norm", total=len(photos)), network, device)
    fit_head(network.fc, *head_features(network.eval(), teacher.eval(), opinions, settings, device), settings.seed)
    figures, _ = agreement(network, held, device)
    with atomic_write(out / "KonCept512.pth", overwrite=True) as part:
        torch.save({key: value.cpu() for key, value in network.state_dict().items()}, part)
    return figures


def main() -> int:
    """Train a KonCept512; returns the exit status of ``run_recipe``."""
    parser = recipe_arguments("train the official KonCept512 from people's opinions", Settings)
    parser.add_argument("--teacher", type=Path, default=BUNDLED_WEIGHTS, metavar="FILE", help="a quality model of camo (default: the bundled one)")
    args = parser.parse_args()

    def run(training: list[Opinion], held: list[Opinion], settings: Settings) -> dict[str, float]:
        return train(training, held, settings, load_quality(args.teacher), args.out, args.resume)

    return run_recipe(args, Settings, lambda settings: STAGES[0].batch, run)


if __name__ == "__main__":
    sys.exit(main())
