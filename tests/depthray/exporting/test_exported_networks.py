"""Every architecture, variant and recipe computes in other runtimes what it computes in PyTorch."""

import copy
from functools import cache, lru_cache
from pathlib import Path

import pytest
import torch
from export_cases import build, cases, write_traced
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from depthray.exporting import targets
from depthray.exporting.graph import ExportGraph, build_graph, difference, trace
from depthray.runtimes.open import backend

# One of each architecture, the smallest, with each layer that exports differ for; the others are their code at other
# widths or with other options, and wait for `make thorough`.
ALWAYS = (
    "bifpn encoder=efficientnet_lite0",
    "depthmasknet",
    "depthnet",
    "dpt size=tiny lora_rank=2 lora_mlp=True",
    "fpn encoder=resnet18 sparse_fusion=late fill=guided refine=nlspn refine_samples=exact refine_steps=2 image+sparse",
    "masknet",
    "unet encoder=tiny uncertainty=laplace valid_mask=True image+background+semantics+instances+mask",
)
THOROUGH = [pytest.param(case, marks=() if str(case) in ALWAYS else pytest.mark.thorough) for case in cases()]
BOUND = 1e-4  # relative to the largest value of a map
LARGEST = 256  # pixels: larger ones take more nodes where sparse depth is filled
RUNTIMES = {"onnx": "onnx", "openvino": "openvino", "torch-export": "torch_export"}
OUTPUTS = ("depth", "mask")
PAGE = Path(__file__).parents[3] / "docs" / "export-support.md"
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def once():
    """Read ONNX's operators once, not for each network: it takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(lru_cache(ONNXRegistry.from_torchlib)))
        yield


@cache
def support():
    """Network -> column -> cell of the page that says what exports to what."""
    lines = [line.strip("|").split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    head, _, *rows = [[cell.strip() for cell in line] for line in lines]
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def norms(module: nn.Module) -> int:
    return sum(type(part) is nn.BatchNorm2d for part in module.modules())


@pytest.mark.parametrize("case", THOROUGH, ids=str)
def test_runtimes_compute_what_the_network_does(case, tmp_path):
    network = build(case)
    reference = ExportGraph(copy.deepcopy(network), OUTPUTS)  # with its norms
    graph = build_graph(network, OUTPUTS)
    # Of BiFPN nine norms come after an activation: no convolution can do their work.
    assert norms(graph) == (9 if case.architecture == "bifpn" else 0)
    traced = trace(graph, size=(graph.round_up(64), graph.round_up(96)), largest_side=LARGEST)
    assert traced.note == "" and traced.dynamic_batch and traced.dynamic_size
    # Two batches and three sizes, one as small as can be.
    examples = [
        graph.example(batch, *(graph.round_up(max(side, traced.smallest_side)) for side in (height, width)))
        for batch, height, width in ((2, 64, 96), (1, 96, 80), (3, 1, 33))
    ]
    with torch.no_grad():
        expected = [reference(*example) for example in examples]
        assert all(each.isfinite().all() and each.std() > 0 for maps in expected for each in maps)
        assert all(difference(graph(*example), maps) < 1e-5 for example, maps in zip(examples, expected, strict=True))
    for target, runtime in RUNTIMES.items():
        (tmp_path / target).mkdir()
        run = backend(runtime).load(write_traced(traced, target, tmp_path / target), threads=1, device=CPU)
        for example, maps in zip(examples, expected, strict=True):
            outputs = run(example)
            assert [each.shape for each in outputs] == [each.shape for each in maps]
            assert difference(outputs, maps) < BOUND, target
    row = support()[str(case)]
    assert (row["sides"], row["size"]) == (f"multiples of {graph.stride}", "any size")
    assert {row[target] for target in RUNTIMES} == {"passed"}


def test_the_page_has_a_row_for_each_network():
    assert list(support()) == [str(case) for case in cases()]
    for row in support().values():
        assert set(row) == {"network", "sides", "size", *targets.names()}
        assert row["tensorrt"] == "untested"
        assert row["aoti"] in ("passed", "not tried") and row["openvino-int8"].startswith(("passed", "refused: "))


def test_cases_are_all_there_are():
    named = {(case.architecture, tuple(case.options.items())) for case in cases()}
    assert {"bifpn", "depthmasknet", "depthnet", "dpt", "fpn", "masknet", "unet"} <= {name for name, _ in named}
    assert ("unet", (("encoder", "tiny"),)) in named
    assert {*ALWAYS} <= {str(case) for case in cases()}
