"""Exported files that are kept only once a process without this package has run them and found what the eager model gives."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from camo import CamoError
from camo.export import check

Case = dict[str, Tensor]  # a model's inputs by name, then "expected", its output


def claim(paths: Sequence[Path], overwrite: bool) -> None:
    """Make the paths' folder. Raises CamoError where that fails or, without ``overwrite``, one of them exists."""
    for path in paths:
        if path.exists() and not overwrite:
            raise CamoError(f"{path} exists; --overwrite replaces it")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CamoError(f"{path.parent}: not a folder to write to ({error.strerror})") from error


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
        np.savez(Path(folder) / "cases.npz", **arrays)  # type: ignore[arg-type]  # none is called allow_pickle
        # -P and another folder to start in: camo is not found by accident, and none of its modules hides one of the same name.
        command = [sys.executable, "-P", check.__file__, str(path.absolute()), "cases.npz"]
        process = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        raise CamoError(f"{path.name}: does not run without this package ({reason[:200]})")
    return float(process.stdout)
