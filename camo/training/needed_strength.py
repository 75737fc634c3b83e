"""Teach a filter what strength each photo needs: ``python -m camo.training.needed_strength --checkpoint FILE --data FOLDER --val FOLDER --out FILE``.

For every photo the least strength is sought at which it is protected after the operations (bisection, as if the score fell steadily). The logarithm
of it is then fitted by ridge regression to statistics of the trunk's maps, which the filter computes anyway; how strong the regularisation should be
is found by cross-validation. On other photos a constant is added, such that the share asked for is protected at what is foretold. Prints JSON: how
well it foretells, and PSNR and protected rates on the validation photos with one strength for all and with a strength for each.
"""

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from tqdm import tqdm

from camo import CamoError
from camo.device import choose, device_of
from camo.filter.checkpoint import load_filter, read_provenance, save_filter
from camo.filter.generator import Filter, power_of
from camo.filter.needed_strength import NeededStrength
from camo.measure.after import scores_after
from camo.measure.operations import GRID
from camo.photos.images import to_float, to_uint8
from camo.quality import models
from camo.training.crops import CentreCrops, list_photos

STRENGTHS = torch.linspace(math.log(NeededStrength.LEAST), math.log(NeededStrength.MOST), 19).exp().tolist()  # each 12% more than the last
PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)  # of the ridge regression
FOLDS = 10


@dataclass(frozen=True)
class Needs:
    """What N photos need, of those that score above 50 unfiltered.

    Attributes:
        statistics: (N, 352) double, of the trunk's maps.
        strengths: (N,) double; infinite where the most is not enough.
        decibels: (N, S) double, PSNR at each of ``STRENGTHS``, before values are rounded or cut off at black and white.
    """

    statistics: Tensor
    strengths: Tensor
    decibels: Tensor

    def at(self, strengths: Tensor) -> dict[str, float]:
        """Protected rate and mean PSNR if each photo gets this strength, (N,)."""
        nearest = (strengths[:, None].log() - torch.tensor(STRENGTHS).log()).abs().argmin(1)
        return {"protected": (strengths >= self.strengths).double().mean().item(), "psnr": self.decibels.gather(1, nearest[:, None]).mean().item()}


@torch.inference_mode()
def needs(model: Filter, scorer: nn.Module, photos: list[Path], operations: list[str]) -> Needs:
    """Look at photos, cut to 512x384 about their centre; ``model`` foretells nothing itself."""
    statistics, strengths, decibels = [], [], []
    crops, device = CentreCrops(photos, (384, 512)), device_of(model)
    for number in tqdm(range(len(crops)), desc="needs", unit="photo", mininterval=5):
        pixels = crops[number]
        if max(scores_after(scorer, [pixels], operation, device)[0] for operation in operations) < models.THRESHOLD:
            continue
        original = to_float(pixels[None].to(device))
        plan, seen = model.as_trained(original)
        residual = model.residual(plan, original)
        low, high = 0, len(STRENGTHS)  # the first strength that suffices is within these
        while low < high:
            middle = (low + high) // 2
            louder = STRENGTHS[middle] * residual
            filtered = to_uint8((original + model.hold(louder, model.ceiling([louder]))).clamp(0, 1)).cpu()
            if all(scores_after(scorer, filtered, operation, device)[0] < models.THRESHOLD for operation in operations):
                high = middle
            else:
                low = middle + 1
        statistics.append(seen[0].cpu().double())
        strengths.append(STRENGTHS[low] if low < len(STRENGTHS) else math.inf)
        amplitude = power_of(residual).sqrt()
        held = [torch.minimum((strength * amplitude).square(), model.ceiling([strength * amplitude])).mean().item() for strength in STRENGTHS]
        decibels.append([-10 * math.log10(max(power, 1e-10)) for power in held])
    if len(strengths) < FOLDS:
        raise CamoError(f"{len(strengths)} of {len(photos)} photos score above {models.THRESHOLD:g}: too few to learn from")
    return Needs(torch.stack(statistics), torch.tensor(strengths).double(), torch.tensor(decibels).double())


