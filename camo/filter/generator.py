"""The filter: a U-Net that gives each photo a residual shaped by the just-noticeable difference.

The U-Net works on a reduced copy of at most 512x384 pixels of area, the size at which the bundled quality model looks at photos: what it plans is
then what the model sees. The residual is enlarged to the photo's own size and multiplied by the full-resolution JND map (as the watermark embedders
TrustMark, 2023, and VideoSeal, 2024, do).
"""

import math
from dataclasses import asdict
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camo.filter.jnd import JustNoticeableDifference
from camo.filter.needed_strength import NeededStrength, map_statistics
from camo.filter.settings import CentreSettings, JNDSettings, require_positive
from camo.filter.trunk import Trunk
from camo.photos.working_size import working_size


class PixelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel, so that no pixel depends on the size of the map. Shape: (B, C, H, W) -> the same."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        return F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Residual block: normalisation and two 3x3 convolutions, the second starting at zero. Shape: (B, C, H, W) -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = PixelNorm(width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's output to its input."""
        return x + self.second(F.silu(self.first(self.norm(x))))


def stage(width: int, depth: int) -> nn.Sequential:
    """``depth`` residual blocks of one width."""
    return nn.Sequential(*(Block(width) for _ in range(depth)))


class Context(nn.Module):
    """Tell each pixel the mean and the standard deviation of every channel over the image, as a quality model pools them. Shape: as the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Add what the statistics say."""
        return x + self.linear(map_statistics([x]))[:, :, None, None]


def opaque(size: int | torch.SymInt) -> int:
    """A size that torch.export carries as a number of its own.

    As an expression of the photo's size it would grow with every stride, forwards and backwards, and a filter of 6 MB take half a minute to load.
    """
    number: Any = torch.tensor(size).item()  # a SymInt, while exporting
    torch._check(number >= 1)
    return number


def power_of(residual: Tensor) -> Tensor:
    """Each pixel's mean square over RGB. Shape: (B, 3, H, W) -> (B, 1, H, W) float."""
    return residual.float().square().mean(dim=1, keepdim=True)


def places(rows: int, columns: int, height: float, width: float, device: torch.device) -> Tensor:
    """Where the cells of a map are in an image of ``height`` x ``width`` cells: down and across, -1..1 from border to border.

    Cells beyond the image, where it was padded, are above 1. Shape: -> (1, 2, rows, columns) float.
    """
    down = (2 * torch.arange(rows, device=device) + 1) / height - 1
    across = (2 * torch.arange(columns, device=device) + 1) / width - 1
    return torch.stack([down[:, None].expand(rows, columns), across.expand(rows, columns)])[None]


