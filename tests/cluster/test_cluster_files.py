"""The cluster files: every key is known to what will read it, nothing is open, all images hold the tested versions."""

from __future__ import annotations

import copy
import re
import shlex
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kuberay_fields import faults
from paths import ROOT

import depthray
from depthray.cli.train import build_parser
from depthray.config import recipe as recipes

FILES = ROOT / "cluster" / "files"
UP = sorted(FILES.glob("*.yaml"))
KUBERAY = sorted(FILES.glob("kuberay/*.yaml"))
PINS = dict(
    line.strip().split("==") for line in (ROOT / "constraints.txt").read_text("ascii").splitlines() if "==" in line
)
PYTHON = "3.11"  # the tested one
# Of what `ray up` passes on to EC2 and Compute Engine, which Ray does not look at.
NODE_CONFIG = {
    "aws": {"InstanceType", "ImageId", "BlockDeviceMappings", "IamInstanceProfile", "InstanceMarketOptions", "KeyName"},
    "gcp": {"machineType", "disks", "serviceAccounts", "scheduling", "guestAccelerators", "metadata", "labels"},
}


def read(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def walk(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a tree with its path."""
    yield path, tree
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield from walk(value, f"{path}.{key}")


def clusters() -> list[tuple[str, dict[str, Any]]]:
    """Every RayClusterSpec of our manifests."""
    found = [(each["kind"], each.get("spec")) for path in KUBERAY for each in read(path)]
    keys = {"RayCluster": None, "RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}
    return [(kind, spec[keys[kind]] if keys[kind] else spec) for kind, spec in found if kind in keys]


def pods(spec: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


# `ray up`


def validated(tree: dict[str, Any]) -> dict[str, Any]:
    """A file of `ray up` as Ray reads it. Raises where its schema, or our list of node_config's keys, refuses it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.autoscaler._private.util import prepare_config, validate_config

        prepared: dict[str, Any] = prepare_config(copy.deepcopy(tree))
        validate_config(prepared)
    known = NODE_CONFIG.get(tree["provider"]["type"], set())
    for name, kind in tree.get("available_node_types", {}).items():
        assert kind["node_config"].keys() <= known, f"{name}: {kind['node_config'].keys() - known}"
    return prepared


@pytest.mark.parametrize("path", UP, ids=lambda path: path.stem)
def test_ray_up_takes_the_file(path: Path) -> None:
    (tree,) = read(path)
    prepared = validated(tree)
    assert prepared["cluster_name"] == "depthray" and prepared["max_workers"] >= 2
    local = [Path(source) for source in tree["file_mounts"].values() if not source.startswith("~")]
    assert {ROOT / source for source in local} >= {ROOT / "constraints.txt", ROOT / "depthray", ROOT / "cluster"}
    assert all((ROOT / source).exists() and source.parts[0] not in ("data", "runs", ".venv") for source in local)
    assert any("--constraint" in command and "constraints.txt" in command for command in tree["setup_commands"])


def misspelt_top(tree: dict[str, Any]) -> None:
    tree["idle_timeout_minute"] = 3


def misspelt_docker(tree: dict[str, Any]) -> None:
    tree["docker"]["run_option"] = []


def misspelt_type(tree: dict[str, Any]) -> None:
    tree["available_node_types"]["spot"]["max_worker"] = 1


def misspelt_node(tree: dict[str, Any]) -> None:
    config = tree["available_node_types"]["spot"]["node_config"]
    config["Scheduling"] = config.pop("scheduling", config.pop("InstanceMarketOptions", None))


def no_such_head(tree: dict[str, Any]) -> None:
    tree["head_node_type"] = "heads"


@pytest.mark.parametrize("name", ["aws", "gcp"])
@pytest.mark.parametrize("spoil", [misspelt_top, misspelt_docker, misspelt_type, misspelt_node, no_such_head])
def test_a_misspelt_key_of_ray_up_is_refused(name: str, spoil: Callable[[dict[str, Any]], None]) -> None:
    (tree,) = read(FILES / f"{name}.yaml")
    spoil(tree)
    with pytest.raises(Exception, match=r"unexpected|not specified|must be one of|validat|dict_keys|\{"):
        validated(tree)


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_workers_have_gpus_and_the_head_does_not(name: str) -> None:
    (tree,) = read(FILES / f"{name}.yaml")
    kinds = tree["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert all(
        kinds[name]["resources"]["GPU"] == 1 and kinds[name]["min_workers"] == 0 for name in kinds.keys() - {"head"}
    )
    assert kinds["spot"]["priority"] > kinds["on-demand"].get("priority", 0)
    assert "spot" in str(kinds["spot"]["node_config"]) or "preemptible" in str(kinds["spot"]["node_config"])


@pytest.mark.parametrize("path", UP, ids=lambda path: path.stem)
def test_ray_up_starts_a_locked_cluster(path: Path) -> None:
    (tree,) = read(path)
    starts = [
        command
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in tree[key]
        if "ray start" in command
    ]
    assert len(starts) == 2 and all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0] and "~/.ray/auth_token" in tree["file_mounts"]


# KubeRay


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.stem)
def test_every_field_is_one_of_the_operator(path: Path) -> None:
    documents = read(path)
    assert [fault for each in documents for fault in faults(each, each["kind"], each["kind"])] == []


