"""From a file's pixels to a file's pixels: photos of any size, large ones in strips, so that the memory stays bounded.

The filter plans a large photo's residual on a reduced copy, as most scorers look at it. In a cut-out at full resolution that residual is smooth and
does little. So the filter looks once more at the centre, as KonCept512 does, and adds a second residual there, of details so fine that they vanish
when the whole is reduced: the two hardly meddle with each other.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camo.filter.generator import Filter
from camo.filter.jnd import JustNoticeableDifference
from camo.photos.images import to_float, to_uint8


class FullSize(nn.Module):
    """The filter, and for photos that it reduces by ``REDUCTION`` or more on each axis the filter on their centre 512x384 as well.

    Shape: (B, 3, H, W) uint8 RGB on the CPU, sides of 16 px or more -> the same. Each photo gets the same bytes, whatever else is in the batch.

    Args:
        photo_filter: in eval mode, on any device.
        bf16: run its U-Net in mixed precision.
        compiled: compile its U-Net, for any size; takes 20 seconds or more at first.
    """

    HEIGHT, WIDTH = 384, 512  # px, KonCept512's window
    REDUCTION = 2.0  # below it both residuals would lie in the same details
    LOUDER = 1.15  # strength of the first residual there: reducing the photo takes some of it away (chosen on validation photos)
    FADE = 16  # px at the window's border over which the second residual comes in, so that there is no seam
    STRIP = 2**19  # px that are worked on at once

    def __init__(self, photo_filter: Filter, bf16: bool = False, compiled: bool = False) -> None:
        super().__init__()
        self.filter = photo_filter
        if bf16:  # the U-Net alone: a step of 8 bits is finer than bf16
            autocast = torch.autocast(photo_filter.jnd.luma.device.type, torch.bfloat16)
            photo_filter.unet.forward = autocast(photo_filter.unet.forward)
        if compiled:
            photo_filter.unet.compile(dynamic=True)
        self._exact: dict[torch.Size, bool] = {}

    @torch.inference_mode()
    def forward(self, pixels: Tensor, strength: float = 1.0) -> Tensor:
        """Filter a batch; ``strength`` as for the filter."""
        height, width = pixels.shape[-2:]
        if height * width < self.REDUCTION**2 * self.filter.working_area:
            return to_uint8(self._alike(self._to_float(pixels), strength)).cpu()
        result = torch.empty_like(pixels)
        for photo, filtered in zip(pixels, result, strict=True):
            self._in_strips(photo, strength, filtered)
        return result

    def _alike(self, original: Tensor, strength: float) -> Tensor:
        """Filter (B, 3, H, W) with the same floats for any B.

        Convolutions may add up in another order for another B, and a last bit can turn a byte: so photos pass one by one until a batch of the
        same shape was seen to give equal floats on this device; ``_exact`` remembers the shapes that did, and those that did not.
        """
        if self._exact.get(original.shape):
            return self.filter(original, strength)
        alone = torch.cat([self.filter(photo, strength) for photo in original.split(1)])
        if len(original) > 1 and original.shape not in self._exact:
            self._exact[original.shape] = torch.equal(self.filter(original, strength), alone)
        return alone

    def _in_strips(self, photo: Tensor, strength: float, filtered: Tensor) -> None:
        """Filter one large photo, (3, H, W) uint8, into ``filtered``: the filter's own sums, a few rows at a time."""
        height, width = photo.shape[-2:]
        step = max(1, self.STRIP // width)
        strips = [slice(top, min(top + step, height)) for top in range(0, height, step)]
        plan = self.filter.plan(self._reduced(photo, strips))
        plan = F.interpolate(plan, [plan.shape[-2], width], mode="bilinear", align_corners=False)
        residuals = [self._residual(photo, plan, strip).half() for strip in strips]  # half: a thousandth of it is far below a step of 8 bits
        ceiling = self.filter.ceiling(residuals)
        rows, columns, second = self._centre(photo, strength)
        for strip, residual in zip(strips, residuals, strict=True):
            held = self.filter.hold(residual.float(), ceiling)[0]
            image = self._to_float(photo[:, strip]).add_(held.mul_(self.LOUDER * strength))
            top, bottom = max(rows.start, strip.start), min(rows.stop, strip.stop)
            if top < bottom:
                image[:, top - strip.start : bottom - strip.start, columns] += second[:, top - rows.start : bottom - rows.start]
            filtered[:, strip] = to_uint8(image)

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

    def _centre(self, photo: Tensor, strength: float) -> tuple[slice, slice, Tensor]:
        """The window's rows and columns, and the second residual there, (3, rows, columns)."""
        top, left = (max(0, side - window) // 2 for side, window in zip(photo.shape[-2:], (self.HEIGHT, self.WIDTH), strict=True))
        rows, columns = slice(top, min(top + self.HEIGHT, photo.shape[-2])), slice(left, min(left + self.WIDTH, photo.shape[-1]))
        original = self._to_float(photo[None, :, rows, columns])
        residual = (self.filter(original, strength) - original)[0]
        return rows, columns, residual * self._fade(residual.shape[-2]).outer(self._fade(residual.shape[-1])).to(residual)

    def _fade(self, length: int) -> Tensor:
        """Weights along a side of the window: 1, falling to 0 at both ends. Shape: (length,)."""
        return (torch.linspace(0, length - 1, length) + 0.5).minimum(length - 0.5 - torch.arange(length)).div(self.FADE).clamp(max=1)
