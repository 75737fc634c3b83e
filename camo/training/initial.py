"""The filter that a training run starts from."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from camo import CamoError
from camo.filter.checkpoint import load_filter
from camo.filter.generator import Filter
from camo.filter.settings import JNDSettings
from camo.quality.efficientnet import BACKBONES, load_quality
from camo.training.config import TrainConfig


def initial_filter(config: TrainConfig, trunk: nn.Module, device: torch.device) -> Filter:
    """The filter that the settings ask for, with random weights or those of ``config.init``.

    Args:
        config: of the run.
        trunk: backbone whose first stages become the filter's, unless ``config.trunk`` names another.
        device: where the filter shall be.

    Raises CamoError for a file that cannot be used, or a filter to start from that has other settings.
    """
    jnd = JNDSettings(edges=config.edges)
    settings: dict[str, Any] = {"min_psnr": config.min_psnr, "jnd": jnd, "unrolled": config.unrolled, "coordinates": config.coordinates}
    model = Filter(config.width, config.depth, config.gain, config.shape == "jnd", **settings)
    model = model.to(device).to(memory_format=torch.channels_last)
    if config.init:
        initial = load_filter(Path(config.init)).foretelling(None)
        free = ("gain", "min_psnr", "jnd", "unrolled", "coordinates")  # no shape of a weight depends on them, or they change nothing yet
        if (found := initial.arguments | {name: model.arguments[name] for name in free if name in model.arguments}) != model.arguments:
            raise CamoError(f"--init {config.init}: a filter of {found}, not {model.arguments}")
        model.load_state_dict(model.state_dict() | initial.state_dict())
    model.unet.trunk.copy_from(load_trunk(config.trunk) if config.trunk else trunk)  # after --init, whose trunk may be another model's
    return model


def load_trunk(file: str) -> nn.Module:
    """The backbone of a quality model, whose first stages become the filter's trunk. Raises CamoError for a bad file or another network."""
    model = load_quality(Path(file))
    if model.name != BACKBONES[0]:
        raise CamoError(f"--trunk {file}: a model on {model.name}; the filter's trunk is {BACKBONES[0]}")
    return model.backbone
