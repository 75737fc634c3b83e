"""Time of one forward pass of the shipped filter: ``python -m benchmarks.generator [--sizes 512x384 1024x768] [--threads N]``."""

import argparse
import statistics
import time
from pathlib import Path

import torch

from benchmarks.common import add_device, synchronise, tell
from camo.camouflage.memory import keep_freed_memory
from camo.filter.checkpoint import load_filter


def seconds_each(model: torch.nn.Module, image: torch.Tensor, repeats: int) -> list[float]:
    """Seconds of each of ``repeats`` passes on the image's device, after three that are not counted."""
    times = []
    with torch.inference_mode():
        for _ in range(3 + repeats):
            synchronise(image.device)
            start = time.perf_counter()
            model(image)
            synchronise(image.device)
            times.append(time.perf_counter() - start)
    return times[3:]


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["512x384"], help="width x height (default: 512x384)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    add_device(parser)
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as infer.py does
    model = load_filter(device=args.device)
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    rows = []
    for size in args.sizes:
        width, height = map(int, size.split("x"))
        times = seconds_each(model, torch.rand(1, 3, height, width, device=args.device), args.repeats)
        rows.append(
            {"size": size, "fastest s": min(times), "median s": statistics.median(times), "slowest s": max(times), "M parameters": parameters}
        )
    tell("generator", rows, args.json, args.device)


if __name__ == "__main__":
    main()
