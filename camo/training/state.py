"""The state of a training run in ``last.pt``: everything that ``train.py --resume`` needs. Loading it runs no code from the file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from camo import CamoError
from camo.photos.files import atomic_write

PARTS = ("model", "average", "optimizer", "schedule", "scaler")  # what has a state_dict; the scaler exists in fp16 alone
STATE_KEYS = {"step", "best", "weights", "config", "processes", *PARTS}


def save_state(path: Path, parts: Mapping[str, Any], **values: Any) -> None:
    """Write the state of every part of a run, and plain values, to ``path``: completely or not at all.

    Args:
        path: file to write or to replace.
        parts: the objects named in ``PARTS``, each with a ``state_dict``, or None.
        values: ``step``, ``best``, ``weights``, ``config`` (the settings) and ``processes``.
    """
    states = {name: None if part is None else part.state_dict() for name, part in parts.items()}
    with atomic_write(path, overwrite=True) as unfinished:
        torch.save(values | states, unfinished)


def load_state(path: Path) -> dict[str, Any]:
    """Read what ``save_state`` wrote. Raises CamoError when the file is missing, damaged, something else or of another version."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CamoError(f"{path}: nothing to resume from") from None
    except Exception as error:  # damaged files fail in any way
        raise CamoError(f"{path}: cannot be resumed from ({str(error).splitlines()[0][:160]})") from error
    if not isinstance(state, dict) or not isinstance(state.get("config"), dict):
        raise CamoError(f"{path}: not the state of a training run")
    if missing := STATE_KEYS - state.keys():
        raise CamoError(f"{path}: not the state of a training run of this version (it lacks {', '.join(sorted(missing))})")
    return state


def restore(path: Path, state: Mapping[str, Any], parts: Mapping[str, Any]) -> tuple[int, float, list[float]]:
    """Load the state of every part into it, in place, and return the step reached, the best merit and the weights of the scores.

    Raises CamoError, which names ``path``, where the state does not fit the parts.
    """
    try:
        for name, part in parts.items():
            if part is not None:
                part.load_state_dict(state[name])
        return int(state["step"]), float(state["best"]), [float(weight) for weight in state["weights"]]
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CamoError(f"{path}: does not fit the run's settings ({' '.join(str(error).split())[:160]})") from error
