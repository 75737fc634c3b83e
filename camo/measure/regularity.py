"""Regularity and coherence: how much a residual on flat grounds looks like a mesh, a comb or a weave rather than like grain.

An eye finds periodic lines in a sky long before it finds noise of the same power. On 32x32 px windows whose original is flat, the power spectrum of
the residual's luminance under a Hann window is searched for its strongest line; regularity is that line's share of all power. White noise has about
0.05, photographic grain 0.09, a pure grating 1.

Short lines, here across and there down as in a weave, have no such line in common, and are seen on blurred grounds too, which are smooth but not
flat. They show in the structure tensor of the residual (Förstner and Gülch, 1987), taken over 9x9 px: its coherence, (λ1 - λ2) / (λ1 + λ2), is 0
where slopes have no direction and 1 where they have a single one. A window's coherence is the mean, each place weighted by the energy of its slopes.
White noise has about 0.15, grain as coarse as 3 px 0.23.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad
from torchvision.transforms.functional import center_crop

WINDOW = 32  # px
STRIDE = 16  # px between windows
FLAT = 4.0  # of 255, largest deviation of an original's luminance from a plane for its ground to count as flat
CENTRE = 1024  # px, of a large photo; all its windows would take gigabytes
SILENT = 0.15  # of 255, deviation of a residual below which there is nothing to see
LUMA = (0.299, 0.587, 0.114)
PLACE = 9  # px, side of the squares in which slopes are compared
SMOOTH = 2.5  # of 255 per px, root mean square of an original's slopes below which its ground hides no lines


def flat_windows(original: Tensor) -> tuple[Tensor, Tensor]:
    """Windows of the luminance, and how far each deviates from a plane.

    Shape: (B, 3, H, W) float RGB in [0, 1], sides of 32 px or more -> (B, N, 32, 32) in units of 1/255, (B, N).
    """
    windows = _windows(original)
    axis = torch.linspace(-1, 1, WINDOW, device=original.device)
    basis = torch.stack([torch.ones(WINDOW, WINDOW, device=original.device), axis[:, None].expand(WINDOW, WINDOW), axis.expand(WINDOW, WINDOW)])
    basis = basis.flatten(1) / basis.flatten(1).norm(dim=1, keepdim=True)  # orthogonal, since the axes are symmetric
    values = windows.flatten(2)
    rest = values - values @ basis.T @ basis
    return windows, rest.square().mean(-1).sqrt()


def line_share(residual: Tensor) -> tuple[Tensor, Tensor]:
    """Each window's share of the power in its strongest line, a 3x3 neighbourhood of the spectrum and its mirror image; and its deviation.

    Shape: (B, 3, H, W) float -> (B, N) in [0, 1], (B, N) in units of 1/255. Differentiable.
    """
    windows = _windows(residual)
    windows = windows - windows.mean((-1, -2), keepdim=True)
    deviation = windows.square().mean((-1, -2)).sqrt()
    hann = torch.hann_window(WINDOW, periodic=False, device=residual.device)
    power = torch.fft.fft2(windows * hann.outer(hann)).abs().square()
    half = power[..., : WINDOW // 2 + 1]  # the other columns mirror these
    wrapped = torch.cat([power[..., -1:], half, power[..., WINDOW // 2 + 1 : WINDOW // 2 + 2]], dim=-1)
    wrapped = torch.cat([wrapped[..., -1:, :], wrapped, wrapped[..., :1, :]], dim=-2)
    lines = 9 * avg_pool2d(wrapped.flatten(0, 1), 3, stride=1)
    strongest = 2 * lines.flatten(1).amax(1).view(power.shape[:2])
    return (strongest / (power.sum((-1, -2)) + 1e-9)).clamp(max=1), deviation


def coherence(image: Tensor) -> tuple[Tensor, Tensor]:
    """Each window's coherence, and the root mean square of its slopes, through which no gradient flows.

    Shape: (B, 3, H, W) float -> (B, N) in [0, 1], (B, N) in units of 1/255 per px.
    """
    plane = _luminance(image)[:, None]
    right = pad(plane[..., 2:] - plane[..., :-2], (1, 1, 0, 0)) / 2
    down = pad(plane[..., 2:, :] - plane[..., :-2, :], (0, 0, 1, 1)) / 2
    products = torch.cat([right * right, down * down, right * down], dim=1)
    right_right, down_down, right_down = avg_pool2d(products, PLACE, stride=1, padding=PLACE // 2).unbind(1)
    one_way = ((right_right - down_down).square() + 4 * right_down.square() + 1e-12).sqrt()  # λ1 - λ2, with a gradient also where it is 0
    energy = _cut(right_right + down_down).mean((-1, -2))
    return _cut(one_way).mean((-1, -2)) / (energy + 1e-6), energy.detach().sqrt()


def regularity(original: Tensor, filtered: Tensor) -> tuple[Tensor, Tensor]:
    """Line shares of all windows where the ground is flat, and coherences of those where it is smooth, if the residual is not silent there; of large
    photos, in their centre of 1024x1024 px.

    Shape: two (1, 3, H, W) float RGB in [0, 1] -> (N,), (M,), empty where there is no such window or a side is shorter than 32 px.
    """
    if min(original.shape[-2:]) < WINDOW:
        return original.new_zeros(0), original.new_zeros(0)
    size = [min(side, CENTRE) for side in original.shape[-2:]]
    original, filtered = center_crop(original, size), center_crop(filtered, size)
    share, deviation = line_share(filtered - original)
    flat, smooth = flat_windows(original)[1] < FLAT, coherence(original)[1] < SMOOTH
    return share[flat & (deviation > SILENT)], coherence(filtered - original)[0][smooth & (deviation > SILENT)]


def _windows(image: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, N, 32, 32), luminance in units of 1/255."""
    return _cut(_luminance(image))


def _luminance(image: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, H, W), in units of 1/255."""
    return 255 * (image.float() * image.new_tensor(LUMA).view(3, 1, 1)).sum(1)


def _cut(plane: Tensor) -> Tensor:
    """(B, H, W) -> (B, N, 32, 32)."""
    return plane.unfold(1, WINDOW, STRIDE).unfold(2, WINDOW, STRIDE).flatten(1, 2)
