"""The settings of a training run: one dataclass, its flags and its presets."""

import argparse
import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from camo import CamoError
from camo.quality import SPEC_HELP
from camo.quality.models import THRESHOLD
from camo.settings import require_at_least
from camo.training.perceptual import CHOICES


def setting(default: Any, text: str, choices: Collection[str] | None = None, metavar: str | None = None) -> Any:
    """A dataclass field that is also a flag: ``text``, ``choices`` and ``metavar`` are the flag's."""
    metadata = {"help": text, "choices": choices, "metavar": metavar}
    if isinstance(default, tuple):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


PRESETS: dict[str, dict[str, Any]] = {
    # From scratch to a filter that works on most photos, in minutes on two CPU cores.
    "demo": {
        **{"unrolled": 1, "gain": 6.0, "edges": 0.0},
        **{"steps": 500, "slack": 0.5, "min_psnr": 37.7, "crop_height": 192, "crop_width": 256, "ema": 0.98, "validate_every": 125},
        **{"turned": 0.1, "resized": 0.2, "quality_low": 75},  # in so few steps, a rougher channel costs a third of the protection
    },
    # The shipped filter, checkpoints/filter.safetensors. Takes more than an hour on two CPU cores.
    "bundled": {},
    # An ablation: the published recipe of FACPA (ICLR Tiny Papers 2023) with our generator. No JPEG, no perceptual terms, 10/255 everywhere.
    "facpa": {
        **{"shape": "flat", "unrolled": 1, "gain": 10.0, "channel": "none", "perceptual": "none", "target": (0.0,), "slack": 1e-6},
        **{"steps": 400, "crop_height": 256, "crop_width": 256, "ema": 0.98, "validate_every": 200},
    },
    # The 2020 task: KonCept512 and the development set of KonIQ-10k, which `python -m camo prepare` makes. Needs a GPU.
    # Crops are as large as what KonCept512 looks at, and cut so that photos of just that size vary; resizing and turning move what it looks at, so
    # fewer steps do. The rate is that of a filter that is trained on. Nothing of it could be tuned on KonCept512 itself.
    "task": {
        **{"data": ("data/task/dev",), "crop_height": 384, "crop_width": 512, "enlarged": 1.25},
        **{"biqa": ("koncept512",), "coordinates": True, "perceptual": "lpips-vgg", "init": "checkpoints/filter.safetensors", "rate": 5e-4},
        **{"turned": 0.2, "resized": 0.2, "gain": 14.0},
        **{"batch_size": 8, "accumulate": 2, "steps": 20000, "validate_every": 1000, "workers": 8},
    },
}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the result of a run; stored in its checkpoints. The values can be written as JSON."""

    preset: str = setting("bundled", "named settings to start from; every other flag overrides one of them", PRESETS)
    data: tuple[str, ...] = setting(("data/sample/dev",), "folders of photos to train on", metavar="FOLDER")
    val: tuple[str, ...] = setting((), "folders of photos to validate on; without any, part of --data is held out", metavar="FOLDER")
    hold_out: int = setting(8, "without --val, hold out every Nth photo of --data for validation")
    biqa: tuple[str, ...] = setting(("bundled",), f"quality models to train against, one or more: {SPEC_HELP}", metavar="MODEL")
    models_per_step: str = setting("all", "models that score a step's crops: all of them, or one in turn where they are slow", ("all", "one"))
    perceptual: str = setting(
        "offline", "perceptual terms, which keep the change hard to see; lpips-...: with LPIPS in place of the bundled model's features", CHOICES
    )
    trunk: str = setting(
        "", "a student that camo distil wrote; its first stages become the filter's frozen trunk, not the bundled model's", metavar="FILE"
    )
    init: str = setting("", "start from the weights of this filter, which has the same settings, instead of random ones", metavar="FILE")
    width: int = setting(48, "channels of the U-Net at stride 4")
    depth: int = setting(1, "residual blocks per stage of the U-Net")
    gain: float = setting(17.0, "largest residual, in units of the just-noticeable difference (with --shape flat: of 1/255)")
    unrolled: int = setting(2, "steps that the U-Net takes on each photo, each on what the steps before have made; each costs one pass")
    shape: str = setting("jnd", "what limits the residual: the just-noticeable difference, or the same value everywhere", ("jnd", "flat"))
    edges: float = setting(0.88, "how far the residual is held down along straight, strong edges, where a comb would be seen; 0: not, 1: to nothing")
    min_psnr: float = setting(37.05, "PSNR in dB below which the filter lets no photo fall at strength 1")
    coordinates: bool = setting(False, "learn how much to change each place of a photo, for a quality model that does not look everywhere alike")
    crop_height: int = setting(240, "height of the crops, in pixels")
    crop_width: int = setting(320, "width of the crops, in pixels")
    enlarged: float = setting(
        1.0, "how far crops may be enlarged; above 1, photos that are no larger than the crops give crops of several scales and places too"
    )
    batch_size: int = setting(4, "crops per step and process")
    accumulate: int = setting(1, "steps whose gradients are averaged for one update of the weights")
    steps: int = setting(4800, "forward and backward passes per process")
    rate: float = setting(1e-3, "peak learning rate of the one-cycle schedule (AdamW)")
    clip: float = setting(1.0, "largest norm of the gradient; longer ones are scaled down")
    ema: float = setting(0.995, "decay of the moving average of the weights; the average is what is validated and saved")
    threshold: tuple[float, ...] = setting(
        (THRESHOLD,), "score above which a photo is of high quality; a protected photo scores less; one value, or one per model", metavar="X"
    )
    target: tuple[float, ...] = setting(
        (40.0,), "score after the channel that training aims at, below --threshold; one value, or one per model", metavar="X"
    )
    slack: float = setting(0.7, "mean squared excess over --target that is tolerated, in (10 points) squared; less protects more and shows more")
    channel: str = setting("sharing", "what happens to a photo before it is scored: shift, resize and JPEG, or nothing", ("sharing", "none"))
    turned: float = setting(0.4, "share of steps whose crops the channel turns, by up to 6 degrees")
    resized: float = setting(0.4, "share of steps whose crops the channel resizes, by a factor of 0.6 to 1.25")
    quality_low: int = setting(60, "lowest JPEG quality in the channel")
    quality_high: int = setting(95, "highest JPEG quality in the channel")
    real_jpeg: float = setting(0.75, "share of steps with real JPEG files (straight-through gradient); the others use a differentiable codec")
    validate_every: int = setting(250, "steps between validations; each also saves last.pt")
    precision: str = setting("auto", "precision of the U-Net; auto: the GPU's mixed precision, float32 on a CPU", ("auto", "no", "bf16", "fp16"))
    biqa_precision: str = setting(
        "no",
        "precision of the quality models; bf16 is refused for a model whose gradients then point elsewhere; validation is in float32",
        ("no", "bf16"),
    )
    workers: int = setting(1, "processes that decode photos; 0: none beside the main process")
    seed: int = setting(0, "seed of the first weights, the crops and the channel")

    def per_model(self, values: tuple[float, ...]) -> tuple[float, ...]:
        """``threshold`` or ``target`` for each model of ``biqa``."""
        return values * len(self.biqa) if len(values) == 1 else values

    def as_json(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one flag per setting. A flag that is not given is None; its value then comes from the preset, or from the run to resume."""
    for setting_ in fields(TrainConfig):
        default: Any = getattr(TrainConfig(), setting_.name)
        if isinstance(default, bool):
            flag = "--" + setting_.name.replace("_", "-")
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=f"{setting_.metadata['help']} (default: {default})")
            continue
        repeated = isinstance(default, tuple)
        choices = setting_.metadata["choices"]
        shown = " ".join(map(str, default)) if repeated else str(default)
        parser.add_argument(
            "--" + setting_.name.replace("_", "-"),
            type=type(default[0] if default else "") if repeated else type(default),
            nargs="*" if repeated else None,
            choices=choices,
            metavar=None if choices else setting_.metadata["metavar"] or ("N" if isinstance(default, int) else "X"),
            help=f"{setting_.metadata['help']} (default: {shown or 'none'})".replace("%", "%%"),
        )


