"""Filter checkpoints, in safetensors with the constructor's arguments and the provenance as JSON in the header, and the state of training runs.

Nothing is unpickled.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from camo import CamoError
from camo.files import atomic_write
from camo.generator import Filter

SHIPPED_FILTER = Path(__file__).resolve().parent.parent / "checkpoints" / "filter.safetensors"


def save_filter(path: Path, model: Filter, provenance: dict[str, Any]) -> None:
    """Write weights (float32), constructor arguments and ``provenance`` (JSON-able: training settings, quality model, figures) atomically."""
    header = {"arguments": json.dumps(model.arguments), "provenance": json.dumps(provenance)}
    tensors = {key: value.detach().float().cpu().contiguous() for key, value in model.state_dict().items()}
    with atomic_write(path, overwrite=True) as part:
        save_file(tensors, part, metadata=header)


def load_filter(path: Path = SHIPPED_FILTER, device: torch.device | str = "cpu") -> Filter:
    """A filter in eval mode with frozen parameters, in channels-last layout.

    Raises CamoError: no such file, not a filter checkpoint, damaged, keys or shapes that do not match, weights that are not finite.
    """
    header, tensors = _read(path)
    try:
        model = Filter(**json.loads(header["arguments"]))
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CamoError(f"{path}: not a filter checkpoint of this version ({' '.join(str(error).split())[:160]})") from error
    for key, value in tensors.items():
        if not value.isfinite().all():
            raise CamoError(f"{path}: {key} holds values that are not finite")
    return model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)


def read_provenance(path: Path = SHIPPED_FILTER) -> dict[str, Any]:
    """How a checkpoint came about, as ``save_filter`` was told. Raises CamoError like ``load_filter``."""
    header, _ = _read(path)
    try:
        return json.loads(header["provenance"])
    except (KeyError, ValueError) as error:
        raise CamoError(f"{path}: not a filter checkpoint (no provenance in its header)") from error


def save_state(path: Path, **state: Any) -> None:
    """Write a training run's state, tensors and plain values, whole or not at all; its settings are in ``config``."""
    with atomic_write(path, overwrite=True) as part:
        torch.save(state, part)


def load_state(path: Path) -> dict[str, Any]:
    """Read what ``save_state`` wrote. Raises CamoError when it is missing or damaged."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CamoError(f"{path}: nothing to resume from") from None
    except Exception as error:  # damaged files fail in any way
        raise CamoError(f"{path}: cannot be resumed from ({str(error).splitlines()[0][:160]})") from error
    if not isinstance(state, dict) or "config" not in state:
        raise CamoError(f"{path}: not the state of a training run")
    return state


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    if not path.is_file():
        raise CamoError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise CamoError(f"{path}: not a safetensors file ({error})") from error
