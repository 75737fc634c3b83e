"""Photos per second of ``infer.py`` as a whole process, beside the bare forward passes: ``python -m benchmarks.throughput [--count 200]``."""

import argparse
import tempfile
from itertools import product
from pathlib import Path

import torch

from benchmarks.common import add_device, make_photos, run_infer, tell
from benchmarks.generator import seconds_each
from camo.camouflage.batches import default_batch_size
from camo.camouflage.memory import keep_freed_memory
from camo.filter.checkpoint import load_filter


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="photos (default: 200)")
    parser.add_argument("--sizes", nargs="+", default=["512x384"], help="width x height (default: 512x384)")
    parser.add_argument("--batches", nargs="+", type=int, help="photos filtered together (default: as infer.py chooses by size and device)")
    add_device(parser)
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    keep_freed_memory()  # as infer.py does
    model = load_filter(device=args.device)
    rows = []
    for size, given in product(args.sizes, args.batches or [None]):
        width, height = map(int, size.split("x"))
        batch = given or default_batch_size(args.device, height, width)
        with tempfile.TemporaryDirectory() as folder:
            make_photos(Path(folder, "in"), args.count, (width, height))
            command = (Path(folder, "in"), "--out", Path(folder, "out"), "--batch-size", batch, "--device", args.device)
            whole, peak = run_infer(*command)
        bare = sum(seconds_each(model, torch.rand(batch, 3, height, width, device=args.device), -(-args.count // batch)))
        rows.append(
            {
                "size": size,
                "batch": batch,
                "photos/s": args.count / whole,
                "s": whole,
                "bare forwards s": bare,
                "ratio": whole / bare,
                "peak GB": peak,
            }
        )
    tell("throughput", rows, args.json, args.device)


if __name__ == "__main__":
    main()
