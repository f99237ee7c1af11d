"""Tiny exports, written without `depthray.exporting`: a few convolutions by which the runtimes are tested."""

from __future__ import annotations

import json
import warnings
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from depthray.config.recipe import dump
from depthray.runtimes import export_folder
from depthray.runtimes.export_folder import ExportSpec
from depthray.training import preflight

INPUTS, OUTPUTS = ("image", "semantics"), ("depth", "mask")
FILES = {
    "onnx": ("model.onnx",),
    "tensorrt": ("model.onnx",),
    "openvino": ("model.xml", "model.bin"),
    "openvino-int8": ("model.xml", "model.bin"),
    "torch-export": ("model.pt2",),
    "aoti": ("model.pt2",),
}
OVERRIDES = ("data.inputs=[image,semantics]", "data.targets=[depth,mask]", "data.size=32,48", "model.encoder=tiny")


class TinyGraph(nn.Module):
    """(B,3,H,W) colour in 0 to 255, (B,1,H,W) class ids -> (B,1,H,W) metres, (B,1,H,W) probability"""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.down, self.up = nn.Conv2d(3, 4, 3, 4, 1), nn.Conv2d(4, 2, 3, 1, 1)
            self.classes = nn.Embedding(1023, 2)

    def forward(self, image: Tensor, semantics: Tensor) -> tuple[Tensor, Tensor]:
        coarse = F.gelu(self.down(image / 255.0))
        full = self.up(F.interpolate(coarse, size=image.shape[-2:], mode="bilinear"))
        full = full + self.classes(semantics[:, 0]).permute(0, 3, 1, 2)
        return full[:, :1].sigmoid() * 10, full[:, 1:].sigmoid()


def example(batch: int = 2, height: int = 32, width: int = 48) -> tuple[Tensor, Tensor]:
    """The inputs of a tiny graph."""
    generator = torch.Generator().manual_seed(height)
    image = torch.randint(0, 256, (batch, 3, height, width), generator=generator).float()
    return image, torch.randint(0, 8, (batch, 1, height, width), generator=generator)


def batch_of(image: Tensor, semantics: Tensor) -> Any:
    """The same as a batch of the library."""
    return {"image": image / 255.0, "semantics": semantics}


def spec_of(target: str, **changes: Any) -> ExportSpec:
    """What `model.json` says of a tiny export."""
    spec = ExportSpec(
        target=target,
        precision="fp32",
        inputs=tuple(export_folder.input_port(key) for key in INPUTS),
        outputs=tuple(export_folder.output_port(key) for key in OUTPUTS),
        stride=4,
        size=(32, 48),
        dynamic_batch=True,
        dynamic_size=True,
        largest_side=256,
        model_file=FILES[target][0],
        depth_kind="metric",
        checkpoint_sha256="0" * 64,
        epoch=3,
        step=30,
        fingerprint="f",
        origin=None,
        versions={"torch": torch.__version__},
        scores={"abs_rel": 0.1},
        tested={},
    )
    return replace(spec, **changes)


def write_export(folder: Path, target: str = "onnx", **changes: Any) -> Path:
    """An export of the tiny graph; `changes` are made to what it says of itself."""
    folder.mkdir(parents=True)
    for name, data in model_files(target).items():
        (folder / name).write_bytes(data)
    recipe = preflight.load("demo", OVERRIDES, training=False)
    (folder / "recipe.yaml").write_text(dump(recipe), encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps({"abs_rel": 0.1}), encoding="utf-8")
    export_folder.write(folder, spec_of(target, **changes))
    return folder


def change(folder: Path, name: str, data: bytes) -> None:
    """Replace a file, and make `model.json` agree with it, as someone who means harm would."""
    (folder / name).write_bytes(data)
    export_folder.write(folder, export_folder.parse((folder / "model.json").read_bytes(), where=folder)[0])


@cache
def program() -> Any:
    """The tiny graph as torch.export traces it, of any batch and size."""
    batch, height, width = (torch.export.Dim(name, min=1, max=64) for name in ("batch", "height", "width"))
    dims = {0: batch, 2: 4 * height, 3: 4 * width}
    with torch.no_grad():
        return torch.export.export(TinyGraph().eval(), example(), dynamic_shapes=(dims, dims))


@cache
def model_files(target: str) -> dict[str, bytes]:
    """The model files of a tiny export by name."""
    with TemporaryDirectory() as temporary, warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")  # of other packages, about themselves
        folder = Path(temporary)
        WRITERS[target](folder)
        return {name: (folder / name).read_bytes() for name in FILES[target]}


def _write_onnx(folder: Path) -> None:
    """Node by node, for torch.onnx takes seconds."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = {key: value.numpy() for key, value in TinyGraph().state_dict().items()}
    weights |= {
        key: np.array(value, np.float32) for key, value in {"white": 255, "far": 10, "x4": [1, 1, 4, 4]}.items()
    }
    weights |= {key: np.array(value, np.int64) for key, value in {"0": [0], "1": [1], "2": [2]}.items()}
    nodes = [
        helper.make_node("Div", ["image", "white"], ["a"]),
        helper.make_node("Conv", ["a", "down.weight", "down.bias"], ["b"], strides=[4, 4], pads=[1, 1, 1, 1]),
        helper.make_node("Gelu", ["b"], ["c"]),
        helper.make_node("Resize", ["c", "", "x4"], ["d"], mode="linear"),
        helper.make_node("Conv", ["d", "up.weight", "up.bias"], ["e"], pads=[1, 1, 1, 1]),
        helper.make_node("Squeeze", ["semantics", "1"], ["f"]),
        helper.make_node("Gather", ["classes.weight", "f"], ["g"]),
        helper.make_node("Transpose", ["g"], ["h"], perm=[0, 3, 1, 2]),
        helper.make_node("Add", ["e", "h"], ["i"]),
        helper.make_node("Sigmoid", ["i"], ["j"]),
        helper.make_node("Slice", ["j", "0", "1", "1"], ["k"]),
        helper.make_node("Mul", ["k", "far"], ["depth"]),
        helper.make_node("Slice", ["j", "1", "2", "1"], ["mask"]),
    ]
    size = ("B", 1, "H", "W")
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ("B", 3, "H", "W")),
        helper.make_tensor_value_info("semantics", TensorProto.INT64, size),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name in OUTPUTS]
    initializers = [numpy_helper.from_array(value, key) for key, value in weights.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), folder / "model.onnx")


def _write_same_onnx(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(model_files("onnx")["model.onnx"])


def _write_openvino(folder: Path) -> None:
    import openvino

    _write_same_onnx(folder)
    openvino.save_model(openvino.convert_model(folder / "model.onnx"), folder / "model.xml", compress_to_fp16=False)


def _write_program(folder: Path) -> None:
    torch.export.save(program(), folder / "model.pt2")


def _write_native(folder: Path) -> None:
    (folder / "model.pt2").write_bytes(b"code")  # compiling takes too long for a test


WRITERS = {
    "onnx": _write_onnx,
    "tensorrt": _write_same_onnx,
    "openvino": _write_openvino,
    "openvino-int8": _write_openvino,
    "torch-export": _write_program,
    "aoti": _write_native,
}