class UNet(nn.Module):
    """A U-Net at strides 4, 8 and 16 that steers the slope of a frozen trunk.

    An attack on one image follows the slope of the score, step by step. This network sees what the trunk sees and predicts, for each of its maps,
    the slope of the score with respect to that map; the trunk carries these backwards to the pixels, in the same pass; and the finest stage makes the
    residual of them. So all that must be learned is what happens above the trunk, and what several steps and the channel would change.
    A U-Net that has to find the pixels by itself shows 7 dB more for the same protection (``docs/experiments.md``).

    With ``coordinates`` a small network of the place in the image alone (coordinate channels as in CoordConv, Liu et al. 2018) scales the residual by
    0 to 2, for a quality model that does not look everywhere alike. It starts as 1 everywhere, so that a filter without it can be trained on.

    Shape: (B, 3, H, W) float in [-1, 1], any size -> (B, 3, H, W) in [-1, 1], and the ``map_statistics`` of the trunk's three maps, (B, 352).
    """

    STRIDE: Final = 16
    coordinates: Final[bool]

    def __init__(self, width: int, depth: int, coordinates: bool = False) -> None:
        super().__init__()
        widths = [width, width * 3 // 2, width * 2]
        maps = list(zip(Trunk.CHANNELS, widths, strict=True))
        self.trunk = Trunk()
        self.pixels = nn.Conv2d(48, width, 3, padding=1)
        self.enter4, self.enter8, self.enter16 = (nn.Sequential(PixelNorm(channels), nn.Conv2d(channels, wide, 1)) for channels, wide in maps)
        self.coordinates = coordinates
        if coordinates:
            self.place = nn.Sequential(nn.Conv2d(2, 64, 1), nn.SiLU(), nn.Conv2d(64, 1, 1))
            for parameter in self.place[-1].parameters():
                nn.init.zeros_(parameter)
        self.stage16 = nn.Sequential(Context(widths[2]), *stage(widths[2], 2 * depth))
        self.up8 = nn.ConvTranspose2d(widths[2], widths[1], 2, stride=2)
        self.stage8 = stage(widths[1], depth)
        self.up4 = nn.ConvTranspose2d(widths[1], width, 2, stride=2)
        self.leave4, self.leave8, self.leave16 = (nn.Conv2d(wide, channels, 1) for channels, wide in maps)
        self.stage4 = stage(width, depth)
        self.slope = nn.Conv2d(48, width, 3, padding=1)
        self.last4 = stage(width, depth)
        self.out = nn.Conv2d(width, 48, 3, padding=1)
        self.follow = nn.Conv2d(48, 48, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pad to a multiple of 16, predict, cut the padding off again."""
        height, width = x.shape[-2], x.shape[-1]
        rows, columns = (height + self.STRIDE - 1) // self.STRIDE, (width + self.STRIDE - 1) // self.STRIDE  # of the coarsest stage
        if not torch.jit.is_scripting():  # noqa: SIM102 (TorchScript would compile what is joined to it)
            if torch.compiler.is_exporting():
                rows, columns = opaque(rows), opaque(columns)
        x = F.pad(x, (0, columns * self.STRIDE - width, 0, rows * self.STRIDE - height), mode="replicate")
        gates: list[Tensor] = []
        fine, coarse, coarsest = self.trunk(x, gates)
        statistics = map_statistics([fine, coarse, coarsest])
        coarsest = self.stage16(self.enter16(coarsest))
        coarse = self.stage8(self.enter8(coarse) + self.up8(coarsest))
        fine = self.stage4(self.enter4(fine) + self.pixels(F.pixel_unshuffle(x, 4)) + self.up4(coarse))
        slope = self.trunk.back(self.leave4(fine), self.leave8(coarse), self.leave16(coarsest), gates)
        slope = slope * (slope.float().square().mean(dim=(1, 2, 3), keepdim=True) + 1e-12).rsqrt()  # only its direction matters
        slopes = F.pixel_unshuffle(slope, 4)
        fine = self.last4(fine + self.slope(slopes))
        residual = self.out(fine) + self.follow(slopes)
        if self.coordinates:
            residual = residual * (2 * torch.sigmoid(self.place(places(4 * rows, 4 * columns, height / 4, width / 4, x.device))))
        return torch.tanh(F.pixel_shuffle(residual, 4))[..., :height, :width], statistics


class Filter(nn.Module):
    """Camouflage photographs: original + strength * gain * JND * U-Net, clamped to [0, 1].

    The loudest pixels of a residual that would take a photo below ``min_psnr`` are held down to one ceiling, so that at strength 1 no photo falls
    below it; flat grounds, which do most for the least, keep theirs. The same holds in training, so that what is trained is what is validated and
    used.

    The U-Net's three channels are luma, Cb and Cr of the residual (BT.601, as in JPEG). Chroma is held to a part of luma's range: patches of colour
    are seen sooner than grain, and JPEG 4:2:0 keeps little of them.

    Shape: (B, 3, H, W) float RGB in [0, 1], sides of 16 px or more -> the same. Each image is treated by itself, whatever else is in the batch.

    Args:
        width: channels at stride 4; 1.5 and 2 times as many at strides 8 and 16.
        depth: residual blocks a stage.
        gain: the largest residual in luma, as a multiple of the JND; of each RGB channel, in units of 1/255, if not shaped.
        shaped: by the JND map; if not, the U-Net's channels are RGB and every pixel may change alike, as in generators without a model of the eye.
        working_area: pixels of area above which the U-Net sees a reduced copy.
        chroma: the largest residual in Cb and in Cr, as a part of luma's.
        min_psnr: dB; the limit described above, for a filter that is shaped.
        jnd: settings of the JND map.
        centre: settings of the second pass over large photos. This module makes the first pass only; ``TwoPass`` and ``FullSize`` make both.
        unrolled: steps that the U-Net takes, each on the working copy that the steps before have changed, and each with its share of the gain.
        foretold: whether each photo's residual is scaled, before it is limited, by the strength that the photo needs (``NeededStrength``).
        coordinates: whether the U-Net scales its residual by the place in the picture: in the first pass the whole photo, in the second the window,
            which is the whole picture to a quality model that crops the centre.

    Raises ValueError for an argument that is not a positive, finite number, or not a whole one where it is an int.
    """

    NEWTON_STEPS: Final = 8  # no setting: the limit is what is computed, and this many steps come within a hundredth of a dB of it on photos

    colours: Tensor

    def __init__(
        self,
        width: int = 48,
        depth: int = 1,
        gain: float = 6.0,
        shaped: bool = True,
        working_area: int = 512 * 384,
        chroma: float = 0.1,
        min_psnr: float = 37.2,
        jnd: JNDSettings = JNDSettings(),  # noqa: B008 (it is frozen)
        centre: CentreSettings = CentreSettings(),  # noqa: B008
        unrolled: int = 1,
        foretold: bool = False,
        coordinates: bool = False,
    ) -> None:
        super().__init__()
        for name, whole_number in (("width", width), ("depth", depth), ("working_area", working_area), ("unrolled", unrolled)):
            require_positive(name, whole_number, whole=True)
        for name, number in (("gain", gain), ("chroma", chroma), ("min_psnr", min_psnr)):
            require_positive(name, number)
        for name, choice in (("shaped", shaped), ("foretold", foretold), ("coordinates", coordinates)):
            if not isinstance(choice, bool):
                raise ValueError(f"{name} {choice!r}: should be true or false")
        sizes = {"width": width, "depth": depth, "gain": gain, "shaped": shaped, "working_area": working_area}
        # JSON-able, for a checkpoint; ``from_arguments`` builds the filter again
        self.arguments: dict[str, Any] = {**sizes, "chroma": chroma, "min_psnr": min_psnr, "jnd": asdict(jnd), "centre": asdict(centre)}
        # Stated only where they are there, so that filters without them keep their hash
        if not jnd.edges:
            del self.arguments["jnd"]["edges"]
        self.arguments |= ({"unrolled": unrolled} if unrolled > 1 else {}) | ({"foretold": True} if foretold else {})
        self.arguments |= {"coordinates": True} if coordinates else {}
        self.gain, self.shaped, self.working_area, self.centre, self.unrolled = gain, shaped, working_area, centre, unrolled
        self.loudest = 10 ** (-min_psnr / 20)  # root mean square of the residual
        self.unet = UNet(width, depth, coordinates)
        self.needed = NeededStrength() if foretold else None
        self.jnd = JustNoticeableDifference(jnd)
        colours = torch.tensor([[1.0, 0.0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0.0]]) * torch.tensor([1.0, chroma, chroma])
        self.register_buffer("colours", colours[:, :, None, None], persistent=False)  # YCbCr to RGB

    @staticmethod
    def from_arguments(arguments: dict[str, Any]) -> "Filter":
        """A filter, its weights random, of another one's ``arguments``. Raises TypeError or ValueError where these are not complete and right."""
        groups = {"jnd": JNDSettings, "centre": CentreSettings}
        model = Filter(**{name: groups[name](**value) if name in groups else value for name, value in arguments.items()})
        if model.arguments != arguments:  # defaults of today must not stand in for what is missing
            raise ValueError("incomplete arguments")
        return model

    @torch.jit.unused
    def foretelling(self, needed: NeededStrength | None) -> "Filter":
        """A copy that scales each photo's residual by what ``needed`` foretells; None: all residuals as trained."""
        arguments = {key: value for key, value in self.arguments.items() if key != "foretold"}
        weights = {key: value for key, value in self.state_dict().items() if not key.startswith("needed.")}
        if needed is not None:
            arguments["foretold"] = True
            weights |= {f"needed.{key}": value for key, value in needed.state_dict().items()}
        model = Filter.from_arguments(arguments)
        model.load_state_dict(weights)
        return model.train(self.training)

    def forward(self, original: Tensor, strength: float = 1.0) -> Tensor:
        """Filter a batch; ``strength`` scales the residual (0: unchanged, 1: as trained)."""
        return (original + strength * self.whole_residual(original)).clamp(0, 1)

    def whole_residual(self, original: Tensor) -> Tensor:
        """What is added to the photos at strength 1. Shape: (B, 3, H, W) -> the same."""
        height, width = original.shape[-2], original.shape[-1]
        size = self.working_size(height, width)
        working = F.interpolate(original, size, mode="bilinear", antialias=True)  # to the same size: exactly the same pixels
        plan = F.interpolate(self.plan(working), [height, width], mode="bilinear", align_corners=False)
        residual = self.residual(plan, original)
        if self.shaped:
            residual = self.hold(residual, self.ceiling([residual.detach()]))  # no gradient through the ceiling: a step hardly moves it
        return residual

    def working_size(self, height: int, width: int) -> list[int]:
        """Height and width at which the U-Net looks at a photo of these."""
        return working_size(height, width, self.working_area, smallest=self.unet.STRIDE)

    def plan(self, working: Tensor) -> Tensor:
        """The residual in RGB, in units of the JND (or of 1/255), that the U-Net plans for the working copy. Shape: (B, 3, h, w) -> the same."""
        plan, statistics = self.as_trained(working)
        return plan if self.needed is None else plan * self.needed(statistics)

    def as_trained(self, working: Tensor) -> tuple[Tensor, Tensor]:
        """The plan before it is scaled to what the photo needs, (B, 3, h, w) -> the same, and the statistics that ``needed`` takes, (B, 352)."""
        plan, statistics = self.step(working)
        for _ in range(self.unrolled - 1):
            changed = (working + self.residual(plan.detach(), working)).clamp(0, 1)  # what a step does to the next one is not learned
            plan = plan + self.step(changed)[0]
        return plan, statistics

    def step(self, working: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the plan, (B, 3, h, w) -> the same, and the statistics of what it saw, (B, 352)."""
        shape, statistics = self.unet(working * 2 - 1)
        shape = shape.float()  # where it runs in bf16
        return self.gain / self.unrolled * (F.conv2d(shape, self.colours) if self.shaped else shape), statistics

    def residual(self, plan: Tensor, original: Tensor) -> Tensor:
        """The plan, enlarged to the photo's size, as a change of its values, however loud. Shape: two (B, 3, H, W) -> the same."""
        return plan * self.jnd(original) if self.shaped else plan / 255

    def ceiling(self, residuals: list[Tensor]) -> Tensor:
        """The power (square, mean over RGB) to which the loudest pixels are held so that the mean is at most that of ``min_psnr``.

        The mean power under a ceiling is a concave function of it, so Newton's method comes to the right one from below, never past it; where all is
        quiet enough it leaves for more than any pixel has. A filter that is not shaped has none: its bound is all that holds it.

        Shape: a residual cut into strips, each (B, 3, rows, W) -> (B, 1, 1, 1) float.
        """
        powers = [power_of(residual) for residual in residuals]
        pixels = sum([power.shape[-2] * power.shape[-1] for power in powers])
        ceiling = torch.full_like(powers[0][:, :, :1, :1], self.loudest**2 if self.shaped else math.inf)
        for _ in range(self.NEWTON_STEPS):
            held, above = torch.zeros_like(ceiling), torch.zeros_like(ceiling)
            for power in powers:
                more_held, more_above = self.under(power, ceiling)
                held, above = held + more_held, above + more_above
            ceiling = self.raised(ceiling, held, above, pixels)
        return ceiling

    def under(self, power: Tensor, ceiling: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the powers held down to a ceiling, and how many pixels are above it.

        Shape: (B, 1, rows, W) and (B, 1, 1, 1) -> two as the ceiling.
        """
        held = torch.minimum(power, ceiling).sum(dim=(1, 2, 3), keepdim=True)
        return held, (power > ceiling).float().sum(dim=(1, 2, 3), keepdim=True)

    def raised(self, ceiling: Tensor, held: Tensor, above: Tensor, pixels: int) -> Tensor:
        """One step of Newton's method for the ceiling, from what is ``under`` it in a whole photo of so many pixels."""
        return ceiling + (self.loudest**2 * pixels - held) / above.clamp(min=1e-3)  # none above: far away

    def hold(self, residual: Tensor, ceiling: Tensor) -> Tensor:
        """The residual with no pixel of more power than the ceiling's, its colour kept. Shape: (B, 3, H, W) and (B, 1, 1, 1) -> as the residual."""
        return residual * (ceiling / power_of(residual).clamp(min=1e-12)).sqrt().clamp(max=1)
