"""The settings of a training run: one dataclass, its flags and its presets."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from camo import CamoError
from camo.training.perceptual import CHOICES


def setting(default: Any, what: str, choices: Sequence[str] | None = None) -> Any:
    """A dataclass field whose text and choices become the flag's."""
    metadata = {"help": what, "choices": choices}
    if isinstance(default, tuple):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the result of a run, stored in its checkpoints. Values are JSON-able."""

    data: tuple[str, ...] = setting(("data/sample/dev",), "folders of photos to train on")
    val: tuple[str, ...] = setting((), "folders of photos to validate on; none: every --hold-out-th photo of --data is kept for it")
    hold_out: int = setting(8, "keep every so many-th photo for validation where --val is not given")
    biqa: str = setting("bundled", "quality model to fool: bundled, koncept512[:FILE] or FILE.ts")
    perceptual: str = setting("offline", "perceptual terms", CHOICES)
    init: str = setting("", "checkpoint of a filter of the same settings to start from, instead of random weights")
    width: int = setting(48, "channels of the U-Net at stride 4")
    depth: int = setting(1, "residual blocks a stage")
    gain: float = setting(6.0, "largest residual, in units of the just-noticeable difference, or of 1/255 with --shape flat")
    shape: str = setting("jnd", "what bounds the residual: the just-noticeable difference, or the same everywhere", ("jnd", "flat"))
    crop_height: int = setting(240, "px")
    crop_width: int = setting(320, "px")
    batch_size: int = setting(4, "crops a step and process")
    accumulate: int = setting(1, "steps whose gradients are added before the weights move")
    steps: int = setting(4500, "forward-backward passes a process")
    rate: float = setting(1e-3, "peak learning rate of the one-cycle schedule (AdamW)")
    clip: float = setting(1.0, "largest norm of the gradient")
    ema: float = setting(0.995, "decay of the weights' moving average, which is what is validated and saved")
    target: float = setting(40.0, "score after the channel below which nothing more is gained")
    slack: float = setting(0.3, "mean squared excess over the target allowed, in (10 points) squared; less protects more and shows more")
    channel: str = setting("sharing", "what happens to photos before they are scored: shifts, resizing and JPEG, or nothing", ("sharing", "none"))
    quality_low: int = setting(70, "lowest JPEG quality of the channel")
    quality_high: int = setting(95, "highest JPEG quality of the channel")
    real_jpeg: float = setting(0.75, "share of steps through the real JPEG (straight-through gradient) instead of the soft one")
    validate_every: int = setting(250, "steps between validations, each of which also saves last.pt")
    precision: str = setting("auto", "mixed precision; auto: that of a GPU that has one, none elsewhere", ("auto", "no", "bf16", "fp16"))
    workers: int = setting(1, "processes that decode photos")
    seed: int = setting(0, "of weights, crops and channel")

    def as_json(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


PRESETS: dict[str, dict[str, Any]] = {
    # Minutes on two CPU cores: from scratch to a filter that works on most photos.
    "demo": {"steps": 500, "slack": 0.5, "crop_height": 192, "crop_width": 256, "ema": 0.98, "validate_every": 125},
    # The shipped filter, checkpoints/filter.safetensors: more than an hour on two CPU cores.
    "bundled": {},
    # An ablation, the published recipe of FACPA (ICLR Tiny Papers 2023) on our generator: no JPEG, no perceptual term, 10/255 everywhere.
    "facpa": {
        **{"shape": "flat", "gain": 10.0, "channel": "none", "perceptual": "none", "target": 0.0, "slack": 1e-6},
        **{"steps": 400, "crop_height": 256, "crop_width": 256, "ema": 0.98, "validate_every": 200},
    },
    # The 2020 task: KonCept512 on the KonIQ development set, made by `python -m camo prepare`. Needs a GPU.
    "task": {
        "data": ("data/task/dev",),
        "crop_height": 384,
        "crop_width": 512,
        "biqa": "koncept512",
        "perceptual": "lpips-vgg",
        "batch_size": 16,
        "steps": 30000,
        "validate_every": 1000,
        "real_jpeg": 0.2,
        "workers": 8,
    },
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One flag for each setting; a preset's values stand where no flag is given."""
    parser.add_argument("--preset", choices=PRESETS, default="bundled", help="settings to start from (default: bundled)")
    for setting_ in fields(TrainConfig):
        default = getattr(TrainConfig(), setting_.name)
        repeated = isinstance(default, tuple)
        parser.add_argument(
            "--" + setting_.name.replace("_", "-"),
            type=str if repeated else type(default),
            nargs="*" if repeated else None,
            choices=setting_.metadata["choices"],
            metavar=None if setting_.metadata["choices"] else setting_.name.split("_")[-1].upper(),
            help=f"{setting_.metadata['help']} (default: {' '.join(default) if repeated else default})".replace("%", "%%"),
        )


def from_arguments(args: argparse.Namespace, resumed: dict[str, Any] | None = None) -> TrainConfig:
    """The preset's settings with the flags given laid over them, or those of the run to resume, which no flag may contradict.

    Raises CamoError for values that make no run, and for settings of another version.
    """
    given = {setting_.name: getattr(args, setting_.name) for setting_ in fields(TrainConfig) if getattr(args, setting_.name) is not None}
    if resumed is not None and (other := [name for name, value in given.items() if resumed.get(name) != value]):
        raise CamoError(f"--{other[0].replace('_', '-')} {given[other[0]]}: the run to resume has {resumed.get(other[0])}")
    settings = (PRESETS[args.preset] | given) if resumed is None else resumed
    try:
        config = TrainConfig(**{name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()})
        _check(config)
    except TypeError as error:  # an unknown setting, or one of another type
        raise CamoError(f"the run to resume has settings of another version ({error})") from error
    return config


def _check(config: TrainConfig) -> None:
    smallest = dict.fromkeys(("hold_out", "width", "depth", "batch_size", "accumulate", "steps", "validate_every"), 1) | {"workers": 0}
    for name, least in smallest.items():
        if getattr(config, name) < least:
            raise CamoError(f"--{name.replace('_', '-')} {getattr(config, name)}: should be {least} or more")
    for name in ("slack", "gain"):
        if not 0 < getattr(config, name) < math.inf:
            raise CamoError(f"--{name} {getattr(config, name)}: should be more than 0 and finite")
    if config.steps % config.accumulate:  # the last gradients would be lost
        raise CamoError(f"--steps {config.steps}: should be a multiple of --accumulate {config.accumulate}")
    if not 1 <= config.quality_low <= config.quality_high <= 100:
        raise CamoError(f"--quality-low {config.quality_low} --quality-high {config.quality_high}: should rise within 1..100")
    if min(config.crop_height, config.crop_width) < 64:
        raise CamoError(f"crops of {config.crop_width}x{config.crop_height} px: the sides should be 64 px or more")
    if missing := [folder for folder in (*config.data, *config.val) if not Path(folder).exists()]:
        raise CamoError(f"{missing[0]}: no such folder")
