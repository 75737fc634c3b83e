"""Time of the filter beside per-image attacks, one photo at a time, in one run: ``python -m benchmarks.attacks [--photos 4]``. No files are written.

The verified filter is that of ``infer.py --verify --refine 20``, from the decoded photo to the bytes to write.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from benchmarks.common import SAMPLE, tell
from camo.attacks.adam import AdamL2
from camo.attacks.apply import apply
from camo.attacks.attack import Attack, Scorer
from camo.attacks.carlini_wagner import CarliniWagner
from camo.attacks.one_pass import OnePass
from camo.attacks.through_jpeg import through_jpeg
from camo.camouflage.verify import Verifier
from camo.filter.checkpoint import SHIPPED_FILTER, load_filter
from camo.filter.full_size import FullSize
from camo.photos.images import Photo, read, to_float
from camo.quality import models

REFINE = 20  # steps
OPTIMISER = "adam through JPEG 90, 60 steps"  # what the verified filter should take a tenth of


def verified(model: FullSize, scorer: nn.Module, photos: Sequence[Photo]) -> tuple[str, float]:
    """(what was run, seconds per photo); the former says for how many photos no strength was enough, because these take the most time."""
    verifier = Verifier(model, {"bundled": scorer}, refine=REFINE)
    verdicts = [verifier(photo, 1.0)[1] for photo in photos]
    refined = sum(verdict.steps > 0 for verdict in verdicts)
    return f"filter, verified, {REFINE} steps for {refined} of {len(photos)}", sum(verdict.seconds for verdict in verdicts) / len(photos)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=4, help="sample photos (default: 4)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    photos = [read(path) for path in SAMPLE[: args.photos]]
    originals = [to_float(photo.pixels) for photo in photos]
    scorer, model = models.load("bundled"), FullSize(load_filter(SHIPPED_FILTER))
    sharing = through_jpeg(scorer)
    methods: dict[str, tuple[Attack, Scorer]] = {
        "filter": (OnePass(model), scorer),
        "adam, 60 steps": (AdamL2(steps=60), scorer),
        OPTIMISER: (AdamL2(steps=60), sharing),
        "cw, 5 x 100 steps": (CarliniWagner(abort_early=False), scorer),
        "cw through JPEG 90, 5 x 100 steps": (CarliniWagner(abort_early=False), sharing),
    }
    seconds = {name: apply(attack, seen, originals, 1, "cpu", name)[1] for name, (attack, seen) in methods.items()}
    seconds |= [verified(model, scorer, photos)]
    rows = [
        {"method": name, "s per photo": each, "times the filter": each / seconds["filter"], f"share of {OPTIMISER}": each / seconds[OPTIMISER]}
        for name, each in seconds.items()
    ]
    tell("attacks", rows, args.json)


if __name__ == "__main__":
    main()
