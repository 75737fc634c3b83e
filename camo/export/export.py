"""The verb ``export``: the filter, or a quality model, as files that run without this package.

- ``filter.ts`` (TorchScript): ``torch.jit.load("filter.ts")(image, strength)``, strength a float, 1.0 where it is left out;
- ``filter.pt2`` (torch.export): ``torch.export.load("filter.pt2").module()(image, torch.tensor(strength))``;
- ``filter.onnx``: inputs ``image`` and ``strength`` (``np.array(strength, np.float32)``), output ``filtered``;
- ``bundled.onnx``, ``koncept512.onnx``: input ``image``, output ``score``, shape (B,).

Images are (B, 3, H, W) float32 RGB in [0, 1], any batch, sides of 16 px or more. Each file holds its provenance as JSON:
``provenance.json`` among the extra files of the first two, ``provenance`` in ONNX's metadata. A file gets its name only after a fresh
process that cannot import camo has run it and its output was that of the eager model.
"""

import argparse
import copy
import hashlib
import importlib.util
import io
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from camo import CamoError, __version__
from camo.export import check
from camo.filter.checkpoint import SHIPPED_FILTER, load_filter, read_provenance
from camo.quality import models

FILTER_TOLERANCE = 1 / 255  # one step of an 8-bit file
SCORE_TOLERANCE = 0.05  # points of 100
# What the check runs: the smallest size, then sizes below, at and above the 512x384 pixels near which the networks look at photos.
FILTER_CASES = ((1, 16, 16, 1.0), (1, 321, 481, 1.0), (1, 384, 512, 2.0), (2, 427, 640, 0.5))  # batch, height, width, strength
SCORE_CASES = ((1, 321, 481), (2, 384, 512), (1, 387, 515), (1, 600, 901))  # batch, height, width

ANY_IMAGE = {0: Dim("batch", min=1), 2: Dim("height", min=16), 3: Dim("width", min=16)}
BIQA_WEIGHTS = {"bundled": models.BUNDLED_WEIGHTS, "koncept512": models.KONCEPT512_WEIGHTS}
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

Case = dict[str, Tensor]  # a model's inputs by name, then "expected", its output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files")
    parser.add_argument("--what", choices=("filter", "biqa"), default="filter", help="the filter, or a quality model (default: filter)")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="the filter to export (default: the shipped one)")
    parser.add_argument("--biqa", metavar="SPEC", help="the quality model to export, bundled or koncept512[:FILE] (default: bundled)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")


def run(args: argparse.Namespace) -> int:
    """Export; return 0. Raises CamoError like ``export_filter`` and ``export_biqa``."""
    if args.what == "filter":
        if args.biqa is not None:
            raise CamoError(f"--biqa {args.biqa} goes with --what biqa")
        export_filter(args.checkpoint or SHIPPED_FILTER, args.out, args.overwrite)
    else:
        if args.checkpoint is not None:
            raise CamoError(f"--checkpoint {args.checkpoint} goes with --what filter")
        export_biqa(args.biqa or "bundled", args.out, args.overwrite)
    return 0


def export_filter(checkpoint: Path, out: Path, overwrite: bool = False) -> None:
    """Write ``filter.ts``, ``filter.pt2`` and, where ONNX's packages are installed, ``filter.onnx`` into ``out``.

    Raises CamoError: a bad checkpoint, a file that exists already or cannot be written, one that fails its check.
    """
    model = load_filter(checkpoint)
    provenance = {**origin(checkpoint), "arguments": model.arguments, "training": read_provenance(checkpoint)}
    missing = missing_onnx_packages()
    script_path, program_path, onnx_path = targets = [out / f"filter.{suffix}" for suffix in ("ts", "pt2", "onnx")]
    claim(targets[:2] if missing else targets, overwrite)
    cases = filter_cases(model)
    write(script_path, torchscript(model, provenance), cases, FILTER_TOLERANCE)
    program = trace(model, image=photo_like(2, 48, 64), strength=torch.tensor(1.0))
    write(program_path, serialized(program, provenance), cases, FILTER_TOLERANCE)
    if missing:
        print(f"{onnx_path} left out: {', '.join(missing)} not installed (pip install {' '.join(ONNX_PACKAGES)})")
    else:
        write(onnx_path, onnx(program, ("image", "strength"), "filtered", provenance), cases, FILTER_TOLERANCE)


def export_biqa(spec: str, out: Path, overwrite: bool = False) -> None:
    """Write the quality model ``bundled`` or ``koncept512[:FILE]`` into ``out``, as ``bundled.onnx`` or ``koncept512.onnx``.

    Raises CamoError: another model, missing weights, ONNX's packages not installed, and what ``export_filter`` raises for files.
    """
    name, _, file = spec.partition(":")
    if name not in BIQA_WEIGHTS:
        raise CamoError(f"cannot export the quality model {spec!r}: choose bundled or koncept512[:FILE]")
    if missing := missing_onnx_packages():
        raise CamoError(f"--what biqa needs {', '.join(missing)}: pip install {' '.join(ONNX_PACKAGES)}")
    model = models.load(spec)
    path = out / f"{name}.onnx"
    claim([path], overwrite)
    program = trace(model, image=photo_like(2, 48, 64))
    provenance = origin(Path(file) if file else BIQA_WEIGHTS[name])
    write(path, onnx(program, ("image",), "score", provenance), score_cases(model), SCORE_TOLERANCE)


