"""Scale on paper: the formulas against cases done by hand and by simulation, their limits, and the page's tables."""

from __future__ import annotations

import math
import random

import pytest
from paths import ROOT
from scripts import load_script

from depthray.training import preflight

FOLDER = ROOT / "docs" / "scaling"
WRITE = "run: python docs/scaling/tables.py --write"


model, networks, tables, chart = (load_script(name, FOLDER) for name in ("model", "networks", "tables", "chart"))
IDEAL = model.Corner()  # peaks reached, no launch of operations, no jitter
GPU = model.Gpu("made up", 1e12, 1e11, "")
FLAT = model.Cluster("made up", GPU, 1, 1e10, 1e9, 0.0, 0.0, "", start=0.0)
NODES = FLAT._replace(per_node=4, hop_inside=1e-6, hop_between=1e-5, start=1e-5)
NET = networks.Network(
    "made up",
    (1, 1),
    10**6,
    1e9,
    0.0,
    0.0,
    0.0,
    100,
    200,
    (networks.Bucket(10**6, 0.5), networks.Bucket(3 * 10**6, 1.0)),
)


def test_an_all_reduce_of_two_takes_bytes_over_bandwidth() -> None:
    assert model.all_reduce(1e9, FLAT, 2) == pytest.approx(1.0)
    assert model.all_reduce(1e9, FLAT, 1) == 0.0
    assert model.all_reduce(1e9, FLAT, 1_000_000) == pytest.approx(2.0, rel=1e-3)


def test_every_algorithm_of_an_all_reduce_by_hand() -> None:
    seconds = model.algorithms(1e8, NODES, 16, 0.5)  # 4 nodes of 4; 5 GB/s inside, 0.5 GB/s between
    inside = 2 * 3 / 4 * 1e8 / 5e9 + 6 * 1e-6
    assert seconds["ring"] == pytest.approx(1e-5 + 2 * 15 / 16 * 1e8 / 5e8 + 2 * 12 * 1e-6 + 2 * 3 * 1e-5)
    assert seconds["two levels"] == pytest.approx(1e-5 + inside + 2 * 3 / 4 * 1e8 / 5e8 + 6 * 1e-5)
    assert seconds["tree"] == pytest.approx(1e-5 + inside + 2 * 1e8 / 5e8 + 2 * 2 * 1e-5)
    assert model.all_reduce(1e8, NODES, 16, 0.5) == min(seconds.values())
    assert model.algorithms(1e8, NODES, 4, 1.0) == {"ring": pytest.approx(1e-5 + 1.5 * 1e8 / 1e10 + 6e-6)}


def test_a_tree_has_fewer_hops_than_a_ring_where_there_are_many() -> None:
    slow = NODES._replace(hop_between=1e-3)
    seconds = model.algorithms(1e3, slow, 4096, 1.0)
    assert seconds["tree"] < seconds["two levels"] / 50


def test_a_step_by_hand() -> None:
    """2 images: forward 2 ms, backward 4 ms; a bucket of 1 MB after 4 ms, one of 3 MB after 6 ms, 1 and 3 ms long."""
    update = 40 * 10**6 / 1e11
    assert model.compute(NET, GPU, 2, IDEAL) == pytest.approx((0.002, 0.004, update))
    sums = 2 * 1024 / 1e9
    assert model.step(NET, FLAT, 2, 2, IDEAL) == pytest.approx(0.006 + 0.003 + sums + update)
    slow = FLAT._replace(between=1e8)  # 10 ms, so the second bucket waits for the first
    assert model.step(NET, slow, 2, 2, IDEAL) == pytest.approx(0.004 + 0.01 + 0.03 + 10 * sums + update)
    assert model.step(NET, FLAT, 1, 2, IDEAL) == pytest.approx(0.006 + update)


def test_a_step_is_never_faster_than_the_host_launches_its_operations() -> None:
    slow = model.Corner(launch=1e-3)
    assert model.compute(NET, GPU, 2, slow)[:2] == pytest.approx((0.1, 0.2))
    assert model.inference(NET, GPU, 1, slow) == pytest.approx(0.1)


@pytest.mark.parametrize("corner", model.CORNERS)
def test_one_gpu_is_perfectly_efficient_and_none_is_more(corner) -> None:
    net = networks.counted("bifpn-efficientnet-b0")
    for efficiency, images in ((model.weak, 32), (model.strong, 1024)):
        for cluster in model.CLUSTERS:
            assert efficiency(net, cluster, 1, images, corner) == 1.0
            found = [efficiency(net, cluster, gpus, images, corner) for gpus in (1, 8, 64, 1024)]
            assert found == sorted(found, reverse=True) and found[-1] > 0, cluster.name


def test_faster_links_never_hurt() -> None:
    net, cluster = networks.counted("depthnet"), model.CLUSTERS[2]
    faster = [cluster._replace(between=cluster.between * factor) for factor in (0.01, 0.1, 1, 10, 1e6)]
    found = [model.weak(net, each, 64, 8, IDEAL) for each in faster]
    assert found == sorted(found) and found[0] < 0.5 * found[-1]


def test_nothing_is_lost_with_infinite_links_and_equal_gpus() -> None:
    net = networks.counted("depthnet")
    infinite = FLAT._replace(between=1e30, inside=1e30)
    assert model.weak(net, infinite, 1024, 8, IDEAL) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("ranks", "sigma"), [(2, 0.05), (16, 0.1), (256, 0.02)])
