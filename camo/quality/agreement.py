"""How far a quality model agrees with people: ``python -m camo.quality.agreement --opinions CSV --photos FOLDER [--biqa SPEC]``.

Prints JSON: correlations and errors over all rated photos and over each group of names, and what must hold whoever is asked: JPEG 90 hardly changes
the score of a good photo, and a blurred, noisy, strongly compressed or enlarged version of it scores lower.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable

import torch
from scipy.stats import pearsonr, spearmanr
from torch import Generator, Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from camo import CamoError
from camo.device import choose
from camo.photos.images import jpeg_roundtrip, read, to_float, to_uint8
from camo.quality import distortions, models
from camo.quality.opinions import Opinion, add_arguments, from_arguments

Scorer = Callable[[Tensor], Tensor]  # (B, 3, H, W) float RGB in [0, 1] -> (B,) on 0..100
GOOD = 60.0  # mean opinion from which a photo counts as good


@torch.inference_mode()
def agreement(scorer: Scorer, opinions: list[Opinion], device: torch.device | str = "cpu") -> tuple[dict[str, float], Tensor]:
    """Figures of a model on rated photos, each seen whole at its own size, and its scores, (N,)."""
    photos = tqdm(opinions, desc="agreement", mininterval=5, leave=False, disable=None)
    scores = torch.cat([scorer(to_float(read(opinion.path).pixels)[None].to(device)).cpu() for opinion in photos])
    return figures(scores, torch.tensor([opinion.score for opinion in opinions])), scores


def figures(scores: Tensor, wanted: Tensor) -> dict[str, float]:
    """Agreement of scores and mean opinions, both (N,) on 0..100.

    ``srcc`` and ``plcc`` are Spearman's and Pearson's correlation (no mapping is fitted), ``error`` is the mean absolute difference in points, and
    ``same_side`` the share of photos that model and people put on the same side of 50.
    """
    return {
        "photos": len(scores),
        "srcc": float(spearmanr(scores, wanted).statistic),
        "plcc": float(pearsonr(scores.double(), wanted.double()).statistic),
        "error": (scores - wanted).abs().mean().item(),
        "same_side": ((scores > models.THRESHOLD) == (wanted > models.THRESHOLD)).float().mean().item(),
        "score_mean": scores.mean().item(),
        "opinion_mean": wanted.mean().item(),
    }


def degraded_versions(image: Tensor, rng: Generator) -> dict[str, Tensor]:
    """What anybody calls worse: blur of sigma 2 px, noise of 15/255, JPEG 20, half the size enlarged again. Shape: (1, 3, H, W) -> the same each."""
    height, width = image.shape[-2:]
    half = interpolate(image, (height // 2, width // 2), mode="bilinear", antialias=True)
    versions = {
        "blur, sigma 2": distortions.gaussian_blur2d(image, (13, 13), (2.0, 2.0)),
        "noise, 15/255": image + 15 / 255 * torch.randn(image.shape, generator=rng),
        "JPEG 20": jpeg_roundtrip(image, 20),
        "half size, enlarged": interpolate(half, (height, width), mode="bilinear"),
    }
    return {name: to_float(to_uint8(version)) for name, version in versions.items()}


@torch.inference_mode()
def robustness(scorer: Scorer, opinions: list[Opinion], device: torch.device | str = "cpu") -> dict[str, float]:
    """On photos of a mean opinion of ``GOOD`` or more: mean change by JPEG 90, in points; share of each degradation's versions ranked below clean."""
    rng, changes = Generator().manual_seed(0), []
    below: dict[str, list[bool]] = {}
    good = [opinion for opinion in opinions if opinion.score >= GOOD]
    for opinion in tqdm(good, desc="robustness", mininterval=5, leave=False, disable=None):
        image = to_float(read(opinion.path).pixels)[None]
        versions = {"JPEG 90": jpeg_roundtrip(image, 90), **degraded_versions(image, rng)}
        clean, compressed, *worse = scorer(torch.cat([image, *versions.values()]).to(device)).tolist()
        changes.append(abs(compressed - clean))
        for name, score in zip(list(versions)[1:], worse, strict=True):
            below.setdefault(name, []).append(score < clean)
    means = {f"below clean: {name}": sum(values) / len(values) for name, values in below.items()}
    return {"photos": len(good), "change by JPEG 90": sum(changes) / len(changes), **means} if good else {"photos": 0}


def main() -> int:
    """Score, compare, print; returns the exit status."""
    parser = argparse.ArgumentParser(description="how far a quality model agrees with people's opinions")
    add_arguments(parser)
    parser.add_argument("--biqa", default="bundled", help="quality model, as for camo score (default: bundled)")
    parser.add_argument("--groups", default="", metavar="REGEX", help="figures of each group too: what this matches at the start of a name")
    parser.add_argument("--robustness", type=int, default=200, metavar="N", help="look at degraded versions of the first N photos (default: 200)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda or mps (default: cuda if there is a GPU, else mps, else cpu)")
    args = parser.parse_args()
    try:
        device = choose(args.device)
        scorer = models.load(args.biqa, device)
        opinions = from_arguments(args)
        everything, scores = agreement(scorer, opinions, device)
        report = {"biqa": args.biqa, "all": everything}
        groups: dict[str, list[int]] = {}
        for number, opinion in enumerate(opinions):
            if args.groups and (start := re.match(args.groups, opinion.path.name)):
                groups.setdefault(start[0], []).append(number)
        wanted = torch.tensor([opinion.score for opinion in opinions])
        report |= {group: figures(scores[members], wanted[members]) for group, members in sorted(groups.items())}
        report["robustness"] = robustness(scorer, opinions[: args.robustness], device)
    except (CamoError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
