"""The filter and the bundled quality model cut into small ONNX files, from which the browser page puts together what ``infer.py`` does.

A browser has little memory, so a large photo passes in strips, as in ``camo.filter.full_size``. Each file holds one step, made of the filter's own
methods; whoever runs them only cuts strips and keeps what lies between the steps. For a photo of H x W px, pixels being (rows, W, 4) uint8 RGBA:

0. only with a look: ``seed``, which adds up the pixels of all strips, as the grain is drawn by the whole photo; then ``look_NAME``: pixels of each
   strip -> its pixels in the look, which take the photo's place in all that follows; ``grey``: takes the colours out of a greyscale photo again;
1. ``narrow``: pixels of each strip -> the strip reduced to the working width w, (1, 3, rows, w);
2. ``plan``: all of these, one below the other -> what the U-Net plans, at the working height h and the photo's width, (1, 3, h, W);
3. ``residual``: pixels of each strip with ``reach`` rows more above and below, and the plan -> the strip's residual, (1, 3, rows, W) float16;
4. ``power``: a residual -> its power, (1, 1, rows, W); ``tally``: adds up what lies under and above a ceiling, strip by strip;
   ``ceiling``: after each round over all strips, the next ceiling, ``rounds`` times;
5. ``second``: for large photos, 1 to 4 for the window in the centre, then its pixels and residual -> what is added there, (1, 3, rows, columns);
6. ``finish``: pixels and residual of each strip, the ceiling and the second residual -> pixels, opaque where they were.

``view`` and ``score`` are the quality model, as ``narrow`` and ``plan``. ``half_width`` and then ``half_height`` give the photo at half its size.
Sizes that a graph needs to know beyond its pixels are the lengths of its inputs ``rows`` (H) and ``columns`` (W), whose values do not matter:
exported graphs follow the shapes of inputs, not their values. ``networks.json`` holds the numbers that decide the sequence.
"""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from camo import CamoError
from camo.export.checked import Case, claim, write
from camo.export.export import ONNX_PACKAGES, SCORE_TOLERANCE, missing_onnx_packages, origin, photo_like
from camo.export.formats import Shapes, onnx, trace
from camo.filter.checkpoint import load_filter
from camo.filter.full_size import FullSize
from camo.filter.generator import Filter, power_of
from camo.filter.jnd import JustNoticeableDifference
from camo.filter.look_pixels import dithered, greyed
from camo.filter.look_settings import LOOKS, MOST
from camo.filter.looks import Look, seed_of
from camo.filter.two_pass import fade_in, least_large_area, pixels_at
from camo.photos.images import to_float, to_uint8
from camo.photos.working_size import working_size
from camo.quality.efficientnet import EfficientNetQuality
from camo.quality.models import BUNDLED_WEIGHTS, THRESHOLD, load_bundled

SETTINGS = "networks.json"
TOLERANCE = 1e-3  # of values whose own range is 0 to about 1
STEP = 1 / 255
# A plan is multiplied by the JND, at most 0.1: what it may differ by is a quarter of an 8-bit step even there.
TOLERANCES = {"plan": 0.01, "finish": STEP, "half_width": STEP, "half_height": STEP, "score": SCORE_TOLERANCE, "grey": STEP}
CHOICES = ("vivid", "warm", "golden", "cool", "mono", "film")  # the looks that the page offers; the other two are kinds of mono
TOLERANCES |= {f"look_{name}": STEP for name in CHOICES}  # they round to steps as well
# Of the tracer: it will not have a map of one pixel, to which the quality model comes below 33. The graphs do not mind.
H, W, ROWS, LOW, SLIM = (Dim(name, min=least) for name, least in (("H", 16), ("W", 16), ("rows", 3), ("h", 2), ("w", 33)))


def image_of(pixels: Tensor) -> Tensor:
    """Pixels of a canvas as values: (rows, columns, 4) uint8 RGBA -> (1, 3, rows, columns) float in [0, 1]."""
    return to_float(pixels[:, :, :3].permute(2, 0, 1)[None])


