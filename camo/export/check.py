"""Run an exported file where ``camo`` cannot be imported, and compare what it gives with what the eager model gave.

Started by ``camo.export.checked`` as a program, by path (``python -P check.py FILE CASES``), so that nothing of this package is loaded.
CASES is an .npz file: for the case number n the inputs, such as ``n.image`` (B, 3, H, W) float32 and, for a filter, ``n.strength`` () float32, and
the output ``n.expected``, floats or 8-bit pixels. Prints the largest absolute difference over all cases, pixels counted as 0 to 1.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np


def main(file: Path, cases: Path) -> None:
    """Print the difference, NaN where an output is NaN.

    Raises whatever the file's runtime raises, and ValueError for an output of another shape.
    """
    sys.modules["camo"] = None  # type: ignore[assignment]  # from here on, importing the package or a part of it fails
    run = load(file)
    print(np.max([difference(run, case) for case in read_cases(cases)]))


def load(file: Path) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """The exported model as a function of its named inputs; only the runtime that the file needs is imported."""
    if file.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(None, inputs)[0]

    import torch

    if file.suffix == ".ts":
        script = torch.jit.load(file)
        return lambda inputs: script(torch.from_numpy(inputs["image"]), inputs["strength"].item()).numpy()
    program = torch.export.load(file).module()
    return lambda inputs: program(*map(torch.from_numpy, inputs.values())).numpy()


def read_cases(path: Path) -> list[dict[str, np.ndarray]]:
    """The arrays of each case by name, in the order of their numbers and then of the file."""
    cases: dict[int, dict[str, np.ndarray]] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            number, name = key.split(".")
            cases.setdefault(int(number), {})[name] = arrays[key]
    return [cases[number] for number in sorted(cases)]


def difference(run: Callable[[dict[str, np.ndarray]], np.ndarray], case: dict[str, np.ndarray]) -> float:
    """The largest absolute difference between the output of one case and ``expected``, which is taken out of it; NaN where one is NaN.

    Where 8-bit pixels are expected, an output of floats is rounded to them first.
    """
    expected = case.pop("expected")
    output = run(case)
    if output.shape != expected.shape:
        raise ValueError(f"an input of {next(iter(case.values())).shape} gave {output.shape} instead of {expected.shape}")
    if output.dtype == np.uint8:
        return float(np.abs(output.astype(int) - expected).max()) / 255
    if expected.dtype == np.uint8:
        return float(np.abs(np.rint(output * 255) - expected).max()) / 255
    return float(np.abs(output - expected).max())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
