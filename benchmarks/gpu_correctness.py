"""Checks of gpu.py whether training, saving, scoring and predicting are right on a device; each returns its figures."""

from __future__ import annotations

import asyncio
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from gpu_bench import Bench, OneBatch, batch_of, loss_of, relative, train
from torch import Tensor, nn

from depthray import distributed
from depthray.batch import Batch
from depthray.checkpoints import load, save
from depthray.errors import DivergedError, ResourceError
from depthray.evaluation import protocols
from depthray.evaluation.evaluate import evaluate
from depthray.predict import Predictor
from depthray.runtimes import device_errors
from depthray.runtimes.precision import Precision, fastest
from depthray.training.state import State, restore
from serve.replica.batching import DynamicBatcher

CPU = torch.device("cpu")
Facts = dict[str, Any]


def device(bench: Bench) -> Facts:
    """Versions, and that the fastest format is the one expected of the GPU."""
    facts: Facts = {"torch": torch.__version__, "format": str(fastest(bench.device)), "ok": True}
    if bench.is_gpu:
        major, minor = torch.cuda.get_device_capability(bench.device)
        facts |= {"gpu": torch.cuda.get_device_name(bench.device), "capability": f"{major}.{minor}"}
        facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}  # type: ignore[no-untyped-call]
        facts["ok"] = facts["format"] == str(torch.bfloat16) if major >= 8 else True
    return facts


def arithmetic(bench: Bench) -> Facts:
    """A convolution in float32 is float32, and in tf32 it is not where the GPU has that."""
    generator = torch.Generator().manual_seed(0)
    image, weight = torch.randn(2, 64, 32, 32, generator=generator), torch.randn(64, 64, 3, 3, generator=generator)
    exact = nn.functional.conv2d(image.double(), weight.double())
    errors: dict[str, float] = {}
    for name in ("fp32", "tf32"):
        with Precision.of(name, bench.device).active():
            found = nn.functional.conv2d(image.to(bench.device), weight.to(bench.device))
        errors[f"error_{name}"] = relative(exact, found)
    return errors | {"ok": errors["error_fp32"] < 1e-5 and errors["error_tf32"] < 1e-2}


def trains(bench: Bench, name: str) -> Facts:
    """The first loss is the CPU's, and steps on one batch lower it; nothing stays on the CPU and no step is skipped."""
    plain = bench.recipe(name, "train.precision=fp32")
    batch = batch_of(plain, bench.images)
    expected, found = (_first_loss(bench.begin(plain, where), batch) for where in (CPU, bench.device))
    state = bench.begin(bench.recipe(name))
    narrow = _first_loss(state, batch)
    reports = train(state, OneBatch(batch), bench.steps)
    measured = [event.loss for _, event in reports if math.isfinite(event.loss)]
    tensors = [*state.model.parameters(), *state.model.buffers()]
    tensors += [value for each in state.optimiser.state.values() for key, value in each.items() if key != "step"]
    elsewhere = sum(tensor.device.type != bench.device.type for tensor in tensors if isinstance(tensor, Tensor))
    facts: Facts = {
        "format": str(state.precision.dtype),
        "fp32_against_cpu": relative(expected, found),
        "narrow_against_fp32": relative(found, narrow),
        "loss": [round(value, 5) for value in (measured[0], measured[-1])],
        "skipped": state.position.bad_steps + state.position.overflow_steps,
        "tensors_elsewhere": elsewhere,
    }
    close = facts["fp32_against_cpu"] < 1e-4 and facts["narrow_against_fp32"] < 0.03
    falls = bench.small or measured[-1] < measured[0]
    return facts | {"ok": close and falls and not facts["skipped"] and not elsewhere}


@torch.no_grad()
def _first_loss(state: State, batch: Batch) -> Tensor:
    """Without dropout, whose random numbers a GPU draws in another way."""
    state.model.eval()
    return loss_of(state, batch)


def syncs(bench: Bench, name: str) -> Facts:
    """Calls that wait for the GPU: none between the batch and the optimiser, and how many in a whole step."""
    if not bench.is_gpu:
        return {"ok": None, "why": "a CPU does not wait for itself"}
    state = bench.begin(bench.recipe(name))
    batch = batch_of(state.recipe, bench.images, pinned=True)
    train(state, OneBatch(batch), 3)  # memory, kernels and caches of constants
    state.model.train()
    inside = _waits(lambda: state.scaler.scale(loss_of(state, batch)).backward())  # type: ignore[no-untyped-call]
    state.optimiser.zero_grad(set_to_none=True)
    steps = 5
    whole = _waits(lambda: train(state, OneBatch(batch), steps))
    facts: Facts = {"forward_backward": len(inside), "whole_step": len(whole) / steps}
    return facts | {"where": sorted({*inside, *whole})[:12], "ok": not inside and len(whole) <= steps}


