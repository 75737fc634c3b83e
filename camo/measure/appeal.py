"""What can be measured of a photo's appeal without asking anybody: colourfulness, contrast, and what is clipped."""

from torch import Tensor


def colourfulness(image: Tensor) -> Tensor:
    """Colourfulness (Hasler and Suesstrunk, "Measuring colourfulness in natural images", 2003): 0 grey, about 15 slightly, 45 quite, 82 highly.

    Shape: (B, 3, H, W) float RGB in [0, 1] -> (B,).
    """
    red, green, blue = (255 * image).unbind(1)
    opponent = [(red - green).flatten(1), ((red + green) / 2 - blue).flatten(1)]
    deviation = sum(axis.var(1, correction=0) for axis in opponent) ** 0.5
    return deviation + 0.3 * sum(axis.mean(1).square() for axis in opponent) ** 0.5


def contrast(image: Tensor) -> Tensor:
    """RMS contrast: the standard deviation of luma (BT.601). Shape: (B, 3, H, W) float RGB in [0, 1] -> (B,) in 0..0.5."""
    red, green, blue = image.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue).flatten(1).std(1, correction=0)


def newly_clipped(before: Tensor, after: Tensor) -> Tensor:
    """Share of the pixels that have a channel at 0 or 255 after, and had none before. Shape: two (B, 3, H, W) uint8 -> (B,) in [0, 1]."""
    clipped = [((pixels == 0) | (pixels == 255)).any(1) for pixels in (before, after)]
    return (clipped[1] & ~clipped[0]).float().mean((1, 2))
