"""Time and peak memory of ``infer.py`` on large photos: ``python -m benchmarks.memory [--megapixels 1 12 24 100] [--count 1]``."""

import argparse
import tempfile
from pathlib import Path

from benchmarks.common import add_device, make_photos, run_infer, tell


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", nargs="+", type=float, default=[1, 12, 24, 100], help="(default: 1 12 24 100), in 4:3")
    parser.add_argument("--count", type=int, default=1, help="photos of each size in one run; several wait for each other in memory (default: 1)")
    add_device(parser)
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    rows = []
    for megapixels in args.megapixels:
        height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
        with tempfile.TemporaryDirectory() as folder:
            make_photos(Path(folder, "in"), args.count, (round(height * 4 / 3), height))
            seconds, peak = run_infer(Path(folder, "in"), "--out", Path(folder, "out"), "--device", args.device)
        rows.append({"Mpx": megapixels, "photos": args.count, "s": seconds, "s/Mpx": seconds / megapixels / args.count, "peak GB": peak})
    tell("memory", rows, args.json, args.device)


if __name__ == "__main__":
    main()