def _waits(act: Any) -> list[str]:
    """The places in depthray at which PyTorch warns that it waits for the GPU."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            act()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [each for each in caught if "synchronizing CUDA operation" in str(each.message)]
    return [f"{each.filename.rpartition('depthray/')[2]}:{each.lineno}" for each in waits]


def half(bench: Bench) -> Facts:
    """fp16 learns as float32 does, ends a run whose gradients are NaN, and resumes a run begun in bf16."""
    name = bench.recipes[0]
    recipe = bench.recipe(name, "train.max_bad_steps=2")
    batch = batch_of(recipe, bench.images)
    ends = {}
    for dtype in (torch.float32, torch.float16):
        state = _in_format(bench.begin(recipe), dtype)
        ends[dtype] = [event.loss for _, event in train(state, OneBatch(batch), 2 * bench.steps)][-1]
    apart = abs(ends[torch.float16] - ends[torch.float32]) / abs(ends[torch.float32])
    broken = _in_format(bench.begin(recipe), torch.float16)
    before = next(broken.model.parameters()).detach().clone()
    for parameter in broken.model.parameters():
        parameter.register_hook(lambda gradient: gradient * math.nan)  # type: ignore[no-untyped-call]
    try:
        train(broken, OneBatch(batch), 100)
        ended = False
    except DivergedError:
        ended = torch.equal(before, next(broken.model.parameters()))
    other = _in_format(bench.begin(recipe), torch.bfloat16)
    contents = load.load(save.write(bench.folder / "bf16", other.contents({}, fingerprint="")), state=True)
    resumed = restore(contents, recipe, bench.device).position.step == 0
    # On a CPU the noise of fp16 is not that of a GPU, and steps of a test are few.
    facts: Facts = {"apart_from_fp32": apart, "nan_ends_the_run": ended, "bf16_checkpoint_resumes": resumed}
    close = bench.small or apart < 0.05
    return facts | {"overflows": broken.position.overflow_steps, "ok": close and ended and resumed}


def _in_format(state: State, dtype: torch.dtype) -> State:
    """The state in another format; a recipe may not ask a CPU for fp16, whose arithmetic a test wants all the same."""
    state.precision = replace(state.precision, dtype=dtype)
    state.scaler = torch.amp.GradScaler(state.device.type, enabled=state.precision.scaled)
    return state


def resumes(bench: Bench, name: str) -> Facts:
    """Steps, a checkpoint and steps again are as many steps without a stop; exactly, with train.deterministic."""
    facts: Facts = {}
    for key, chosen in (("deterministic", "true"), ("usual", "false")):
        recipe = bench.recipe(name, f"train.deterministic={chosen}")
        frames = OneBatch(batch_of(recipe, bench.images))
        whole = bench.begin(recipe)
        try:
            train(whole, frames, 2 * bench.steps)
        except RuntimeError as error:
            if "deterministic implementation" not in str(error):
                raise
            facts["refused"] = str(error).split()[0]
            continue
        first = bench.begin(recipe)
        train(first, frames, bench.steps)
        path = save.write(bench.folder / f"resume-{name}-{key}", first.contents({}, fingerprint=""))
        again = restore(load.load(path, state=True), recipe, bench.device)
        train(again, frames, bench.steps)
        pairs = zip(whole.model.parameters(), again.model.parameters(), strict=True)
        facts[key] = max(relative(one, other) for one, other in pairs)
    Precision.of("fp32", bench.device).apply()
    return facts | {"ok": facts["deterministic"] == 0 if "deterministic" in facts else facts["usual"] < 1e-3}


def saves(bench: Bench) -> Facts:
    """A checkpoint holds the weights of its step though steps go on at once; milliseconds that training stood still."""
    state = bench.begin(bench.recipe(bench.recipes[0]))
    frames = OneBatch(batch_of(state.recipe, bench.images))
    writer = save.CheckpointWriter(bench.folder / "saves", keep_best=1, monitor="abs_rel")
    train(state, frames, 2)
    writer.reserve(state.contents({}, fingerprint=""))
    writer.wait()
    expected = {key: value.detach().cpu().clone() for key, value in state.predictor.state_dict().items()}
    bench.synchronize()
    started = time.perf_counter()
    writer.save(state.contents({}, fingerprint=""))
    stood = time.perf_counter() - started
    train(state, frames, 3)
    path = writer.wait()
    assert path is not None, "a save was asked for"
    weights = load.load(path).weights
    same = all(torch.equal(weights[key], value) for key, value in expected.items())
    return {"milliseconds": 1000 * stood, "same": same, "ok": same}


def scores(bench: Bench) -> Facts:
    """Scores are the same bit for bit, in two runs and two parts, close to the CPU's, and close in bf16."""
    recipe = bench.recipe(next(name for name in bench.recipes if name != "masknet"), "train.precision=fp32")
    network = bench.begin(recipe).model
    batches = [([2 * n, 2 * n + 1], batch_of(recipe, 2, seed=n)) for n in range(4)]

    def scored(chosen: Sequence[Any], where: torch.device, dtype: torch.dtype = torch.float32) -> list[Any]:
        usual, precision = protocols.of(recipe), Precision(where, dtype)
        return [*evaluate(network.to(where), chosen, protocol=usual, device=where, precision=precision).rows]

    whole, again = scored(batches, bench.device), scored(batches, bench.device)
    parts = sorted(scored(batches[::2], bench.device) + scored(batches[1::2], bench.device), key=lambda row: row.index)
    same = [_values(rows) for rows in (again, parts)] == [_values(whole)] * 2
    narrow = scored(batches, bench.device, torch.bfloat16)
    on_cpu = scored(batches, CPU)
    network.to(bench.device)
    apart, rounded = (_apart(whole, rows) for rows in (on_cpu, narrow))
    return {"same": same, "against_cpu": apart, "bf16": rounded, "ok": same and apart < 1e-4 and rounded < 0.05}


