"""Any no-reference model of pyiqa (Chen and Mo, "IQA-PyTorch: PyTorch Toolbox for Image Quality Assessment", 2022), as ``pyiqa:NAME``.

pyiqa declares each model's range and direction; they are mapped linearly to 0..100, higher is better. A bound that pyiqa calls approximate ("~10") is
taken as it stands, so scores may leave 0..100 a little; where a bound is open ("~"), there is no such map and the model is refused. Needs the extra
``camo[pyiqa]``. The weights are pyiqa's business: it keeps them in its cache, or fetches them there.
"""

import contextlib
import math
import sys

from torch import Tensor, nn

from camo import CamoError
from camo.photos.files import reason


class PyiqaQuality(nn.Module):
    """A pyiqa model on 0..100, gradients kept where it has them. Shape: (B, 3, H, W) float RGB in [0, 1] -> (B,)."""

    def __init__(self, model: nn.Module, worst: float, best: float) -> None:
        super().__init__()
        self.model, self.worst, self.best = model, worst, best

    def forward(self, image: Tensor) -> Tensor:
        """Scores."""
        score = self.model(image.clamp(0, 1)).float().reshape(len(image))  # pyiqa gives (B, 1), (B,) or, for one image, a scalar
        return 100 * (score - self.worst) / (self.best - self.worst)


def load_pyiqa(name: str) -> PyiqaQuality:
    """The model of that name.

    Raises CamoError where pyiqa is not installed, knows no such no-reference model, declares no finite range for it, or cannot get its weights.
    """
    try:
        import pyiqa
    except ImportError as error:
        raise CamoError(f"pyiqa:{name}: needs the package pyiqa ({reason(error)}): pip install 'camo[pyiqa]'") from error
    known = pyiqa.list_models(metric_mode="NR")
    if name not in known:
        raise CamoError(f"pyiqa:{name}: not one of pyiqa's no-reference models: {', '.join(known)}")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # pyiqa prints where it loads weights from
            metric = pyiqa.create_metric(name, device="cpu", as_loss=True)
    except Exception as error:  # a download, a file or one of forty constructors fails in any way
        raise CamoError(f"pyiqa:{name}: cannot be loaded, perhaps because its weights cannot be fetched ({reason(error):.200})") from error
    worst, best = declared_range(name, str(metric.score_range))
    if metric.lower_better:
        worst, best = best, worst
    return PyiqaQuality(metric.net, worst, best)


def declared_range(name: str, text: str) -> tuple[float, float]:
    """The lowest and the highest score of a declaration such as "0, 1" or "~-3, ~3". Raises CamoError where one is open."""
    with contextlib.suppress(ValueError):
        low, high = (float(bound.strip().lstrip("~") or "nan") for bound in text.split(","))
        if math.isfinite(low) and math.isfinite(high) and low < high:
            return low, high
    raise CamoError(f"pyiqa:{name}: pyiqa declares the range {text!r}, which cannot be mapped to 0..100")
