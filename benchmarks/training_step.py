"""Arithmetic and memory of a step of ``train.py --preset task``, counted on a CPU: ``python -m benchmarks.training_step``.

For each network of the step, forwards and backwards, per crop of 512x384 px: floating-point operations of its convolutions and matrix products, and
bytes of the tensors that autograd keeps for the way back, each storage once, parameters not counted. Weights are random, which changes neither. Time
and memory on a GPU are estimates from these, not measurements.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import lpips
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import tell
from camo.filter.generator import Filter
from camo.quality.efficientnet import EfficientNetQuality, fold_batch_norm
from camo.quality.koncept512 import KonCept512
from camo.quality.models import Frozen
from camo.training.channel import soft_jpeg
from camo.training.perceptual import NoTerms, Visibility

SIZE = (384, 512)


def cost(forward: Callable[[Tensor], Tensor], module: nn.Module) -> tuple[float, float]:
    """GFLOP of a pass forwards and backwards, and MB that are kept in between, for one crop."""
    image = torch.rand(1, 3, *SIZE, requires_grad=True)
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            result = forward(image)
        result.sum().backward()
    return counter.get_total_flops() / 1e9, sum(kept.values()) / 1e6


def main() -> None:
    """Count and tell."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    model, koncept512 = Filter(coordinates=True), KonCept512().eval()
    fold_batch_norm(koncept512.base)
    scorer, student = Frozen(koncept512, ""), Frozen(EfficientNetQuality().eval(), "")
    visibility = Visibility(NoTerms())
    original = torch.rand(1, 3, *SIZE)
    parts: dict[str, tuple[Callable[[Tensor], Tensor], nn.Module]] = {
        "filter": (model, model),
        "soft JPEG": (lambda image: soft_jpeg(image, torch.tensor([80])), nn.Identity()),
        "KonCept512": (scorer, scorer),
        "a student (EfficientNet-Lite0)": (student, student),
        "terms without deep features": (lambda image: torch.stack(list(visibility(original, image).values())).sum(), visibility),
    }
    for net in ("vgg", "alex"):
        network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).requires_grad_(False).eval()
        parts[f"LPIPS, {net}"] = (lambda image, network=network: network(original, image, normalize=True), network)
    rows = []
    for name, (forward, module) in parts.items():
        flops, kept = cost(forward, module)
        weights = sum(parameter.numel() for parameter in module.parameters()) * 4 / 1e6
        rows.append({"part": name, "GFLOP per crop": flops, "MB kept per crop": kept, "MB of weights": weights})
    tell("training step", rows, args.json)


if __name__ == "__main__":
    main()