def _values(rows: Sequence[Any]) -> list[float]:
    return [row.score("abs_rel") for row in rows]


def _apart(one: Sequence[Any], other: Sequence[Any]) -> float:
    return max(abs(a - b) / max(abs(a), 1e-9) for a, b in zip(_values(one), _values(other), strict=True))


def predicts(bench: Bench, name: str) -> Facts:
    """Millimetres by which depth in each format is apart from the CPU's in float32; fp32 stays below one."""
    recipe = bench.recipe(name)
    if "depth" not in recipe.data.targets:
        return {"ok": None, "why": "predicts no depth"}
    network = bench.begin(recipe, CPU).model.eval()
    batch: dict[str, Any] = {**batch_of(recipe, 1)}
    sample: Any = {key: batch[key][0].numpy() for key in recipe.data.inputs}
    sample = {key: value.transpose(1, 2, 0) if len(value) == 3 else value[0] for key, value in sample.items()}
    expected = Predictor(network, recipe, device=CPU).run([sample])[0]["depth"]
    facts: Facts = {}
    for chosen in ("fp32", "tf32", "bf16"):
        precision = Precision.of(chosen, bench.device, key="precision")
        found = Predictor(network, recipe, device=bench.device, precision=precision).run([sample])[0]["depth"]
        facts[f"{chosen}_mm"] = 1000 * float(abs(found - expected).max())
    return facts | {"ok": facts["fp32_mm"] < 1}


def memory(bench: Bench) -> Facts:
    """Too much is one error with advice, and a batch that is too large is answered in halves."""
    try:
        with device_errors.explained("lower it", bench.device):
            torch.empty(2**50, device=bench.device)
        explained = ""
    except ResourceError as error:
        explained = str(error)
    unit = torch.cuda.mem_get_info(bench.device)[0] // 4 if bench.is_gpu else 2**48
    sizes: list[int] = []

    def run(_: Any, items: Sequence[int]) -> list[int]:
        if bench.is_gpu:
            torch.empty(len(items) * unit, dtype=torch.uint8, device=bench.device)
        elif len(items) > 2:
            raise torch.OutOfMemoryError("out of memory")
        sizes.append(len(items))
        return list(items)

    async def answer() -> list[int]:
        batcher: DynamicBatcher[int, int] = DynamicBatcher(run, max_batch_size=8, memory=(torch.OutOfMemoryError,))
        deadline = time.monotonic() + 60
        results = await asyncio.gather(*(batcher("kind", number, deadline=deadline) for number in range(8)))
        batcher.close()
        return [timed.result for timed in results]

    answered = asyncio.run(answer()) == list(range(8))
    return {"message": explained, "sizes": sizes, "ok": explained.startswith("out of memory") and answered}


def group(bench: Bench) -> Facts:
    """A process group of one rank, NCCL's on a GPU: collectives, and a network whose gradients travel by DDP."""
    given = distributed.start(gpu=bench.is_gpu)
    try:
        one = torch.ones(3, device=given)
        distributed.copy_from_main(one)
        collectives = distributed.sum_(one).sum().item() == 3 and distributed.gather([1]) == [1]
        state = bench.begin(bench.recipe(bench.recipes[0]))
        network = nn.parallel.DistributedDataParallel(state.model, gradient_as_bucket_view=True)
        batch = batch_of(state.recipe, bench.images)
        state.model = network.module
        loss_of(replace(state, model=network), batch).backward()  # type: ignore[no-untyped-call]
        reduced = all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters())
    finally:
        distributed.stop()
    return {"backend": "nccl" if bench.is_gpu else "gloo", "ok": collectives and reduced}
