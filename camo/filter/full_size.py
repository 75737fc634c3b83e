"""From a file's pixels to a file's pixels: photos of any size, large ones in strips, so that the memory stays bounded."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camo.filter.generator import Filter
from camo.filter.jnd import JustNoticeableDifference
from camo.filter.two_pass import fade_in, least_large_area
from camo.photos.images import to_float, to_uint8


class FullSize(nn.Module):
    """The filter, and for large photos its second pass over their centre as well (``camo.filter.two_pass``), on 8-bit pixels.

    Photos that are not large go through the network as one batch; large ones one by one, in strips. Convolutions may add up in another order for
    another batch size, and a last bit can turn a rounding: a value may differ by one 8-bit step from that of another batch size. With the shipped
    filter on a CPU, 16 sample photos in batches of 4 differed from single ones in 5 of 9.4 million values.

    Shape: (B, 3, H, W) uint8 RGB on the CPU, sides of 16 px or more -> the same.

    Args:
        photo_filter: in eval mode, on any device. It is not altered; ``bf16`` and ``compiled`` work on a copy.
        bf16: run the U-Net in mixed precision.
        compiled: compile the U-Net, for any size; takes 20 seconds or more at first.
    """

    STRIP = 2**19  # px that are worked on at once; no setting, since it decides memory and speed only

    def __init__(self, photo_filter: Filter, bf16: bool = False, compiled: bool = False) -> None:
        super().__init__()
        self.filter = copy.deepcopy(photo_filter) if bf16 or compiled else photo_filter
        self.centre, self.least_area = photo_filter.centre, least_large_area(photo_filter)
        unet = self.filter.unet
        if bf16:  # the U-Net alone: a step of 8 bits is finer than bf16
            autocast = torch.autocast(photo_filter.jnd.luma.device.type, torch.bfloat16)
            unet.forward = autocast(unet.forward)  # type: ignore[method-assign]
        if compiled:
            unet.compile(dynamic=True)

    @torch.inference_mode()
    def forward(self, pixels: Tensor, strength: float = 1.0) -> Tensor:
        """Filter a batch; ``strength`` as for the filter."""
        if not self._large(pixels):
            return self.prepare(pixels)(strength)
        result = torch.empty_like(pixels)
        for photo, filtered in zip(pixels, result, strict=True):
            self._in_strips(photo)(strength, filtered)
        return result

    @torch.inference_mode()
    def prepare(self, pixels: Tensor) -> Callable[[float], Tensor]:
        """Run the network once for any number of strengths: ``prepare(pixels)(strength)`` is ``forward(pixels, strength)``."""
        if self._large(pixels):
            writers = [self._in_strips(photo) for photo in pixels]

            @torch.inference_mode()
            def large(strength: float) -> Tensor:
                result = torch.empty_like(pixels)
                for write, filtered in zip(writers, result, strict=True):
                    write(strength, filtered)
                return result

            return large
        original = self._to_float(pixels)
        residual = self.filter.whole_residual(original)
        return torch.inference_mode()(lambda strength: to_uint8((original + strength * residual).clamp(0, 1)).cpu())

    def _large(self, pixels: Tensor) -> bool:
        return pixels.shape[-2] * pixels.shape[-1] >= self.least_area

    def _in_strips(self, photo: Tensor) -> Callable[[float, Tensor], None]:
        """The filter's own sums for one large photo, (3, H, W) uint8, a few rows at a time; called with a strength, they write into a photo."""
        height, width = photo.shape[-2:]
        step = max(1, self.STRIP // width)
        strips = [slice(top, min(top + step, height)) for top in range(0, height, step)]
        plan = self.filter.plan(self._reduced(photo, strips))
        plan = F.interpolate(plan, [plan.shape[-2], width], mode="bilinear", align_corners=False)
        residuals = [self._residual(photo, plan, strip).half() for strip in strips]  # half: a thousandth of it is far below a step of 8 bits
        ceiling = self.filter.ceiling(residuals)
        rows, columns, second = self._centre(photo)

        def write(strength: float, filtered: Tensor) -> None:
            inside = second(strength)
            for strip, residual in zip(strips, residuals, strict=True):
                held = self.filter.hold(residual.float(), ceiling)[0]
                image = self._to_float(photo[:, strip]).add_(held.mul_(self.centre.louder * strength))
                top, bottom = max(rows.start, strip.start), min(rows.stop, strip.stop)
                if top < bottom:
                    image[:, top - strip.start : bottom - strip.start, columns] += inside[:, top - rows.start : bottom - rows.start]
                filtered[:, strip] = to_uint8(image)

        return write

    def _to_float(self, pixels: Tensor) -> Tensor:
        return to_float(pixels.to(self.filter.jnd.luma.device))

    def _reduced(self, photo: Tensor, strips: list[slice]) -> Tensor:
        """The working copy; the antialiased reduction of the width needs no other rows. Shape: (3, H, W) uint8 -> (1, 3, h, w) float."""
        height, width = self.filter.working_size(*photo.shape[-2:])
        images = (self._to_float(photo[None, :, strip]) for strip in strips)
        narrow = [F.interpolate(image, [image.shape[-2], width], mode="bilinear", antialias=True) for image in images]
        return F.interpolate(torch.cat(narrow, dim=2), [height, width], mode="bilinear", antialias=True)

    def _residual(self, photo: Tensor, plan: Tensor, strip: slice) -> Tensor:
        """The residual of some rows, however loud; ``plan`` has the photo's width already. Shape: (1, 3, rows, W)."""
        border = JustNoticeableDifference.REACH
        top, bottom = max(0, strip.start - border), min(photo.shape[-2], strip.stop + border)
        ratio = plan.shape[-2] / photo.shape[-2]
        place = ((torch.arange(top, bottom, device=plan.device) + 0.5) * ratio - 0.5).clamp(min=0)  # bilinear, as F.interpolate
        above = place.floor().long()
        below = (above + 1).clamp(max=plan.shape[-2] - 1)
        enlarged = torch.lerp(plan[:, :, above], plan[:, :, below], (place - above)[:, None])
        return self.filter.residual(enlarged, self._to_float(photo[None, :, top:bottom]))[:, :, strip.start - top : strip.stop - top]

    def _centre(self, photo: Tensor) -> tuple[slice, slice, Callable[[float], Tensor]]:
        """The window's rows and columns, and for a strength the second residual there, (3, rows, columns)."""
        top, left = (max(0, side - window) // 2 for side, window in zip(photo.shape[-2:], (self.centre.height, self.centre.width), strict=True))
        rows = slice(top, min(top + self.centre.height, photo.shape[-2]))
        columns = slice(left, min(left + self.centre.width, photo.shape[-1]))
        original = self._to_float(photo[None, :, rows, columns])
        residual = self.filter.whole_residual(original)
        weights = self._fade(residual.shape[-2]).outer(self._fade(residual.shape[-1])).to(residual)
        return rows, columns, lambda strength: (((original + strength * residual).clamp(0, 1) - original) * weights)[0]

    def _fade(self, length: int) -> Tensor:
        """Weights along a side of the window. Shape: (length,)."""
        return fade_in(torch.arange(length, dtype=torch.float32), length, self.centre.fade)
