"""LoRA: the same prediction at first, few trained parameters, and merged layers that predict equally."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from depthray import models
from depthray.batch import Batch
from depthray.config.sections import Model
from depthray.models.dpt import DPT, build
from depthray.models.layers import lora


def batch_of(height: int = 42, width: int = 56) -> Batch:
    generator = torch.Generator().manual_seed(0)
    batch: Any = {"image": torch.rand(2, 3, height, width, generator=generator)}
    return batch


def tuned(**options: Any) -> DPT:
    """A network whose added matrices have been trained, as far as numbers can tell."""
    torch.manual_seed(1)
    network = build(size="tiny", lora_rank=4, **options).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("lora_b"):
                nn.init.normal_(parameter, std=0.2)
    return network


@torch.no_grad()
def depth_of(network: nn.Module) -> torch.Tensor:
    depth: torch.Tensor = network(batch_of())["depth"]
    return depth


def trained(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("size", ["vits", "vitb", "vitl"])
@pytest.mark.parametrize("rank", [4, 8, 16])
def test_less_than_a_twentieth_of_the_parameters_train(size: Any, rank: int) -> None:
    with torch.device("meta"):
        network = build(size=size, lora_rank=rank)
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    assert sum(count for count, learns in counts if learns) < 0.05 * sum(count for count, _ in counts)


def test_it_starts_as_the_network_without_it() -> None:
    torch.manual_seed(3)
    plain = build(size="tiny").eval()
    torch.manual_seed(3)
    adapted = build(size="tiny", lora_rank=4, lora_mlp=True).eval()
    weights = adapted.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in plain.state_dict().items())
    assert torch.equal(depth_of(plain), depth_of(adapted))


@pytest.mark.parametrize("mlp", [False, True])
def test_merged_weights_predict_equally(mlp: bool) -> None:
    network = tuned(lora_mlp=mlp)
    before, start = depth_of(network), depth_of(build_like(network))
    assert (before - start).abs().max() > 0.01, "the added matrices change nothing"
    merged = lora.merge(network)
    assert merged.state_dict().keys() == build(size="tiny").state_dict().keys()
    assert torch.allclose(depth_of(merged), before, rtol=1e-5, atol=1e-5)


def build_like(network: DPT) -> DPT:
    """The network without what was added."""
    plain = build(size="tiny").eval()
    plain.load_state_dict({name: weight for name, weight in network.state_dict().items() if ".lora_" not in name})
    return plain


def test_what_trains_of_the_decoder_is_an_option() -> None:
    added = {name for name in trained(build(size="tiny", lora_rank=4, lora_decoder="none"))}
    assert added and all(name.endswith(("lora_a", "lora_b")) for name in added)
    output = trained(build(size="tiny", lora_rank=4)) - added
    assert {name.removeprefix("depth_head.scratch.").partition(".")[0] for name in output} == {
        *("output_conv1", "output_conv2")
    }
    decoder = trained(build(size="tiny", lora_rank=4, lora_decoder="all")) - added
    assert decoder == {name for name, _ in build(size="tiny").named_parameters() if name.startswith("depth_head.")}


def test_weights_of_further_inputs_train_too() -> None:
    assert "encoder.patch_embed.proj.weight" in trained(build(size="tiny", lora_rank=4, inputs=("image", "sparse")))


def test_what_completes_depth_trains_too() -> None:
    section = Model(name="dpt", size="tiny", lora_rank=4, sparse_fusion="late", fill="guided", refine="cspn")
    names = trained(models.build_model(section, ("image", "sparse")))
    assert {name.split(".")[1] for name in names if name.startswith("metres.")} == {"late", "fill", "refine"}
    assert "encoder.patch_embed.proj.weight" not in names, "it sees the image alone"


def test_only_trained_parameters_get_a_gradient() -> None:
    network = tuned().train()
    network(batch_of())["depth"].mean().backward()
    gradients = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert gradients == trained(network)
