"""Filter checkpoints, in safetensors with the constructor's arguments, the provenance and a hash in the header, and the state of training runs.

Nothing is unpickled.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from camo import CamoError
from camo.filter.generator import Filter
from camo.photos.files import atomic_write
from camo.weights import CHECKPOINTS, require_finite

SHIPPED_FILTER = CHECKPOINTS / "filter.safetensors"
STATE_KEYS = {"step", "best", "weight", "config", "model", "average", "optimizer", "schedule", "scaler"}


def save_filter(path: Path, model: Filter, provenance: dict[str, Any]) -> None:
    """Write weights (float32), constructor arguments and ``provenance`` (JSON-able: training settings, quality model, figures) atomically."""
    tensors = {key: value.detach().float().cpu().contiguous() for key, value in model.state_dict().items()}
    arguments = json.dumps(model.arguments)
    header = {"arguments": arguments, "provenance": json.dumps(provenance), "sha256": sha256(arguments, tensors)}
    with atomic_write(path, overwrite=True) as part:
        part.write_bytes(save(tensors, header))  # save_file would let nobody else read it


def load_filter(path: Path = SHIPPED_FILTER, device: torch.device | str = "cpu") -> Filter:
    """A filter in eval mode with frozen parameters, in channels-last layout.

    Raises CamoError: no such file, not a filter checkpoint, damaged, another hash, keys or shapes that do not match, bad arguments, weights that are
    not finite.
    """
    header, tensors = _read(path)
    if "sha256" not in header:
        raise CamoError(f"{path}: not a filter checkpoint of this version (no hash in its header)")
    try:
        if header["sha256"] != sha256(header["arguments"], tensors):
            raise CamoError(f"{path}: damaged: its weights or arguments are not those whose hash it holds")
        model = Filter(**json.loads(header["arguments"]))
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CamoError(f"{path}: not a filter checkpoint of this version ({' '.join(str(error).split())[:160]})") from error
    require_finite(path, tensors)
    return model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)


def read_provenance(path: Path = SHIPPED_FILTER) -> dict[str, Any]:
    """How a checkpoint came about, as ``save_filter`` was told. Raises CamoError like ``load_filter``."""
    header, _ = _read(path)
    try:
        return json.loads(header["provenance"])
    except (KeyError, ValueError) as error:
        raise CamoError(f"{path}: not a filter checkpoint (no provenance in its header)") from error


def sha256(arguments: str, tensors: dict[str, torch.Tensor]) -> str:
    """The hash, in hexadecimal digits, of what decides what a filter does: its constructor's arguments (JSON) and its tensors (on the CPU)."""
    digest = hashlib.sha256(arguments.encode())
    for key, value in sorted(tensors.items()):
        digest.update(f"{key} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def save_state(path: Path, **state: Any) -> None:
    """Write a training run's state, tensors and plain values, whole or not at all; its settings are in ``config``."""
    with atomic_write(path, overwrite=True) as part:
        torch.save(state, part)


def load_state(path: Path) -> dict[str, Any]:
    """Read what ``save_state`` wrote. Raises CamoError when it is missing, damaged or something else."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CamoError(f"{path}: nothing to resume from") from None
    except Exception as error:  # damaged files fail in any way
        raise CamoError(f"{path}: cannot be resumed from ({str(error).splitlines()[0][:160]})") from error
    if not isinstance(state, dict) or not isinstance(state.get("config"), dict):
        raise CamoError(f"{path}: not the state of a training run")
    if missing := STATE_KEYS - state.keys():
        raise CamoError(f"{path}: not the state of a training run of this version (without {', '.join(sorted(missing))})")
    return state


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    if not path.is_file():
        raise CamoError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise CamoError(f"{path}: not a safetensors file ({error})") from error
