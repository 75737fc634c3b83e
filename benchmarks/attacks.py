"""Time of the filter beside per-image attacks, in one run: ``python -m benchmarks.attacks [--photos 4]``. No files are written."""

import argparse
from pathlib import Path

from benchmarks.common import SAMPLE, tell
from camo import attacks, biqa
from camo.checkpoint import SHIPPED_FILTER, load_filter
from camo.compare import OnePass, apply
from camo.images import read, to_float


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=4, help="sample photos, all in one batch for the attacks (default: 4)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    originals = [to_float(read(path).pixels) for path in SAMPLE[: args.photos]]
    scorer = biqa.load("bundled")
    sharing = attacks.through_jpeg(scorer)
    methods = {
        "filter": (OnePass(load_filter(SHIPPED_FILTER)), scorer),
        "adam, 60 steps": (attacks.AdamL2(steps=60), scorer),
        "adam through JPEG 90, 60 steps": (attacks.AdamL2(steps=60), sharing),
        "cw, 5 x 100 steps": (attacks.CarliniWagner(abort_early=False), scorer),
        "cw through JPEG 90, 5 x 100 steps": (attacks.CarliniWagner(abort_early=False), sharing),
    }
    seconds = {name: apply(attack, seen, originals, args.photos, "cpu", name)[1] for name, (attack, seen) in methods.items()}
    tell("attacks", [{"method": name, "s a photo": each, "times the filter": each / seconds["filter"]} for name, each in seconds.items()], args.json)


if __name__ == "__main__":
    main()