def test_the_slowest_of_many_as_in_a_simulation(ranks: int, sigma: float) -> None:
    rng = random.Random(0)
    draws = [max(rng.lognormvariate(-(sigma**2) / 2, sigma) for _ in range(ranks)) for _ in range(4000)]
    assert model.slowest(ranks, sigma) == pytest.approx(sum(draws) / len(draws), abs=0.1 * sigma)


def test_the_slower_of_two_normal_times_is_known() -> None:
    assert model.slowest(2, 0.001) == pytest.approx(1 + 0.001 / math.sqrt(math.pi), abs=1e-6)
    assert model.slowest(1, 0.3) == model.slowest(64, 0.0) == 1.0


def test_buckets_are_those_of_distributed_data_parallel() -> None:
    import torch
    from torch._C._distributed_c10d import _compute_bucket_assignment_by_size as assigned

    parameters = [torch.nn.Parameter(torch.empty(size, device="meta")) for size in (5_000_000, 900, 3_000_000, 200_000)]
    ready = {id(parameter): 1 - place / 10 for place, parameter in enumerate(parameters)}
    ours = networks.bucketed(parameters, ready)
    backwards = [torch.empty(p.numel()) for p in reversed(parameters)]
    groups, _ = assigned(backwards, [networks.FIRST_BUCKET, networks.BUCKET])
    assert [each.bytes for each in ours] == [sum(4 * backwards[i].numel() for i in group) for group in groups]
    assert [each.ready for each in ours] == [0.8, 1.0]


@pytest.mark.parametrize("name", networks.SIZES)
def test_networks_are_counted(name: str) -> None:
    import torch

    from depthray import models

    net = networks.counted(name)
    made = preflight.load(name, [], training=False)
    with torch.device("meta"):
        built = models.build_model(made.model, made.data.inputs)
    assert net.parameters == sum(p.numel() for p in built.parameters())
    assert sum(bucket.bytes for bucket in net.buckets) == net.gradient_bytes
    assert [b.ready for b in net.buckets] == sorted(b.ready for b in net.buckets) and net.buckets[-1].ready <= 1.0


def test_resnet50_counts_as_everybody_says() -> None:
    net = networks.resnet50()
    assert net.forward == pytest.approx(2 * 4.09e9, rel=0.01)  # torchvision: 4.09 GFLOPS, which are multiply-adds
    assert net.parameters == 25_557_032


def test_save_points_by_hand() -> None:
    assert model.young(2.0, 100.0) == 20.0
    x = 2.0 / 200.0
    assert model.daly(2.0, 100.0) == pytest.approx(20.0 * (1 + math.sqrt(x) / 3 + x / 9) - 2.0)
    assert model.daly(500.0, 100.0) == 100.0
    around = [model.lost(2.0, 20.0 * factor, 1e2, restart=0.0) for factor in (0.8, 1.0, 1.25)]
    assert around[1] == min(around) == pytest.approx(0.2)


def test_queues_by_hand_and_as_simulated() -> None:
    assert model.erlang_c(1, 0.7) == pytest.approx(0.7)
    assert model.erlang_c(2, 1.0) == pytest.approx(1 / 3)
    assert model.waiting(1, 0.5) == pytest.approx(0.5) and model.waiting(1, 0.5, variation=1.0) == pytest.approx(1.0)
    assert model.waiting(2, 2.0) == math.inf
    times = model.simulated(2.4, 4, lambda _: 1.0)
    assert sum(times) / len(times) - 1 == pytest.approx(model.waiting(4, 2.4), rel=0.2)
    assert times == model.simulated(2.4, 4, lambda _: 1.0)


def test_replicas_are_the_fewest_that_hold_the_wait() -> None:
    count = model.replicas_for(100.0, 0.045, wait=0.5)
    assert model.waiting(count, 4.5) <= 0.5 < model.waiting(count - 1, 4.5)


def test_batches_raise_what_a_replica_can_take() -> None:
    alone, batched = (model.simulated(0.95, 1, lambda n: 0.9 + 0.1 * n, batch=most) for most in (1, 8))
    assert sum(batched) < sum(alone) / 3


def test_frames_are_as_large_as_shards_store_them() -> None:
    import numpy as np

    from depthray.data.shards.format import CHANNELS, DTYPES

    modest = model.MODEST
    arrays = [np.zeros((*modest.size, *CHANNELS[key]), DTYPES[key]) for key in modest.keys]
    assert modest.frame == sum(array.nbytes for array in arrays) == 451_584
    for data in (modest, *model.FIFTY):
        each = model.frames_per_shard(data, 128)
        assert each * data.frame <= model.SHARD_LIMIT and data.frames / each >= 16 * 128


@pytest.mark.parametrize("name", tables.TABLES)
def test_the_page_has_the_table_that_the_model_computes(name: str) -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"<!-- table {name} -->\n{tables.markdown(name)}\n<!-- end -->" in page, WRITE


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(SystemExit, match="0 places for the table 'machines'"):
        tables.filled("nothing here")


def test_the_chart_is_the_one_that_the_model_draws() -> None:
    drawn = chart.svg()
    assert (FOLDER / "scaling.svg").read_text(encoding="utf-8") == drawn, WRITE
    assert drawn.count('id="band"') == 2 * len(model.CLUSTERS) * len(chart.RECIPES)
