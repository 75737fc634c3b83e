"""Time of one forward pass of the shipped filter: ``python benchmarks/generator.py [--size 512x384] [--threads N]``."""

import argparse
import platform
import statistics
import time

import torch

from camo.checkpoint import load_filter


def seconds_each(model: torch.nn.Module, image: torch.Tensor, repeats: int) -> list[float]:
    """Seconds of each of ``repeats`` passes, after three that are not counted."""
    times = []
    with torch.inference_mode():
        for _ in range(3 + repeats):
            start = time.perf_counter()
            model(image)
            times.append(time.perf_counter() - start)
    return times[3:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="512x384", help="width x height (default: 512x384)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    width, height = map(int, args.size.split("x"))
    model = load_filter()
    times = seconds_each(model, torch.rand(1, 3, height, width), args.repeats)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{args.size}, {args.threads} threads, {platform.machine()}, torch {torch.__version__}, {parameters / 1e6:.2f} M parameters")
    print(f"seconds a photo: fastest {min(times):.4f}, median {statistics.median(times):.4f}, slowest {max(times):.4f}")


if __name__ == "__main__":
    main()