@pytest.mark.parametrize(
    ("where", "key", "value", "message"),
    [
        ("spec", "enableInTreeAutoscalling", True, "enableInTreeAutoscalling: unknown"),
        ("spec", "autoscalerOption", {}, "autoscalerOption: unknown"),
        ("spec.authOptions", "mode", "tokens", "'tokens' is none of token|disabled"),
        ("spec.headGroupSpec", "rayStartParams", {"num-cpus": 0}, "names and texts"),
        ("spec.workerGroupSpecs.0", "maxReplica", 3, "maxReplica: unknown"),
        ("spec.workerGroupSpecs.0.template.spec", "toleration", [], "toleration: unknown"),
        ("spec.workerGroupSpecs.0.template.spec.containers.0.livenessProbe", "httpget", {}, "httpget: unknown"),
        ("spec.workerGroupSpecs.0.template.spec.containers.0.resources", "limit", {}, "limit: unknown"),
        ("spec.headGroupSpec.template.spec.volumes.0.emptyDir", "medium", "memory", "'memory' is none of"),
    ],
)
def test_a_misspelt_field_of_a_manifest_is_reported(where: str, key: str, value: Any, message: str) -> None:
    tree = copy.deepcopy(read(FILES / "kuberay" / "raycluster.yaml")[0])
    place = tree
    for step in where.split("."):
        place = place[int(step) if step.isdigit() else step]
    place[key] = value
    assert any(message in fault for fault in faults(tree, "RayCluster", "RayCluster"))


def test_a_missing_field_and_a_wrong_kind_are_reported() -> None:
    assert "RayCluster.spec: missing" in faults({"apiVersion": "ray.io/v1alpha1"}, "RayCluster", "RayCluster")
    assert "x: integer wanted, not True" in faults(True, "integer", "x")
    assert "x: boolean wanted, not 'yes'" in faults("yes", "boolean", "x")


@pytest.mark.parametrize(("kind", "spec"), clusters(), ids=lambda value: value if isinstance(value, str) else "")
def test_clusters_on_kubernetes_are_locked_probed_and_bounded(kind: str, spec: dict[str, Any]) -> None:
    assert spec["authOptions"] == {"mode": "token"} and spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert spec["enableInTreeAutoscaling"] and spec["autoscalerOptions"]["version"] == "v2"
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for pod in pods(spec):
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 1000
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["livenessProbe"] and container["readinessProbe"]
        assert container["resources"]["limits"].keys() >= {"cpu", "memory"}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()


@pytest.mark.parametrize(("kind", "spec"), clusters(), ids=lambda value: value if isinstance(value, str) else "")
def test_there_are_spot_and_other_gpu_workers(kind: str, spec: dict[str, Any]) -> None:
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert groups.keys() == {"spot", "on-demand"} and groups["spot"]["priority"] > 0
    for group in groups.values():
        pod = group["template"]["spec"]
        assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert "nvidia.com/gpu" in [each["key"] for each in pod["tolerations"]]
    spot = groups["spot"]["template"]["spec"]
    assert spot["nodeSelector"].keys() <= {each["key"] for each in spot["tolerations"]}


def test_a_worker_that_serves_is_ready_when_its_proxy_is() -> None:
    spec = dict(clusters())["RayService"]
    paths = [pod["containers"][0]["readinessProbe"]["httpGet"]["path"] for pod in pods(spec)]
    assert paths == ["/api/gcs_healthz", "/-/healthz", "/-/healthz"]


def test_accounts_and_storage_that_pods_request_are_created() -> None:
    made = {(each["kind"], each["metadata"]["name"]) for each in read(FILES / "kuberay" / "account.yaml")}
    wanted = {("ServiceAccount", pod["serviceAccountName"]) for _, spec in clusters() for pod in pods(spec)}
    claims = [value for path in KUBERAY for where, value in walk(read(path)) if where.endswith(".claimName")]
    assert wanted | {("PersistentVolumeClaim", claim) for claim in claims} == made


