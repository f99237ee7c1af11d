"""Vision transformer with the parts, sizes and weight names of DINOv2 (Oquab et al. 2023): patches of 14 pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthray.models.layers import symbolic_size

PATCH = 14
GRID = 37  # patches a side that positions are stored for: 518 pixels
NUDGE = 0.1  # added to the number of patches before the scale is computed, as DINOv2 was trained


class ViTShape(NamedTuple):
    """Sizes of a transformer."""

    width: int
    blocks: int
    heads: int
    taps: tuple[int, int, int, int]  # blocks whose output is returned
    grid: int = GRID


class LayerScale(nn.Module):
    """A trained factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B,N,C) -> (B,N,C)"""
        return tokens * self.gamma


class Attention(nn.Module):
    """Self-attention, queries, keys and values from one layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B,N,C) -> (B,N,C)"""
        qkv = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (3,B,heads,N,C/heads)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])  # (B,heads,N,C/heads)
        projected: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))  # (B,N,C)
        return projected


class Mlp(nn.Module):
    """Two layers, four times as wide between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B,N,C) -> (B,N,C)"""
        output: Tensor = self.fc2(F.gelu(self.fc1(tokens)))  # (B,N,4C) between
        return output


class TransformerBlock(nn.Module):
    """Attention and MLP, each normed before, scaled after and added."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)
        self.ls2 = LayerScale(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B,N,C) -> (B,N,C)"""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens)))
        output: Tensor = tokens + self.ls2(self.mlp(self.norm2(tokens)))
        return output


class PatchEmbed(nn.Module):
    """One token a patch."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, PATCH, stride=PATCH)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B,P,H,W) -> (B,H/14 * W/14,C)"""
        tokens: Tensor = self.proj(inputs).flatten(2).transpose(1, 2)  # (B,C,h,w) -> (B,h*w,C)
        return tokens


class ViT(nn.Module):
    """Patches to tokens; the class token and the patches of four blocks come out as maps."""

    def __init__(self, shape: ViTShape, *, registers: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.registers = registers
        if registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, registers, shape.width))
        self.patch_embed = PatchEmbed(3, shape.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.grid**2 + 1, shape.width))
        self.blocks = nn.ModuleList(TransformerBlock(shape.width, shape.heads) for _ in range(shape.blocks))
        self.norm = nn.LayerNorm(shape.width, eps=1e-6)
        self._init_weights()

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """(B,P,H,W) inputs -> four maps (B,C,H/14,W/14), shallowest first"""
        rows, columns = inputs.shape[-2] // PATCH, inputs.shape[-1] // PATCH
        patches = self.patch_embed(inputs)
        tokens = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1)  # (B,1+N,C)
        tokens = tokens + self._positions(rows, columns).to(tokens.dtype)
        if self.registers:  # after the class token, and without a position
            registers = self.register_tokens.expand(patches.shape[0], -1, -1)
            tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1)  # (B,1+R+N,C)
        maps = []
        for number, block in enumerate(self.blocks):
            tokens = block(tokens)
            if number in self.shape.taps:
                patches = self.norm(tokens)[:, 1 + self.registers :]  # (B,N,C)
                grid = patches.reshape(-1, rows, columns, self.shape.width)  # (B,h,w,C)
                maps.append(grid.permute(0, 3, 1, 2))  # (B,C,h,w)
        return maps

    def _positions(self, rows: int, columns: int) -> Tensor:
        """patches of an image -> (1,1+rows*columns,C): the stored square, bicubic at other sizes"""
        grid = self.shape.grid
        exporting = torch.compiler.is_exporting()
        if not exporting and (rows, columns) == (grid, grid):
            return self.pos_embed
        square = self.pos_embed[:, 1:].float().transpose(1, 2).reshape(1, -1, grid, grid)  # (1,C,37,37)
        if exporting:
            resized = symbolic_size.resize_positions(
                square, (rows, columns), offset=NUDGE, antialias=self.registers > 0
            )
        elif self.registers:  # published later, and trained with another resampling
            resized = F.interpolate(square, size=(rows, columns), mode="bicubic", align_corners=False, antialias=True)
        else:
            scale = ((rows + NUDGE) / grid, (columns + NUDGE) / grid)
            resized = F.interpolate(square, scale_factor=scale, mode="bicubic", align_corners=False)
        # The class token has no place in the grid; its position stays as it is. -> (1,1+N,C)
        return torch.cat([self.pos_embed[:, :1].float(), resized.flatten(2).transpose(1, 2)], dim=1)

    def _init_weights(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        if self.registers:
            nn.init.normal_(self.register_tokens, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
