"""How pixels move: crop and flip in one resampling, and the Gaussian blur, each image with numbers of its own."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["crop", "blur", "kernel_size"]


def crop(
    pixels: Tensor,   # (B, C, H, W)
    window: tuple[Tensor, Tensor, Tensor, Tensor],  # top, left, height, width: each (B,) whole-number floats
    flip: Tensor,     # (B,) bool: mirror left and right
    size: tuple[int, int],  # rows and columns of the views
) -> Tensor:
    """Return every image's own window, resized to `size` bilinearly: (B, C, rows, columns) float32.

    Views at least as large as the images are sampled at points. Smaller views are averaged (antialias=True in
    torchvision's words), so that fine stripes do not fold into coarse ones; the two agree wherever a crop is enlarged.
    """
    smaller = size[0] < pixels.shape[2] or size[1] < pixels.shape[3]
    down, across = (window[0], window[2], size[0], torch.zeros_like(flip)), (window[1], window[3], size[1], flip)
    return (_average if smaller else _sample)(pixels.float(), down, across)


def _centres(start: Tensor, length: Tensor, size: int, flip: Tensor) -> Tensor:
    """Return (B, size): where in the image the centre of each pixel of the view lies; a pixel's centre is at ½."""
    out = torch.arange(size, device=start.device, dtype=start.dtype) + 0.5
    return start[:, None] + torch.where(flip[:, None], size - out, out) * (length / size)[:, None]


def _sample(x: Tensor, down: tuple, across: tuple) -> Tensor:
    """Return x (B, C, H, W) at the grid of points; no pixel outside the window is looked at."""
    points = [_centres(*axis).clamp((axis[0] + 0.5)[:, None], (axis[0] + axis[1] - 0.5)[:, None]) * (2 / side) - 1
              for axis, side in ((across, x.shape[3]), (down, x.shape[2]))]       # grid_sample counts from −1 to 1
    grid = torch.empty(len(x), down[2], across[2], 2, device=x.device)
    grid[..., 0], grid[..., 1] = points[0][:, None, :], points[1][:, :, None]
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _shares(start: Tensor, length: Tensor, size: int, flip: Tensor, side: int) -> Tensor:
    """Return (B, size, side): the share of each pixel of the image in each pixel of the view; rows sum to 1."""
    pixel = torch.arange(side, device=start.device, dtype=start.dtype) + 0.5
    reach = (length / size).clamp(min=1)[:, None, None]
    w = (1 - (pixel - _centres(start, length, size, flip)[:, :, None]).abs() / reach).clamp_(min=0)
    w *= ((pixel > start[:, None]) & (pixel < (start + length)[:, None]))[:, None]
    return w / w.sum(2, keepdim=True)


def _average(x: Tensor, down: tuple, across: tuple) -> Tensor:
    return _mix(x, _shares(*down, x.shape[2]), _shares(*across, x.shape[3]))


def _mix(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return rows · x · columnsᵀ for x (B, C, H, W), rows (B, R, H), columns (B, S, W): two batched products."""
    b, c, h, w = x.shape
    x = torch.bmm(x.reshape(b, c * h, w), columns.transpose(1, 2)).view(b * c, h, -1)
    return torch.bmm(rows.repeat_interleave(c, 0), x).view(b, c, rows.shape[1], -1)


def kernel_size(share: float, size: int) -> int:
    """Return the odd width of the blur kernel, at least 3, for `share` of a view of `size` pixels."""
    return max(3, int(share * size) // 2 * 2 + 1)


def blur(x: Tensor, sigma: Tensor, share: float) -> Tensor:
    """Return x (B, C, H, W) blurred by Gaussians of `sigma` (B,) pixels, mirrored at the borders."""
    return _mix(x, *(_gaussians(sigma, size, kernel_size(share, size)) for size in x.shape[2:]))


def _gaussians(sigma: Tensor, size: int, kernel: int) -> Tensor:
    """Return (B, size, size): row k holds the Gaussian round pixel k, its tails folded back at the borders."""
    offset = torch.arange(kernel, device=sigma.device) - kernel // 2
    gauss = torch.exp(-0.5 * (offset / sigma[:, None]) ** 2)
    gauss = gauss / gauss.sum(1, keepdim=True)                                       # (B, kernel)
    source = (torch.arange(size, device=sigma.device) + offset[:, None]).abs()       # (kernel, size)
    source = torch.where(source > size - 1, 2 * (size - 1) - source, source)
    taps = F.one_hot(source, size).to(gauss.dtype)                                   # (kernel, size, size)
    return (gauss @ taps.flatten(1)).view(-1, size, size)