def test_the_job_runs_commands_that_exist() -> None:
    (tree,) = read(FILES / "kuberay" / "rayjob.yaml")
    shell, flag, script = shlex.split(tree["spec"]["entrypoint"])
    assert (shell, flag) == ("sh", "-c") and not set('$"`\\') & set(script)
    subprocess.run(["sh", "-n", "-c", script], check=True)
    commands = re.findall(r"exec python -m depthray train ([^;]*);", script)
    parsed = [build_parser().parse_intermixed_args(command.split()) for command in commands]
    assert [args.resume for args in parsed] == [True, False] and parsed[0].out == parsed[1].out
    assert parsed[1].recipe in recipes.names() and all(args.address == "auto" for args in parsed)
    assert yaml.safe_load(tree["spec"]["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_SIGNAL"] == "SIGINT"


# Serve


def unknown_keys(tree: Any) -> list[str]:
    """Keys of a Serve file that Ray would not read; its own schema lets some of them pass in silence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.serve import schema

        schema.ServeDeploySchema.model_validate(tree)
    lists = {"applications": schema.ServeApplicationSchema, "deployments": schema.DeploymentSchema}
    parts = {"http_options": schema.HTTPOptionsSchema, "logging_config": schema.LoggingConfig}

    def unknown(part: dict[str, Any], model: Any, where: str) -> Iterator[str]:
        yield from (f"{where}.{key}" for key in part.keys() - model.model_fields.keys())
        for key in part.keys() & parts.keys():
            yield from unknown(part[key], parts[key], f"{where}.{key}")
        for key in part.keys() & lists.keys():
            for each in part[key]:
                yield from unknown(each, lists[key], f"{where}.{key}")

    return list(unknown(tree, schema.ServeDeploySchema, ""))


def test_kubernetes_serves_the_production_file() -> None:
    (tree,) = read(FILES / "kuberay" / "rayservice.yaml")
    config = yaml.safe_load(tree["spec"]["serveConfigV2"])
    assert config == yaml.safe_load((ROOT / "serve" / "config.yaml").read_text("utf-8"))
    mounts = pods(tree["spec"]["rayClusterConfig"])[1]["containers"][0]["volumeMounts"]
    (application,) = config["applications"]
    assert application["args"]["store"].startswith(tuple(f"{mount['mountPath']}/" for mount in mounts))


def test_the_production_file_holds_no_key_that_ray_ignores() -> None:
    tree = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text("utf-8"))
    assert unknown_keys(tree) == []


@pytest.mark.parametrize(
    "where", ["", "http_options", "logging_config", "applications.0", "applications.0.deployments.0"]
)
def test_a_misspelt_key_of_serve_is_refused(where: str) -> None:
    tree = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text("utf-8"))
    place = tree
    for step in where.split(".") if where else []:
        place = place[int(step) if step.isdigit() else step]
    place["max_ongoing_request"] = 1
    try:
        found = unknown_keys(tree)
    except ValueError as refused:
        found = [str(refused)]
    assert any("max_ongoing_request" in each for each in found)


# All


def texts() -> list[Path]:
    return [*UP, *KUBERAY, ROOT / "Containerfile", ROOT / ".dockerignore"]


@pytest.mark.parametrize("path", texts(), ids=lambda path: path.name)
def test_nothing_is_privileged_or_open(path: Path) -> None:
    text = "\n".join(line.split(" #")[0] for line in path.read_text("ascii").splitlines() if not line.startswith("#"))
    for word in (
        "privileged",
        "hostNetwork",
        "hostPID",
        "hostIPC",
        "hostPath",
        "SYS_ADMIN",
        "LoadBalancer",
        "NodePort",
    ):
        assert word not in text
    assert not re.search(r"dashboard-host\W+0\.0\.0\.0", text)
    assert not re.search(r"RAY_AUTH_MODE\W+(?!token)\w|AKIA|_authToken|password|index-url|://[^/\s]*@", text)


def test_images_hold_the_tested_versions() -> None:
    images = [value for path in [*UP, *KUBERAY] for where, value in walk(read(path)) if where.endswith(".image")]
    assert len(images) == 2 + 3 * 3 + 1
    python = "py" + PYTHON.replace(".", "")
    ours = f"depthray:{depthray.__version__}"
    rays = f"rayproject/ray:{PINS['ray']}-{python}-gpu"
    assert set(images) == {rays, f"{ours}-ray{PINS['ray']}-{python}"}
    assert {spec["rayVersion"] for _, spec in clusters()} == {PINS["ray"]}


def test_the_container_is_pinned_and_not_root() -> None:
    text = (ROOT / "Containerfile").read_text("ascii")
    base = re.search(r"^ARG PYTHON_IMAGE=python:([\d.]+)-slim-\w+$", text, re.MULTILINE)
    assert base and base[1].startswith(f"{PYTHON}.") and "FROM ${PYTHON_IMAGE}" in text
    assert "--constraint constraints.txt" in text and "RAY_AUTH_MODE=token" in text and "HEALTHCHECK" in text
    assert [line for line in text.splitlines() if line.startswith("USER")] == ["USER 1000:1000"]
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for word in line.split()]
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text("ascii").splitlines() if line.startswith("!")]
    assert sorted(copied) == sorted(allowed) and all((ROOT / name).exists() for name in copied)
    tag = re.search(r"--tag (\S+)", text)
    assert tag and tag[1] == pods(clusters()[0][1])[0]["containers"][0]["image"]
