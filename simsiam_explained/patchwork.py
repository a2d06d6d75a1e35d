"""What a vision transformer reads, and where it looks: images cut into patches, patches shuffled, attention as maps."""
from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_generator, positive
from .vit import ViT

__all__ = ["patches", "assemble", "shuffle_patches", "attention_maps"]


def patches(
    x: Tensor,   # (B, C, H, W), any dtype
    side: int,   # of a patch; divides H and W
) -> Tensor:     # (B, N, C, side, side)
    """Cut images into N = H·W/side² squares, row by row: the words that a transformer reads."""
    b, c, height, width = x.shape
    if height % positive("side", side) or width % side:
        raise ValueError(f"side: got {side} for images of {height} × {width}; it must divide both.")
    tiles = x.reshape(b, c, height // side, side, width // side, side)
    return tiles.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def assemble(tiles: Tensor, rows: int) -> Tensor:
    """Return the images (B, C, H, W) of patches (B, N, C, side, side) that lie in `rows` rows; undoes `patches`."""
    grid = tiles.unflatten(1, (rows, -1)).permute(0, 3, 1, 4, 2, 5)
    return grid.flatten(4, 5).flatten(2, 3)


def shuffle_patches(x: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Return images (B, C, H, W) whose patches lie in a random order, another one for each image."""
    tiles = patches(x, side)
    check_generator(generator, x.device)
    order = torch.rand(tiles.shape[:2], generator=generator, device=x.device).argsort(1)
    return assemble(tiles.take_along_dim(order[:, :, None, None, None], 1), x.shape[2] // side)


@torch.no_grad()
def attention_maps(
    net: ViT,
    x: Tensor,     # (B, C, H, W), normalised
) -> Tensor:       # (depth, B, heads, T, T): row t says where token t looks, and sums to 1
    """Return who looks at whom in each block and head; with pool="token", T counts the class token, which is first."""
    maps, layers = [], [getattr(net, name).attention for name in net.layers]
    hooks = [layer.register_forward_hook(lambda layer, given, _: maps.append(layer.weights(*given))) for layer in layers]
    try:
        net(x)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(maps)