def ridge(inputs: Tensor, wanted: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Weights, (D,), and bias of a linear map, (N, D) -> (N,), fitted on standardised inputs."""
    mean, deviation = inputs.mean(0), inputs.std(0).clamp(min=1e-6)
    standard = (inputs - mean) / deviation
    gram = standard.T @ standard + penalty * torch.eye(inputs.shape[1], dtype=inputs.dtype)
    weights = torch.linalg.solve(gram, standard.T @ (wanted - wanted.mean())) / deviation
    return weights, wanted.mean() - mean @ weights


def cross_validated(inputs: Tensor, wanted: Tensor, penalty: float) -> Tensor:
    """What is foretold for each row by a fit without it. Shape: (N, D), (N,) -> (N,)."""
    foretold = torch.empty_like(wanted)
    for fold in torch.randperm(len(wanted), generator=Generator().manual_seed(0)).chunk(FOLDS):
        others = torch.ones(len(wanted), dtype=torch.bool)
        others[fold] = False
        weights, bias = ridge(inputs[others], wanted[others], penalty)
        foretold[fold] = inputs[fold] @ weights + bias
    return foretold


def fit(training: Needs, validation: Needs, rate: float) -> tuple[NeededStrength, dict[str, object]]:
    """The map, and figures. Photos for which the most is not enough count as if it were. ``rate``: the share of photos to protect."""
    wanted = training.strengths.clamp(max=NeededStrength.MOST).log()
    errors = {penalty: (cross_validated(training.statistics, wanted, penalty) - wanted).square().mean().sqrt().item() for penalty in PENALTIES}
    penalty = min(errors, key=lambda one: errors[one])
    weights, bias = ridge(training.statistics, wanted, penalty)
    foretold = validation.statistics @ weights + bias
    missing = (validation.strengths.log() - foretold).sort().values  # by how much each photo would miss
    bias = bias + missing[min(len(missing) - 1, math.ceil(rate * len(missing)) - 1)].clamp(max=math.log(NeededStrength.MOST) - foretold.min()) + 1e-6
    needed = NeededStrength()
    with torch.no_grad():
        needed.linear.weight.copy_(weights[None])
        needed.linear.bias.fill_(bias.item())
    each = needed(validation.statistics.float()).flatten().double()
    constant = validation.strengths.sort().values[math.ceil(rate * len(missing)) - 1].clamp(max=NeededStrength.MOST)
    finite = validation.strengths.isfinite()
    figures = {
        "photos": [len(training.strengths), len(validation.strengths)],
        "penalty": penalty,
        "error of log strength": {"cross-validated": errors[penalty], "without statistics": wanted.std().item()},
        "correlation": torch.corrcoef(torch.stack([foretold[finite], validation.strengths[finite].log()]))[0, 1].item() if finite.sum() > 2 else None,
        "one strength for all": validation.at(constant.expand(len(missing))) | {"strength": constant.item()},
        "foretold": validation.at(each) | {"strengths": each.quantile(torch.tensor([0.05, 0.5, 0.95]).double()).tolist()},
        "known": validation.at(validation.strengths.clamp(max=NeededStrength.MOST)),
    }
    return needed, figures


def main() -> int:
    """Look, fit, write; returns the exit status."""
    parser = argparse.ArgumentParser(description="teach a filter what strength each photo needs")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="the filter")
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="FOLDER", help="photos to learn from")
    parser.add_argument("--val", type=Path, nargs="+", required=True, metavar="FOLDER", help="photos to choose the constant on")
    parser.add_argument("--photos", type=int, default=600, metavar="N", help="of --data, evenly spaced in the list (default: 600)")
    parser.add_argument("--biqa", default="bundled", metavar="MODEL", help="quality model, as for camo score (default: bundled)")
    parser.add_argument("--after", nargs="+", default=["JPEG 75"], choices=GRID, metavar="OP", help="protected after these (default: JPEG 75)")
    parser.add_argument("--rate", type=float, default=0.8, metavar="X", help="share of --val to protect (default: 0.8)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the filter that foretells")
    parser.add_argument("--device", metavar="D", help="cpu, cuda or mps (default: cuda if there is a GPU, else mps, else cpu)")
    args = parser.parse_args()
    try:
        if not 0 < args.rate <= 1:
            raise CamoError(f"--rate {args.rate}: should be above 0 and at most 1")
        if args.out.exists():
            raise CamoError(f"{args.out}: exists already")
        device = choose(args.device)
        model, scorer = load_filter(args.checkpoint).foretelling(None).to(device), models.load(args.biqa, device)
        photos = list_photos(args.data)
        training = needs(model, scorer, photos[:: max(1, len(photos) // args.photos)][: args.photos], args.after)
        needed, figures = fit(training, needs(model, scorer, list_photos(args.val), args.after), args.rate)
        provenance = {"foretold": {"after": args.after, "rate": args.rate, **figures}}
        save_filter(args.out, model.foretelling(needed), read_provenance(args.checkpoint) | provenance)
    except (CamoError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
