"""Rank, world size, device, DDP and reductions: the only file of the library that knows of other processes.

Ray Train and torchrun both set RANK, WORLD_SIZE, LOCAL_RANK before our code runs; Ray also joins the process group.
Without them, every function here does the obvious thing for one process.
"""

from __future__ import annotations

import importlib
import inspect
import io
import os
import pickle
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import IO, Any, NamedTuple, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from depthray.batch import Batch, Prediction
from depthray.errors import DepthrayError, ResourceError, count_of
from depthray.waiting import TIMEOUT_MINUTES

# DDP's argument for what `reads_changing_buffers` says: its name before torch 2.15, and since.
FORWARD_SYNC = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel.__init__).parameters
)

T = TypeVar("T")


def start(*, gpu: bool | None = None, timeout_minutes: float = TIMEOUT_MINUTES) -> torch.device:
    """Join the process group if a launcher announced one, and return this process's device.

    gpu: True or False decides; None takes a GPU where there is one. A rank that has waited for the others for
    `timeout_minutes` fails. Raises ResourceError where there is no GPU for this process alone.
    """
    use_gpu = torch.cuda.is_available() if gpu is None else gpu
    if use_gpu and not torch.cuda.is_available():
        raise ResourceError("--gpu: PyTorch finds no GPU it can use here; leave it out, or ask `depthray doctor` why")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if use_gpu and local_rank >= (count := torch.cuda.device_count()):
        # Two ranks on one GPU would end in NCCL's "Duplicate GPU detected", at the first collective.
        raise ResourceError(
            f"process {local_rank + 1} of this machine has no GPU of its own: PyTorch finds {count_of(count, 'GPU')} "
            f"here; start as many processes as GPUs (torchrun --nproc-per-node {count}), or hide the GPUs from all of "
            "them with CUDA_VISIBLE_DEVICES= to train on CPUs"
        )
    device = torch.device("cuda", local_rank) if use_gpu else torch.device("cpu")
    if use_gpu:
        torch.cuda.set_device(device)  # NCCL's collectives of objects go through it
    if "RANK" in os.environ and not dist.is_initialized():
        # Imported after the group exists (as DDP does), its default arguments would keep the group alive: `stop` could
        # not end gloo's threads, and one that still frees its last work while Python exits aborts the process.
        importlib.import_module("torch.distributed.nn.functional")
        dist.init_process_group(
            "nccl" if use_gpu else "gloo",
            timeout=timedelta(minutes=timeout_minutes),
            device_id=device if use_gpu else None,  # else NCCL would guess it, and connect at the first collective only
        )
    return device


def stop() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process's rank; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and logs."""
    return rank() == 0


def sum_(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all processes, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def gather(items: Iterable[T]) -> list[T]:
    """The items of all processes, in order of rank, on every process."""
    mine = list(items)  # every process has to take part, also one without items
    if world_size() == 1:
        return mine
    parts: list[list[T]] = [[] for _ in range(world_size())]
    dist.all_gather_object(parts, mine)
    return [item for part in parts for item in part]


def broadcast(value: T) -> T:
    """The value of rank 0, on every process."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def gather_to_main(items: Iterable[T]) -> list[T]:
    """The items of all processes, in order of rank, on rank 0; none elsewhere."""
    mine = list(items)
    if world_size() == 1:
        return mine
    parts: list[list[T]] | None = [[] for _ in range(world_size())] if is_main() else None
    dist.gather_object(mine, parts)
    return [item for part in parts or () for item in part]


def made_by_main(make: Callable[[], T]) -> T:
    """What `make` returns on rank 0, on every process: read once, and sent between them, however many there are.

    It may hold tensors anywhere, which are sent as such. A DepthrayError of rank 0 is raised by all.
    """
    if world_size() == 1:
        return make()
    tensors: list[Tensor] = []
    skeleton: tuple[bytes, list[_Layout]] | DepthrayError | None = None
    if is_main():
        try:
            pickled = _WithoutTensors.dumps(make(), tensors)
            skeleton = (pickled, [_Layout.of(tensor) for tensor in tensors])
        except DepthrayError as error:
            skeleton = error
    skeleton = broadcast(skeleton)
    if isinstance(skeleton, DepthrayError):
        raise skeleton
    assert skeleton is not None  # rank 0 made one or raised
    pickled, layouts = skeleton
    for position, layout in enumerate(layouts):
        sent = layout.send(tensors[position] if is_main() else None)
        if not is_main():
            tensors.append(sent)
    return cast(T, _WithTensors(io.BytesIO(pickled), tensors).load())


class _Layout(NamedTuple):
    """What is known of a tensor before its values come."""

    shape: torch.Size
    dtype: torch.dtype
    channels_last: bool

    @staticmethod
    def of(tensor: Tensor) -> _Layout:
        # Optimisers' state has the memory format of the weights, which has to be kept.
        last = not tensor.is_contiguous() and tensor.dim() == 4
        return _Layout(tensor.shape, tensor.dtype, last and tensor.is_contiguous(memory_format=torch.channels_last))

    def send(self, tensor: Tensor | None) -> Tensor:
        """Rank 0's tensor, on the CPU of every process; the others have None."""
        order = (0, 2, 3, 1) if self.channels_last else tuple(range(len(self.shape)))
        shape = [self.shape[axis] for axis in order]
        # NCCL sends memory of GPUs alone.
        on_gpu = dist.get_backend() == "nccl"
        device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
        if tensor is None:
            values = torch.empty(shape, dtype=self.dtype, device=device)
        else:
            values = tensor.detach().permute(order).contiguous().to(device)
        if values.numel():
            dist.broadcast(values, src=0)
        values = values.cpu()
        return values.permute(0, 3, 1, 2) if self.channels_last else values


class _WithoutTensors(pickle.Pickler):
    """Pickles a value, and puts its tensors aside, each once."""

    def __init__(self, file: IO[bytes], tensors: list[Tensor]) -> None:
        super().__init__(file)
        self._tensors, self._numbers = tensors, dict[int, int]()

    @classmethod
    def dumps(cls, value: Any, tensors: list[Tensor]) -> bytes:
        """The bytes of a value without its tensors, which are appended to the list."""
        file = io.BytesIO()
        cls(file, tensors).dump(value)
        return file.getvalue()

    def persistent_id(self, value: Any) -> int | None:
        """The number of a tensor; None of what is pickled as usual."""
        if not isinstance(value, Tensor):
            return None
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._tensors)
            self._tensors.append(value)
        return self._numbers[id(value)]


