"""What every shipped recipe promises: its loss teaches all of its network."""

import pytest
import torch

from depthray import losses, models
from depthray.config import recipe
from depthray.training import preflight

SIDE = 64


def a_batch(count=2):
    """Every key that a network or a loss may read."""
    generator = torch.Generator().manual_seed(4)
    depth = 1 + 4 * torch.rand(count, 1, SIDE, SIDE, generator=generator)
    camera = torch.tensor([[60.0, 0, 31.5], [0, 60.0, 31.5], [0, 0, 1]])
    return {
        "image": torch.rand(count, 3, SIDE, SIDE, generator=generator),
        "background": torch.rand(count, 3, SIDE, SIDE, generator=generator),
        "depth": depth,
        "valid": torch.ones_like(depth, dtype=torch.bool),
        "sparse": depth * (torch.rand(depth.shape, generator=generator) > 0.9),
        "semantics": torch.randint(0, 40, depth.shape, generator=generator),
        "instances": torch.randint(0, 9, depth.shape, generator=generator),
        "mask": (torch.rand(depth.shape, generator=generator) > 0.5).float(),
        "intrinsics": camera.expand(count, 3, 3),
    }


@pytest.mark.parametrize("name", [*recipe.names(), *recipe.originals()])
def test_the_loss_reaches_every_trained_parameter(name):
    made = preflight.load(name)
    torch.manual_seed(0)
    network = models.build_model(made.model, made.data.inputs).train()
    for key, value in network.named_parameters():
        # What begins at 0 lets no gradient reach the layers before it in the first step.
        if key.endswith("lora_b") or (value.dim() == 4 and not value.any()):
            torch.nn.init.normal_(value, std=0.01 if value.dim() == 4 else 1.0)
    batch = a_batch()
    per_image, _ = losses.total(models.run(network, batch), batch, made.loss)
    per_image.sum().backward()
    trained = {key: value for key, value in network.named_parameters() if value.requires_grad}
    assert [key for key, value in trained.items() if value.grad is None or not value.grad.any()] == []
    assert all(value.grad.isfinite().all() for value in trained.values())
    assert losses.unused_outputs(getattr(network, "outputs", ("depth",)), made.loss) == ()


@pytest.mark.parametrize("name", recipe.names())
def test_the_network_predicts_what_the_recipe_trains_and_ranks(name):
    made = preflight.load(name)
    with torch.device("meta"):
        network = models.build_model(made.model, made.data.inputs)
    assert set(made.data.targets) <= set(getattr(network, "outputs", ("depth",)))