class Seed(nn.Module):
    """Step 0. Inputs: pixels, seed (int64), which begins with zero."""

    def forward(self, pixels: Tensor, seed: Tensor) -> Tensor:
        """The seed with one strip more."""
        return seed + seed_of(pixels[:, :, :3].permute(2, 0, 1)[None])[0]


class InLook(nn.Module):
    """Step 0. Inputs: pixels, rows, first (int64, the strip's first row), seed, amount (float, above 0)."""

    def __init__(self, look: Look) -> None:
        super().__init__()
        self.look = look

    def forward(self, pixels: Tensor, rows: Tensor, first: Tensor, seed: Tensor, amount: Tensor) -> Tensor:
        """The strip's pixels in the look, as ``LookPixels`` gives them, opaque where they were."""
        top: Any = first  # numbers where it is not a graph
        factor: Any = amount
        looked = self.look.part(image_of(pixels), seed[None], top, rows.shape[0], factor)
        steps = dithered(looked, pixels[:, :, :3].permute(2, 0, 1)[None].float(), top)
        return torch.cat([steps[0].permute(1, 2, 0).to(torch.uint8), pixels[:, :, 3:]], dim=2)


class Grey(nn.Module):
    """Step 0, for greyscale photos. Input: pixels."""

    luma: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("luma", torch.tensor(Look.LUMA).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """The pixels without colour, as ``dress`` leaves them, opaque where they were."""
        steps = greyed(pixels[:, :, :3].permute(2, 0, 1)[None], self.luma)
        return torch.cat([steps[0].permute(1, 2, 0).to(torch.uint8), pixels[:, :, 3:]], dim=2)


class Narrow(nn.Module):
    """Step 1. Inputs: pixels, rows. ``area`` and ``smallest`` as for ``working_size``."""

    def __init__(self, area: int, smallest: int) -> None:
        super().__init__()
        self.area, self.smallest = area, smallest

    def forward(self, pixels: Tensor, rows: Tensor) -> Tensor:
        """The strip in the working width; reducing the width needs no other rows."""
        image = image_of(pixels)
        _, width = working_size(rows.shape[0], pixels.shape[1], self.area, self.smallest)
        return F.interpolate(image, [image.shape[-2], width], mode="bilinear", antialias=True)


class Plan(nn.Module):
    """Step 2. Inputs: narrow (1, 3, H, w), columns."""

    def __init__(self, model: Filter) -> None:
        super().__init__()
        self.filter = model

    def forward(self, narrow: Tensor, columns: Tensor) -> Tensor:
        """Reduce the height, plan, widen."""
        height, _ = self.filter.working_size(narrow.shape[-2], columns.shape[0])
        plan = self.filter.plan(F.interpolate(narrow, [height, narrow.shape[-1]], mode="bilinear", antialias=True))
        return F.interpolate(plan, [plan.shape[-2], columns.shape[0]], mode="bilinear", align_corners=False)


class Residual(nn.Module):
    """Step 3. Inputs: pixels, plan, rows, strip (as long as the strip has rows), first (int64, the strip's first row in the photo)."""

    def __init__(self, model: Filter) -> None:
        super().__init__()
        self.filter = model

    def forward(self, pixels: Tensor, plan: Tensor, rows: Tensor, strip: Tensor, first: Tensor) -> Tensor:
        """As ``FullSize``, the place of each row being its centre's in the plan."""
        top = (first - JustNoticeableDifference.REACH).clamp(min=0)
        place = ((torch.arange(pixels.shape[0]) + top + 0.5) * (plan.shape[-2] / rows.shape[0]) - 0.5).clamp(min=0)
        above = place.floor().long().clamp(max=plan.shape[-2] - 1)
        below = (above + 1).clamp(max=plan.shape[-2] - 1)
        enlarged = torch.lerp(plan.index_select(2, above), plan.index_select(2, below), (place - above)[:, None])
        residual = self.filter.residual(enlarged, image_of(pixels))
        return residual.index_select(2, torch.arange(strip.shape[0]) + (first - top)).half()


class Power(nn.Module):
    """Step 4. Input: residual."""

    def forward(self, residual: Tensor) -> Tensor:
        """The power of each pixel."""
        return power_of(residual)


class Tally(nn.Module):
    """Step 4. Inputs: power, ceiling (1, 1, 1, 1), tally (2, 1, 1, 1), which begins with zeros."""

    def __init__(self, model: Filter) -> None:
        super().__init__()
        self.filter = model

    def forward(self, power: Tensor, ceiling: Tensor, tally: Tensor) -> Tensor:
        """The tally with one strip more."""
        return tally + torch.cat(self.filter.under(power, ceiling))


class Ceiling(nn.Module):
    """Step 4. Inputs: ceiling, tally, rows, columns."""

    def __init__(self, model: Filter) -> None:
        super().__init__()
        self.filter = model

    def forward(self, ceiling: Tensor, tally: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """The next ceiling."""
        return self.filter.raised(ceiling, tally[:1], tally[1:], rows.shape[0] * columns.shape[0])


class Second(nn.Module):
    """Step 5. Inputs: pixels, residual, ceiling, strength (float)."""

    def __init__(self, model: Filter) -> None:
        super().__init__()
        self.filter, self.fade = model, model.centre.fade

    def forward(self, pixels: Tensor, residual: Tensor, ceiling: Tensor, strength: Tensor) -> Tensor:
        """What the filter changes in the window, fading at its borders."""
        image = image_of(pixels)
        change = (image + strength * self.filter.hold(residual.float(), ceiling)).clamp(0, 1) - image
        down, across = (fade_in(torch.arange(length).float(), length, self.fade) for length in (image.shape[-2], image.shape[-1]))
        return change * down[:, None] * across


class Finish(nn.Module):
    """Step 6. Inputs: pixels, residual, ceiling, second, strength (float), place, large (float, 1 or 0).

    ``place`` is int64: how far the strip's first row is below the window's, and the window's left column. The second residual of a photo that is not
    large is zeros, of 1x1 px.
    """

    def __init__(self, model: Filter) -> None:
        super().__init__()
        self.filter, self.louder = model, model.centre.louder

    def forward(self, pixels: Tensor, residual: Tensor, ceiling: Tensor, second: Tensor, strength: Tensor, place: Tensor, large: Tensor) -> Tensor:
        """Pixels as they are to be written."""
        image = image_of(pixels)
        down, across = torch.arange(image.shape[-2]) + place[0], torch.arange(image.shape[-1]) - place[1]
        rows, columns = second.shape[-2], second.shape[-1]
        within = ((down >= 0) & (down < rows))[:, None] & ((across >= 0) & (across < columns))
        added = pixels_at(second, down.clamp(min=0).clamp(max=rows - 1), across.clamp(min=0).clamp(max=columns - 1)) * within
        scale = strength * (1 + (self.louder - 1) * large)
        filtered = to_uint8(image + scale * self.filter.hold(residual.float(), ceiling) + added)
        return torch.cat([filtered[0].permute(1, 2, 0), pixels[:, :, 3:]], dim=2)


class Score(nn.Module):
    """The quality model of a view. Inputs: narrow (1, 3, H, w), columns."""

    def __init__(self, model: EfficientNetQuality) -> None:
        super().__init__()
        self.model = model

    def forward(self, narrow: Tensor, columns: Tensor) -> Tensor:
        """Reduce the height, score."""
        height, _ = working_size(narrow.shape[-2], columns.shape[0], self.model.AREA)
        view = F.interpolate(narrow, [height, narrow.shape[-1]], mode="bilinear", antialias=True)
        return self.model.judge(self.model.backbone(view * 2 - 1))


class Half(nn.Module):
    """A photo at half its width or height, bicubic with antialiasing, as a platform may save it. Input: pixels."""

    def __init__(self, width: bool) -> None:
        super().__init__()
        self.width = width

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels of half as many columns (of a strip: no other rows are needed), or rows (of a whole photo)."""
        image = image_of(pixels)
        height, width = image.shape[-2], image.shape[-1]
        size = [height, (width + 1) // 2] if self.width else [(height + 1) // 2, width]
        half = to_uint8(F.interpolate(image, size, mode="bicubic", antialias=True))[0].permute(1, 2, 0)
        return torch.cat([half, torch.full_like(half[:, :, :1], 255)], dim=2)


class Parts:
    """The steps by name, each with the inputs of one run after another on example photos.

    Args:
        model: the filter, in eval mode.
        quality: the quality model.

    Raises CamoError for a filter that is not shaped by the JND: its residual has no ceiling.
    """

    def __init__(self, model: Filter, quality: EfficientNetQuality) -> None:
        if not model.shaped:
            raise CamoError("the page needs a filter that is shaped by the just-noticeable difference; this one is not")
        narrow, view = Narrow(model.working_area, model.unet.STRIDE), Narrow(quality.AREA, 1)
        self.settings = {
            "strip": FullSize.STRIP,
            "reach": JustNoticeableDifference.REACH,
            "rounds": model.NEWTON_STEPS,
            "limit": model.loudest**2,
            "smallest": model.unet.STRIDE,
            "leastLargeArea": least_large_area(model),
            "window": [model.centre.height, model.centre.width],
            "threshold": THRESHOLD,
            "looks": CHOICES,
            "mostLook": MOST,
        }
        of_pixels, of_residual = ({0: ROWS, 1: W}, {2: ROWS, 3: W})
        of_narrow, rows, columns = {2: H, 3: SLIM}, {0: H}, {0: W}
        self.steps: dict[str, tuple[nn.Module, dict[str, dict[int, Dim] | None]]] = {
            "narrow": (narrow, {"pixels": of_pixels, "rows": rows}),
            "plan": (Plan(model), {"narrow": of_narrow, "columns": columns}),
            "residual": (
                Residual(model),
                {"pixels": {0: Dim("bordered", min=2), 1: W}, "plan": {2: LOW, 3: W}, "rows": rows, "strip": {0: ROWS}, "first": None},
            ),
            "power": (Power(), {"residual": of_residual}),
            "tally": (Tally(model), {"power": of_residual, "ceiling": None, "tally": None}),
            "ceiling": (Ceiling(model), {"ceiling": None, "tally": None, "rows": rows, "columns": columns}),
            "second": (Second(model), {"pixels": of_pixels, "residual": of_residual, "ceiling": None, "strength": None}),
            "finish": (
                Finish(model),
                {
                    "pixels": of_pixels,
                    "residual": of_residual,
                    "ceiling": None,
                    "second": {2: Dim("down", min=2), 3: Dim("across", min=2)},
                    "strength": None,
                    "place": None,
                    "large": None,
                },
            ),
            "view": (view, {"pixels": of_pixels, "rows": rows}),
            "score": (Score(quality), {"narrow": of_narrow, "columns": columns}),
            "half_width": (Half(width=True), {"pixels": of_pixels}),
            "half_height": (Half(width=False), {"pixels": of_pixels}),
            "seed": (Seed(), {"pixels": of_pixels, "seed": None}),
            "grey": (Grey(), {"pixels": of_pixels}),
        }
        of_look = {"pixels": of_pixels, "rows": rows, "first": None, "seed": None, "amount": None}
        self.steps |= {f"look_{name}": (InLook(Look(LOOKS[name])), of_look) for name in CHOICES}

    @torch.no_grad()
    def runs(self, height: int, width: int) -> dict[str, dict[str, Tensor]]:
        """The inputs of every step for a photo in one strip, as the steps before it leave them."""
        photo = to_uint8(photo_like(1, height, width))[0].permute(1, 2, 0)
        pixels = torch.cat([photo, torch.full_like(photo[:, :, :1], 200)], dim=2)
        rows, columns = torch.zeros(height, dtype=torch.uint8), torch.zeros(width, dtype=torch.uint8)
        reach, strip = JustNoticeableDifference.REACH, slice(JustNoticeableDifference.REACH + 3, -JustNoticeableDifference.REACH)
        first, strength, large = torch.tensor(strip.start), torch.tensor(1.5), torch.tensor(1.0)
        ceiling, tally = torch.full((1, 1, 1, 1), self.settings["limit"]), torch.zeros(2, 1, 1, 1)  # type: ignore[call-overload]
        runs: dict[str, dict[str, Tensor]] = {}

        def run(name: str, **inputs: Tensor) -> Tensor:
            runs[name] = inputs
            return self.steps[name][0](*inputs.values())

        plan = run("plan", narrow=run("narrow", pixels=pixels, rows=rows), columns=columns)
        residual = run("residual", pixels=pixels[strip.start - reach :], plan=plan, rows=rows, strip=rows[strip], first=first)
        tally = run("tally", power=run("power", residual=residual), ceiling=ceiling, tally=tally)
        ceiling = run("ceiling", ceiling=ceiling, tally=tally, rows=rows[strip], columns=columns)
        second = run("second", pixels=pixels[strip], residual=residual, ceiling=ceiling, strength=strength)[:, :, :-6, :-9]
        place = torch.tensor([-2, 5])
        run("finish", pixels=pixels[strip], residual=residual, ceiling=ceiling, second=second, strength=strength, place=place, large=large)
        run("score", narrow=run("view", pixels=pixels, rows=rows), columns=columns)
        run("half_height", pixels=run("half_width", pixels=pixels))
        seed = run("seed", pixels=pixels, seed=torch.tensor(0))
        for name in CHOICES:
            looked = run(f"look_{name}", pixels=pixels[strip], rows=rows, first=first, seed=seed, amount=torch.tensor(0.7))
        run("grey", pixels=looked)
        return runs


CASES = ((48, 64), (427, 640))  # height, width of what the check runs


def export_parts(checkpoint: Path, out: Path, overwrite: bool = False) -> None:
    """Write all parts and ``networks.json`` into ``out``.

    Raises CamoError: ONNX's packages not installed, a bad checkpoint, a file that exists already or cannot be written, one that fails its check.
    """
    if missing := missing_onnx_packages():
        raise CamoError(f"--what page needs {', '.join(missing)}: pip install {' '.join(ONNX_PACKAGES)}")
    model = load_filter(checkpoint)
    parts = Parts(model, load_bundled())
    claim([out / name for name in (SETTINGS, *(f"{step}.onnx" for step in parts.steps))], overwrite)
    provenance = {"filter": origin(checkpoint), "quality": origin(BUNDLED_WEIGHTS)}
    runs = [parts.runs(*size) for size in CASES]
    for name, (module, dimensions) in parts.steps.items():
        inputs, shapes = tuple(dimensions), tuple(dimensions.values())
        cases = [case_of(module, run[name]) for run in runs]
        content = graph(module, runs[0][name], inputs, shapes, provenance)
        write(out / f"{name}.onnx", content, cases, TOLERANCES.get(name, TOLERANCE))
    (out / SETTINGS).write_text(json.dumps({**parts.settings, "steps": list(parts.steps), "provenance": provenance}, indent=1))


@torch.no_grad()
def case_of(module: nn.Module, inputs: dict[str, Tensor]) -> Case:
    """One run of a step, with what it gives."""
    return {**inputs, "expected": module(*inputs.values())}


def graph(module: nn.Module, example: dict[str, Tensor], inputs: tuple[str, ...], shapes: Shapes, provenance: dict[str, Any]) -> bytes:
    """A step in ONNX."""
    first, *others = example.items()
    program = trace(module.eval(), first[1], shapes=shapes, **dict(others))
    return onnx(program, inputs, "output", provenance, shapes)
