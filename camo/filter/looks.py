"""Looks: what people do to photos because they like it, as small differentiable functions that leave nothing clipped.

kornia and torchvision have brightness, contrast, gamma and saturation, but these clip what leaves the range, and neither library has a curve that
keeps black and white, split toning, a vignette or grain. Each step below maps [0, 1] to itself, so that nothing is clipped, whatever the photo.
"""

from typing import Final

import torch
from torch import Tensor, nn

from camo.filter.grain import Grain
from camo.filter.look_settings import LookSettings

WARM, COOL = (0.0, 0.45, 1.0), (1.0, 0.45, 0.0)  # what red, green and blue lose for another colour temperature, relative to the most: Planck's law


class Look(nn.Module):
    """A look: curves of each channel, then saturation or black and white, then vignette and grain.

    Shape: (B, 3, H, W) float RGB in [0, 1] -> the same. Each photo is treated by itself. Only warmth, lights and shadows treat the channels
    differently: where these are 0, grey stays grey.

    Args:
        settings: the look's numbers.
        amount: how much of it, 0 to 1.5; 0 gives the photo itself.

    Raises ValueError where a number leaves its bounds.
    """

    LUMA: Final = (0.299, 0.587, 0.114)  # BT.601, as in JPEG
    SKIN: Final = (-0.545, 0.839)  # the hue of skin in Cb and Cr: the I axis of YIQ, 123 degrees

    gains: Tensor
    light_tint: Tensor
    dark_tint: Tensor
    mix: Tensor
    luma: Tensor

    def __init__(self, settings: LookSettings, amount: float = 1.0) -> None:
        super().__init__()
        numbers = settings.at(amount)
        self.brightness, self.pivot = numbers.brightness, numbers.pivot
        self.steepness = numbers.contrast / (numbers.pivot * (1 - numbers.pivot))
        self.saturation, self.skin, self.mono = numbers.saturation, numbers.skin, numbers.mono
        self.vignette, self.grain, self.grain_lights = numbers.vignette, numbers.grain, numbers.grain_lights
        self.grains = Grain(numbers.grain_texture) if numbers.grain else None
        self.nothing = amount == 0
        buffers = {
            "gains": 1 - abs(numbers.warmth) * torch.tensor(WARM if numbers.warmth > 0 else COOL),
            "light_tint": abs(numbers.lights) * torch.tensor(WARM if numbers.lights > 0 else COOL),
            "dark_tint": abs(numbers.shadows) * torch.tensor(WARM if numbers.shadows < 0 else COOL) + numbers.fade,
            "mix": torch.tensor([numbers.red, 1 - numbers.red - numbers.blue, numbers.blue]),
            "luma": torch.tensor(self.LUMA),
        }
        for name, values in buffers.items():
            self.register_buffer(name, values.view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """The photo in this look."""
        return self.part(image, seed_of((255 * image).round().long()), 0, image.shape[-2])

    def part(self, image: Tensor, seed: Tensor, top: int, height: int, amount: float = 1.0) -> Tensor:
        """The look on some rows of photos.

        Args:
            image: (B, 3, rows, W) float, the rows.
            seed: (B,) int64, ``seed_of`` the whole photos.
            top: how many rows are above.
            height: of the photos, px.
            amount: factor of the look's own amount, above 0; in an exported graph this is an input. Unlike there, no bounds are checked.
        """
        if self.nothing:
            return image
        image = self.curves(image, amount)
        if self.saturation != 0:
            image = self.saturated(image, amount)
        if self.mono > 0:
            image = torch.lerp(image, (image * self.mix).sum(1, keepdim=True), (amount * self.mono * torch.ones_like(self.luma)).clamp(max=1))
        if self.vignette > 0 or self.grain > 0:
            rows = top + torch.arange(image.shape[-2], device=image.device)
            columns = torch.arange(image.shape[-1], device=image.device)
            sides = torch.stack([torch.full_like(rows[0], height), torch.full_like(rows[0], image.shape[-1])]).float()
            if self.vignette > 0:
                image = image * self.falloff(rows, columns, sides, amount)
            if self.grains is not None:
                image = self.grained(image, self.grains(seed, rows.float(), columns.float(), sides.min()), amount)
        return image

    def curves(self, image: Tensor, amount: float = 1.0) -> Tensor:
        """Colour temperature, tone curve and split toning: a monotone curve of each channel. Shape: as the input.

        Squares are products, here and below: ONNX would compute powers, which takes browsers several times as long.
        """
        image = image * (1 + amount * (self.gains - 1))
        tone = (image - self.pivot) * (amount * self.steepness) + amount * self.brightness
        image = image + image * (1 - image) * tone
        dark = 1 - image
        return image - amount * self.light_tint * (image * image) + amount * self.dark_tint * (dark * dark)

    def saturated(self, image: Tensor, amount: float = 1.0) -> Tensor:
        """More or less colour at the same luma.

        A colour's saturation u is its distance from grey as a part of what the range allows at this luma and hue. More of it means
        u + saturation * u * (1 - u), so that none leaves the range; less is the same part of all.
        """
        luma = (image * self.luma).sum(1, keepdim=True)
        colour = image - luma
        if self.saturation < 0:
            return luma + (1 + amount * self.saturation) * colour
        above, below = colour.amax(1, keepdim=True), -colour.amin(1, keepdim=True)
        room = 1 - torch.maximum(above / (1 - luma).clamp(min=1e-3), below / luma.clamp(min=1e-3)).clamp(max=1)
        cb, cr = colour[:, 2:] / 1.772, colour[:, :1] / 1.402
        towards = (cb * self.SKIN[0] + cr * self.SKIN[1]).clamp(min=0)
        skin = towards * towards / (cb * cb + cr * cr + 1e-6)
        skin = skin * skin
        skin = skin * skin  # the angle's cosine to the eighth: half at 24 degrees
        return image + amount * self.saturation * room * (1 - self.skin * skin) * colour

    def falloff(self, rows: Tensor, columns: Tensor, sides: Tensor, amount: float = 1.0) -> Tensor:
        """A vignette's factor: 1 less the distance from the centre to the fourth. Shape: (rows,), (columns,), (2,) -> (rows, columns)."""
        down, right = ((place + 0.5 - side / 2).square() for place, side in ((rows, sides[0]), (columns, sides[1])))
        distance = (down[:, None] + right) / (sides.square().sum() / 4)  # squared, 1 in the corners
        return 1 - amount * self.vignette * distance.square()

    def grained(self, image: Tensor, noise: Tensor, amount: float = 1.0) -> Tensor:
        """Grain of a strength that depends on luma, and that each channel has room for. Shape: (B, 3, rows, W), (B, 1, rows, W) -> as the first."""
        luma = (image * self.luma).sum(1, keepdim=True)
        strength = 4 * amount * self.grain * (1 - (1 - self.grain_lights) * luma)
        return image + strength * noise * image * (1 - image)


def seed_of(pixels: Tensor) -> Tensor:
    """A number that another photo hardly has: the sum of all 8-bit values. Shape: (B, 3, H, W) int -> (B,) int64."""
    return pixels.sum(dim=(1, 2, 3), dtype=torch.int64)
