"""LoRA (Hu et al. 2021): a layer keeps its weights; the product of two narrow matrices is trained and added to them.

For transformers whose blocks have `attn.qkv`, `attn.proj`, `mlp.fc1` and `mlp.fc2`. Weights keep their names, so that
published files load; a network predicts as before until the matrices have been trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

ATTENTION = ("attn.qkv", "attn.proj")
MLP = ("mlp.fc1", "mlp.fc2")


class LoRALinear(nn.Linear):
    """A linear layer whose weights are frozen, plus alpha / rank times the product of two trained matrices."""

    def __init__(self, layer: nn.Linear, *, rank: int, alpha: float) -> None:
        """Take over the weights of a layer."""
        # On the meta device first: weights that are replaced at once need no memory and no random numbers.
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.scale = alpha / rank
        self.lora_a = nn.Parameter(layer.weight.new_empty(rank, layer.in_features))
        self.lora_b = nn.Parameter(layer.weight.new_zeros(layer.out_features, rank))  # 0: no change at first
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))  # as torch initialises linear layers

    def forward(self, tokens: Tensor) -> Tensor:
        """(B,N,C) -> (B,N,D)"""
        # (B,N,C) -> (B,N,rank) -> (B,N,D): never the full matrix, which is as large as the weights.
        added = F.linear(F.linear(tokens, self.lora_a), self.lora_b)
        return super().forward(tokens) + self.scale * added

    def merged(self) -> nn.Linear:
        """A plain layer with the product in its weights: the same output, at the speed of before."""
        plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        # The product in float64: rounded once, to what the weights can hold.
        added = self.scale * (self.lora_b.double() @ self.lora_a.double())
        plain.weight = nn.Parameter((self.weight.double() + added).to(self.weight.dtype).detach())
        plain.bias = self.bias
        return plain


def add(blocks: Iterable[nn.Module], *, rank: int, alpha: float, mlp: bool) -> None:
    """Give the layers of a transformer's blocks trained matrices of a rank."""
    for block in blocks:
        for path in (*ATTENTION, *MLP) if mlp else ATTENTION:
            parent, _, name = path.rpartition(".")
            layer = block.get_submodule(path)
            assert isinstance(layer, nn.Linear), path
            setattr(block.get_submodule(parent), name, LoRALinear(layer, rank=rank, alpha=alpha))


def train_only(network: nn.Module, *, also: Iterable[nn.Module]) -> None:
    """Freeze all parameters but the added matrices and those of some modules."""
    network.requires_grad_(False)
    for module in also:
        module.requires_grad_(True)
    for module in network.modules():
        if isinstance(module, LoRALinear):
            module.lora_a.requires_grad_(True)
            module.lora_b.requires_grad_(True)


def merge(network: nn.Module) -> nn.Module:
    """The network itself with plain layers in place of those with added matrices."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoRALinear):
                setattr(parent, name, child.merged())
    return network
