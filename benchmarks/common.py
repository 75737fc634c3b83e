"""What the benchmarks share: photos to work on, whole processes timed, and figures told as a table and as JSON with the machine that gave them."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from camo import __version__

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = sorted((ROOT / "data/sample/test").glob("*.jpg"))


def add_device(parser: argparse.ArgumentParser) -> None:
    """The flag ``--device``."""
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu, cuda or mps (default: cpu)")


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was given: it works on while the clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_photos(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Write ``count`` JPEGs of (width, height) pixels, the sample photos in turn, enlarged or reduced."""
    folder.mkdir(parents=True)
    for index in range(count):
        with Image.open(SAMPLE[index % len(SAMPLE)]) as picture:
            picture.resize(size, Image.Resampling.BICUBIC).save(folder / f"{index:05}.jpg", quality=95, subsampling="4:4:4")


def run_infer(*arguments: object) -> tuple[float, float]:
    """Run ``infer.py`` as a process of its own: seconds from its start to its end, and the peak of its resident memory, not a GPU's, in GB."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, ROOT / "infer.py", *map(str, arguments)], stdout=subprocess.DEVNULL, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"infer.py {' '.join(map(str, arguments))}: failed")
    return time.perf_counter() - start, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def tell(name: str, rows: Sequence[dict[str, Any]], out: Path | None, device: torch.device | str = "cpu") -> None:
    """Print the rows as a table, then all of it as JSON, with the device they were measured on; the JSON also to the file ``out``."""
    cells = [list(rows[0]), *([f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "system": platform.system()}
    device = torch.device(device)
    machine["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    versions = {"python": platform.python_version(), "torch": torch.__version__, "camo": __version__}
    document = json.dumps({"benchmark": name, **machine, **versions, "rows": list(rows)})
    print(document)
    if out:
        out.write_text(document + "\n")
