"""Seconds of one photo from a cold start to the written file, and of ``--help``: ``python -m benchmarks.latency [--repeats 5]``.

Whole processes, import time included.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.common import make_photos, run_infer, tell


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_photos(Path(folder, "in"), 1, (512, 384))
        commands = {
            "infer.py --help": ["--help"],
            "infer.py PHOTO": [Path(folder, "in"), "--out", Path(folder, "out"), "--overwrite", "--device", "cpu"],
        }
        times = {name: [run_infer(*command)[0] for _ in range(args.repeats)] for name, command in commands.items()}
    tell("latency", [{"command": name, "fastest s": min(each), "median s": statistics.median(each)} for name, each in times.items()], args.json)


if __name__ == "__main__":
    main()
