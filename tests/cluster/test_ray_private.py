"""Private names of Ray: all in one file, and all in the installed Ray, so that an upgrade fails here first."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import ray_private

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "cluster" / "ray_private.py"
# Each mixin, and the class of Ray that it stands before.
BASES = {
    "ScalingPolicyHooks": "ray.train.v2._internal.execution.scaling_policy:ElasticScalingPolicy",
    "TrainerHooks": "ray.train.torch:TorchTrainer",
    "MedianStoppingHooks": "ray.tune.schedulers:MedianStoppingRule",
    "PopulationHooks": "ray.tune.schedulers:PopulationBasedTraining",
}
PRIVATE = re.compile(r"\bray(\.\w+)*\._\w|_raylet|internal_kv|\._internal\b|core\.generated|\bray\.dashboard\.")


def private_methods() -> list[tuple[str, str]]:
    """(mixin, method) for each private method that overrides one of Ray's."""
    classes = [node for node in ast.parse(FILE.read_text()).body if isinstance(node, ast.ClassDef)]
    return [
        (each.name, node.name)
        for each in classes
        for node in each.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("_")
    ]


def private_imports(text: str) -> Iterator[str]:
    """Each name that a text imports from Ray, as "module:name"."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ray"):
            yield from (f"{node.module}:{alias.name}" for alias in node.names)


def others() -> list[Path]:
    return [path for room in ("cluster", "tuning") for path in sorted((ROOT / room).rglob("*.py")) if path != FILE]


@pytest.mark.parametrize("path", others(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_file_uses_a_private_name(path: Path) -> None:
    overridden = {method for _, method in private_methods()}
    text = path.read_text()
    assert not [line for line in text.splitlines() if PRIVATE.search(line)]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ray":
            assert not [part for part in (node.module or "").split(".") if part.startswith("_")]
            assert not [alias.name for alias in node.names if alias.name.startswith("_")]
        if isinstance(node, ast.FunctionDef):
            assert node.name not in overridden
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call):
            of_super = isinstance(node.value.func, ast.Name) and node.value.func.id == "super"
            assert not (of_super and node.attr.startswith("_") and not node.attr.startswith("__")), node.attr


@pytest.mark.parametrize("name", sorted({*private_imports(FILE.read_text())}))
def test_every_imported_name_is_in_the_installed_ray(name: str) -> None:
    assert resolve_name(name) is not None


def test_every_class_and_every_name_of_the_start_script_is_in_the_installed_ray() -> None:
    from ray._private import ray_constants, services

    for name, module in ray_private.CLASSES.items():
        assert getattr(ray_private, name) is getattr(import_module(module), name)
    assert set(ray_private.__all__) == set(ray_private.CLASSES)
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        getattr(ray_private, "missing")  # noqa: B009
    assert [*private_imports(ray_private.START_ON_LOOPBACK)][-1] == "ray.scripts.scripts:main"
    assert isinstance(ray_constants.ENABLE_RAY_CLUSTER, bool) and callable(services.resolve_ip_for_localhost)
    for name in private_imports(ray_private.START_ON_LOOPBACK):
        assert resolve_name(name)


@pytest.mark.parametrize(("mixin", "method"), private_methods())
def test_every_overridden_method_is_in_the_installed_ray(mixin: str, method: str) -> None:
    assert callable(getattr(resolve_name(BASES[mixin]), method))


def test_every_private_attribute_is_in_the_installed_ray() -> None:
    import ray
    from ray.train._internal import session
    from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy
    from ray.train.v2.api.config import ScalingConfig

    policy = ElasticScalingPolicy(ScalingConfig(num_workers=(1, 2), resources_per_worker={"CPU": 1}))
    for name in ("_latest_reserved_resources_query_time", "_latest_reserved_resources", "_requester_id"):
        assert hasattr(policy, name)
    assert hasattr(type(policy), "_autoscaling_coordinator") or hasattr(policy, "_autoscaling_coordinator")
    assert policy.GET_RESERVED_RESOURCES_INTERVAL_S > 0
    assert hasattr(ray._private.worker, "_global_node")
    for name in ("webui_url", "get_session_dir_path"):
        assert hasattr(ray._private.node.Node, name)
    assert callable(session._TrainSession.finish)
    assert session.get_session() is None


def test_the_preemption_notice_is_where_ray_train_puts_it() -> None:
    from ray.train.v2._internal.execution import context
    from ray.train.v2._internal.execution.preemption import PreemptionContext
    from ray.train.v2.api.preemption import PreemptionInfo

    assert not ray_private.is_node_preempted()
    train_context: Any = SimpleNamespace(preemption_context=PreemptionContext())
    context.set_train_context(train_context)
    try:
        assert "preemption_context" in context.TrainContext.__dataclass_fields__
        assert not ray_private.is_node_preempted()
        train_context.preemption_context.preemption_info = PreemptionInfo(None, {"node": [0]})
        assert ray_private.is_node_preempted()
    finally:
        context._train_context = None


def test_a_trial_that_is_not_running_is_not_waited_for() -> None:
    ray_private.wait_for_stopped_trial(60)