def missing_onnx_packages() -> list[str]:
    """Those of the packages needed to write and run ONNX files that are not installed."""
    return [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]


def origin(weights: Path) -> dict[str, Any]:
    """Where an exported file comes from: versions, and the weights' file name and SHA-256."""
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"camo": __version__, "torch": torch.__version__, "weights": weights.name, "sha256": digest}


def claim(paths: Sequence[Path], overwrite: bool) -> None:
    """Make the paths' folder. Raises CamoError where that fails or, without ``overwrite``, one of them exists."""
    for path in paths:
        if path.exists() and not overwrite:
            raise CamoError(f"{path} exists; --overwrite replaces it")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CamoError(f"{path.parent}: not a folder to write to ({error.strerror})") from error


def photo_like(batch: int, height: int, width: int) -> Tensor:
    """(B, 3, H, W) float32 in [0, 1], always the same: smooth colours from dark to bright under a fine texture."""
    random = torch.Generator().manual_seed(0)
    colours = F.interpolate(torch.rand(batch, 3, 6, 8, generator=random), (height, width), mode="bilinear")
    return 0.8 * colours + 0.2 * torch.rand(batch, 3, height, width, generator=random)


@torch.no_grad()
def filter_cases(model: nn.Module) -> list[Case]:
    """``FILTER_CASES`` and what the eager filter makes of them."""
    images = [(photo_like(*size), strength) for *size, strength in FILTER_CASES]
    return [{"image": image, "strength": torch.tensor(strength), "expected": model(image, strength)} for image, strength in images]


@torch.no_grad()
def score_cases(model: nn.Module) -> list[Case]:
    """``SCORE_CASES`` and the eager model's scores."""
    return [{"image": image, "expected": model(image)} for image in (photo_like(*size) for size in SCORE_CASES)]


def torchscript(model: nn.Module, provenance: dict[str, Any]) -> bytes:
    """A model as TorchScript. Its deprecation is not the user's concern: it is the one form that runs in every torch, from C++ too."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated")
        torch.jit.save(torch.jit.script(model), content, _extra_files={"provenance.json": json.dumps(provenance)})
    return content.getvalue()


def trace(model: nn.Module, image: Tensor, **other: Tensor) -> ExportedProgram:
    """A model as a graph for images of any size and batch; ``other`` inputs keep their shape.

    The size is an expression all through. What torch would otherwise assume from the example, say that the image needs padding, is left
    to run time, where the operators themselves check what they need.
    """
    contiguous = copy.deepcopy(model).to(memory_format=torch.contiguous_format)  # archives warn about channels-last weights
    return torch.export.export(
        contiguous,
        (image, *other.values()),
        dynamic_shapes=(ANY_IMAGE, *(None for _ in other)),
        prefer_deferred_runtime_asserts_over_guards=True,
    )


def serialized(program: ExportedProgram, provenance: dict[str, Any]) -> bytes:
    """A traced model as a torch.export archive."""
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={"provenance.json": json.dumps(provenance)})
    return content.getvalue()


def onnx(program: ExportedProgram, inputs: Sequence[str], output: str, provenance: dict[str, Any]) -> bytes:
    """A traced model in ONNX, the image first of its inputs."""
    converted = torch.onnx.export(
        program,
        input_names=inputs,
        output_names=[output],
        dynamic_shapes=(ANY_IMAGE, *(None for _ in inputs[1:])),
        dynamo=True,
        verbose=False,
    )
    converted.model.metadata_props["provenance"] = json.dumps(provenance)
    return converted.model_proto.SerializeToString()


def write(path: Path, content: bytes, cases: Sequence[Case], tolerance: float) -> None:
    """Write a file, run it, and give it its name where it agrees with the eager model; print how far it is from it.

    Raises CamoError, and leaves no file behind, where it does not agree, does not run or cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            temporary.write_bytes(content)
            apart = largest_difference(temporary, cases)
            if not apart <= tolerance:  # NaN too
                raise CamoError(f"{path}: {apart:.4g} from the eager model, more than {tolerance:.4g}; not kept")
            temporary.replace(path)
    except OSError as error:
        raise CamoError(f"{path}: cannot be written ({error.strerror or error})") from error
    print(f"{path}: {len(content) / 1e6:.1f} MB, at most {apart:.2g} from the eager model (allowed: {tolerance:.2g})")


def largest_difference(path: Path, cases: Sequence[Case]) -> float:
    """The largest difference over all cases between an exported file, run by a process without camo, and ``expected``; NaN for NaN.

    Raises CamoError where the file does not run.
    """
    arrays = {f"{number}.{name}": tensor.numpy() for number, case in enumerate(cases) for name, tensor in case.items()}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "cases.npz", **arrays)
        # -P and another folder to start in: camo is not found by accident, and none of its modules hides one of the same name.
        command = [sys.executable, "-P", check.__file__, str(path.absolute()), "cases.npz"]
        process = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        raise CamoError(f"{path.name}: does not run without this package ({reason[:200]})")
    return float(process.stdout)