def from_arguments(args: argparse.Namespace, resumed: dict[str, Any] | None = None) -> TrainConfig:
    """Settings from the preset and the flags, which override it; or the settings of the run to resume, which no flag may contradict.

    Raises CamoError for values that cannot be trained with, and for settings of another version.
    """
    given = {setting_.name: getattr(args, setting_.name) for setting_ in fields(TrainConfig) if getattr(args, setting_.name) is not None}
    if resumed is not None and (other := [name for name, value in given.items() if resumed.get(name) != value]):
        raise CamoError(f"--{other[0].replace('_', '-')} {given[other[0]]}: the run to resume has {resumed.get(other[0])}")
    settings = PRESETS[given.get("preset", TrainConfig.preset)] | given if resumed is None else resumed
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    try:
        config = TrainConfig(**values)
        _check(config)
    except TypeError as error:  # an unknown setting, or one of another type
        raise CamoError(f"the run to resume has settings of another version ({error})") from error
    return config


def _check(config: TrainConfig) -> None:
    counts = ("hold_out", "width", "depth", "unrolled", "batch_size", "accumulate", "steps", "validate_every")
    require_at_least(config, dict.fromkeys(counts, 1) | {"workers": 0})
    for name in ("slack", "gain"):
        if not 0 < getattr(config, name) < math.inf:
            raise CamoError(f"--{name} {getattr(config, name)}: should be more than 0 and finite")
    if not 1 <= config.enlarged <= 4:
        raise CamoError(f"--enlarged {config.enlarged}: should be within 1..4")
    for name in ("turned", "resized", "real_jpeg", "edges"):
        if not 0 <= getattr(config, name) <= 1:
            raise CamoError(f"--{name.replace('_', '-')} {getattr(config, name)}: should be within 0..1")
    if config.steps % config.accumulate:  # the last gradients would be lost
        raise CamoError(f"--steps {config.steps}: should be a multiple of --accumulate {config.accumulate}")
    if not 1 <= config.quality_low <= config.quality_high <= 100:
        raise CamoError(f"--quality-low {config.quality_low} --quality-high {config.quality_high}: should rise within 1..100")
    if not config.biqa or len(set(config.biqa)) < len(config.biqa):
        raise CamoError(f"--biqa {' '.join(config.biqa)}: should be one model or several different ones")
    for name in ("threshold", "target"):
        if len(values := getattr(config, name)) not in (1, len(config.biqa)):
            raise CamoError(f"--{name} {' '.join(map(str, values))}: should be one value or one per model of --biqa, which has {len(config.biqa)}")
    for target, threshold in zip(config.per_model(config.target), config.per_model(config.threshold), strict=True):
        if not target < threshold < math.inf:
            raise CamoError(f"--target {target}: should be below --threshold {threshold}")
    if min(config.crop_height, config.crop_width) < 64:
        raise CamoError(f"crops of {config.crop_width}x{config.crop_height} px: the sides should be 64 px or more")
    if missing := [folder for folder in (*config.data, *config.val) if not Path(folder).exists()]:
        raise CamoError(f"{missing[0]}: no such folder")