class _WithTensors(pickle.Unpickler):
    """The value that another process of the run pickled, with its tensors."""

    def __init__(self, file: IO[bytes], tensors: Sequence[Tensor]) -> None:
        super().__init__(file)
        self._tensors = tensors

    def persistent_load(self, number: Any) -> Tensor:
        """A tensor by its number."""
        return self._tensors[int(number)]


class DropOutputs(nn.Module):
    """Removes outputs that no loss term uses, so that DDP sees which parameters get no gradient and skips them."""

    def __init__(self, module: nn.Module, dropped: Collection[str]) -> None:
        super().__init__()
        self.module = module
        self.dropped = frozenset(dropped)

    def forward(self, batch: Batch) -> Prediction:
        """A batch (B,C,H,W) -> the prediction (B,1,H,W) without the dropped maps"""
        prediction = self.module(batch)
        return {key: value for key, value in prediction.items() if key not in self.dropped}  # type: ignore[return-value]


def wrap(model: nn.Module, *, sync_batchnorm: bool = False, unused_outputs: Collection[str] = ()) -> nn.Module:
    """The model with gradients averaged over processes (DDP); the model itself for one process.

    `unused_outputs` are the maps of its prediction that no loss term uses. Parameters that only these need get no
    gradient, as with one process; finding them costs time in each step, so DDP looks for them only where there are any.
    """
    if world_size() == 1:
        return model
    if sync_batchnorm:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    network = DropOutputs(model, unused_outputs) if unused_outputs else model
    find_unused = bool(unused_outputs)
    own_buffers: Any = {} if reads_changing_buffers(model) else {FORWARD_SYNC: False}
    # Views: gradients are part of the buckets that are summed, which saves a copy of all of them.
    return DistributedDataParallel(
        network, gradient_as_bucket_view=True, find_unused_parameters=find_unused, **own_buffers
    )


def reads_changing_buffers(model: nn.Module) -> bool:
    """Whether training may read what a forward pass has changed in a buffer, so that processes must agree on it.

    Statistics of batch norm are read outside of training alone; until then each process has its own, which saves two
    broadcasts in each pass. Buffers that are not saved are constants.
    """
    return any(
        name not in module._non_persistent_buffers_set
        for module in model.modules()
        if not isinstance(module, _BatchNorm)
        for name, _ in module.named_buffers(recurse=False)
    )


def hold_gradients(model: nn.Module, *, hold: bool) -> AbstractContextManager[None]:
    """While held, backward adds gradients up locally; the last backward of a step averages them over processes."""
    # Without it every micro-batch would send all gradients, train.accumulate times as much.
    wrapped = getattr(model, "_orig_mod", model)  # what torch.compile was given
    if hold and isinstance(wrapped, DistributedDataParallel):
        return wrapped.no_sync()
    return nullcontext()


def copy_from_main(tensor: Tensor) -> None:
    """Overwrite a tensor with rank 0's."""
    if world_size() > 1:
        dist.broadcast(tensor, src=0)
