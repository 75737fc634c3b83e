"""Filter checkpoints, in safetensors with the format's version, all settings, the provenance and a hash in the header.

Nothing is unpickled.

FORMAT stands for what the code itself decides: layers, the papers' numbers in the JND, how the limit is computed. A change of these that changes the
output raises it. Format 1, which had no version in its header, stored at most the first five arguments of ``FORMAT_1``; the others were constants
in the code. Such files are read with these values, so that they do exactly what they did, since refusing them would make their owners train again.
``save_filter(path, load_filter(path), read_provenance(path))`` renews one.
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
FORMAT = "2"
FORMAT_1: dict[str, Any] = {
    "width": 48,
    "depth": 1,
    "gain": 6.0,
    "shaped": True,
    "working_area": 512 * 384,
    "chroma": 0.1,
    "min_psnr": 39.2,
    "jnd": {"darkest": 6.0, "flat": 0.12, "overlap": 0.3},
    "centre": {"height": 384, "width": 512, "reduction": 2.0, "louder": 1.15, "fade": 16},
}


def save_filter(path: Path, model: Filter, provenance: dict[str, Any]) -> None:
    """Write weights (float32), the filter's arguments and ``provenance`` (JSON-able: training settings, quality model, figures) atomically."""
    tensors = {key: value.detach().float().cpu().contiguous() for key, value in model.state_dict().items()}
    arguments = json.dumps(model.arguments)
    header = {"format": FORMAT, "arguments": arguments, "provenance": json.dumps(provenance), "sha256": content_hash(arguments, tensors, FORMAT)}
    with atomic_write(path, overwrite=True) as part:
        part.write_bytes(save(tensors, header))  # save_file would let nobody else read it


def load_filter(path: Path = SHIPPED_FILTER, device: torch.device | str = "cpu") -> Filter:
    """A filter in eval mode with frozen parameters, in channels-last layout.

    Raises CamoError: no such file, not a filter checkpoint, another format, damaged, another hash, keys or shapes that do not match, bad or missing
    arguments, weights that are not finite.
    """
    header, tensors = _read(path)
    if "sha256" not in header:
        raise CamoError(f"{path}: not a filter checkpoint (no hash in its header)")
    version = header.get("format", "")
    if version not in {"", FORMAT}:
        raise CamoError(f"{path}: checkpoint format {version}, of another version of camo; this one reads format {FORMAT}: install a newer camo")
    try:
        if header["sha256"] != content_hash(header["arguments"], tensors, version):
            raise CamoError(f"{path}: damaged: its weights or arguments are not those whose hash it holds")
        arguments = json.loads(header["arguments"])
        model = Filter.from_arguments(arguments if version else {**FORMAT_1, **arguments})
        model.load_state_dict(tensors)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CamoError(f"{path}: not a filter checkpoint of this version ({' '.join(str(error).split())[:160]})") from error
    require_finite(path, tensors)
    return model.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)


def read_provenance(path: Path = SHIPPED_FILTER) -> dict[str, Any]:
    """How a checkpoint came about, as given to ``save_filter``. Raises CamoError like ``load_filter``."""
    header, _ = _read(path)
    try:
        return json.loads(header["provenance"])
    except (KeyError, ValueError) as error:
        raise CamoError(f"{path}: not a filter checkpoint (no provenance in its header)") from error


def content_hash(arguments: str, tensors: dict[str, torch.Tensor], version: str = FORMAT) -> str:
    """SHA-256, in hexadecimal digits, of what decides what a filter does: the format's version, the arguments (JSON), the tensors (on the CPU)."""
    digest = hashlib.sha256(f"{version}{arguments}".encode())
    for key, value in sorted(tensors.items()):
        digest.update(f"{key} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    if not path.is_file():
        raise CamoError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise CamoError(f"{path}: not a safetensors file ({error})") from error
