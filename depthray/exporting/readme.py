"""README.md of an export: what it takes and gives, and how to run it by itself. How good it is says the model card."""

from __future__ import annotations

from depthray.config.sections import Recipe
from depthray.evaluation.markdown_table import markdown_table
from depthray.exporting import parity_report
from depthray.exporting.gate import Parity
from depthray.runs import layout
from depthray.runtimes import export_folder
from depthray.runtimes.export_folder import ExportSpec, Port

NAME = "README.md"
RUN = {  # target -> what is imported, and the map number {number} (h,w) of the inputs
    "onnx": ("onnxruntime", "onnxruntime.InferenceSession('model.onnx').run(None, {feed})[{number}][0, 0]"),
    "openvino": ("openvino", "openvino.compile_model('model.xml', 'CPU')([{arrays}])[{number}][0, 0]"),
    "torch-export": ("torch", "torch.export.load('model.pt2').module()({tensors})[{number}][0, 0].numpy()"),
    "aoti": ("torch", "torch._inductor.aoti_load_package('model.pt2')({tensors})[{number}][0, 0].detach().numpy()"),
}
CAMERA_LINES = (  # the camera in pixels of the input: pixel centres are at whole numbers
    "x, y = image.shape[3] / photo.shape[1], image.shape[2] / photo.shape[0]",
    "rows = [fx * x, 0, (cx + 0.5) * x - 0.5], [0, fy * y, (cy + 0.5) * y - 0.5], [0, 0, 1]",
    "intrinsics = numpy.array([rows], 'float32')",
)
RUN |= {"openvino-int8": RUN["openvino"], "tensorrt": RUN["onnx"]}


def markdown(spec: ExportSpec, recipe: Recipe, parity: Parity) -> str:
    """The file as Markdown."""
    parts = [
        f"# {recipe.model.name} for {spec.target}",
        f"{recipe.about or 'A depth network'}. Exported by depthray {spec.versions['depthray']} from the checkpoint of "
        f"epoch {spec.epoch}, step {spec.step}. Scores, data, limits and licences: {layout.MODEL_CARD}.",
        "## Inputs and outputs",
        markdown_table(
            ["", "name", "shape", "type", "unit"], [*_ports("in", spec.inputs), *_ports("out", spec.outputs)]
        ),
        *_confidence(spec, recipe),
        *_valid_mask(spec, recipe),
        *_canonical(spec),
        _size_rule(spec, recipe),
        "## Without depthray",
        _code(spec, recipe),
        "With it, this folder can be given wherever a checkpoint can: `depthray predict FOLDER photo.jpg`.",
        "## Parity with the checkpoint",
        parity_report.verdict(parity),
        *parity.notes,
        f"On {parity.rows[0].frames} frames of {parity.scenes} scenes: {parity.about}. Tables: {parity_report.TEXT}.",
        "## Versions",
        markdown_table(["", ""], sorted(spec.versions.items())),
    ]
    return "\n\n".join(parts) + "\n"


def _ports(kind: str, ports: tuple[Port, ...]) -> list[list[str]]:
    size = ("H", "W") if kind == "in" else ("h", "w")
    return [
        [kind, port.name, f"({', '.join(map(str, port.shape('B', size)))})", port.dtype, port.unit] for port in ports
    ]


def _confidence(spec: ExportSpec, recipe: Recipe) -> list[str]:
    """What sigma is, where there is one, and how confidence follows from it."""
    if not any(port.name == "sigma" for port in spec.outputs):
        return []
    formula = {
        "laplace": "1 - exp(-sqrt(2) ln(1.1) depth / sigma)",
        "gaussian": "erf(ln(1.1) depth / (sqrt(2) sigma))",
    }[export_folder.spread_family(recipe.model.uncertainty)]
    of = f", by the spread of predictions: {spec.spread}" if spec.spread else ""
    return [
        f"`sigma` is the standard deviation of depth{of}. The probability that depth is right within 10 %, which "
        f"depthray calls its confidence, is {formula}."
    ]


def _valid_mask(spec: ExportSpec, recipe: Recipe) -> list[str]:
    """What `valid` is, where there is one."""
    if not any(port.name == "valid" for port in spec.outputs):
        return []
    data = recipe.data
    return [
        "`valid` is the probability that there is a depth to measure, from "
        f"{data.min_depth:g} to {data.max_depth:g} m. Below one half there is none, as in the sky: depthray writes 0."
    ]


def _canonical(spec: ExportSpec) -> list[str]:
    """What is done outside of the graph for the camera of a frame, where it knows a canonical one alone."""
    if spec.canonical is None:
        return []
    focal = f"F = {spec.canonical.focal:g} pixels"
    if spec.canonical.transform == "image":
        return [
            f"The graph knows a camera of the focal length {focal}. A frame is resized to its columns times F / fx and "
            "its rows times F / fy, where fx and fy are its own in pixels; depth is metres then."
        ]
    return [
        f"The graph knows a camera of the focal length {focal}. Its depth and sigma times f / F are metres, where f = "
        "sqrt(fx fy) is that of the frame in pixels of the inputs: the fx of a photograph times the columns of the "
        "input over those of the photograph, fy likewise by rows. Sparse depth is given times F / f."
    ]


def _size_rule(spec: ExportSpec, recipe: Recipe) -> str:
    height, width = spec.size
    batch = "B is any number of frames." if spec.dynamic_batch else "B is 1."
    fit = {
        "exact": f"A frame is resized to {height} rows and {width} columns: pixel areas are averaged where it shrinks, "
        "else bilinear",
        "aspect": f"A frame is resized, its aspect kept, to a shorter side of {min(height, width)} pixels, bicubic",
        "native": "A frame keeps its size",
    }[recipe.data.fit]
    if recipe.data.resizes_to_focal:
        fit = "A frame is resized to the focal length F: pixel areas are averaged where it shrinks, else bilinear"
    if not spec.dynamic_size:
        return f"{batch} H and W are {height} and {width}, no others. {fit}. Outputs are resized back bilinearly."
    steps = f"multiples of {spec.stride}, " if spec.stride > 1 else ""
    padding = " and padded at the right and bottom by repeating the last pixel" if spec.stride > 1 else ""
    return (
        f"{batch} H and W are {steps}{spec.smallest_side} to {spec.largest_side}; they were compared "
        f"at {_tested(spec)}. {fit}{padding}; "
        "the output, which may be smaller than the input, is cut back and resized to the frame bilinearly. "
        "All other arithmetic is in the model."
    )


def _tested(spec: ExportSpec) -> str:
    sizes = dict.fromkeys(f"{row['size'][1]}x{row['size'][0]}" for row in spec.tested["rows"])
    batches = dict.fromkeys(str(row["batch"]) for row in spec.tested["rows"])
    return f"{', '.join(sizes)} in batches of {' and '.join(batches)}"


def _code(spec: ExportSpec, recipe: Recipe) -> str:
    """Lines that make of photo.jpg the PNG that `depthray predict` makes."""
    names = [port.name for port in spec.inputs]
    sees_camera = "intrinsics" in names
    camera = "fx, fy, cx, cy" if sees_camera else "fx, fy"
    package, call = RUN[spec.target]
    number = [port.name for port in spec.outputs].index("depth") if _has_depth(spec) else 0
    call = call.replace("{feed}", "{" + ", ".join(f"'{name}': {name}" for name in names) + "}")
    call = call.replace("{arrays}", ", ".join(names)).replace("{number}", str(number))
    call = call.replace("{tensors}", ", ".join(f"torch.from_numpy({name})" for name in names))
    # Before bicubic resizing, so that nothing is rounded; else after it, as when the network is trained.
    bicubic = ".astype('float32')" if recipe.data.fit == "aspect" else ""
    method, cast = ("INTER_CUBIC", ".copy()") if bicubic else ("INTER_AREA", ".astype('float32')")
    lines = [
        f"import cv2, {'numpy, ' if sees_camera else ''}{package}",
        f"photo = cv2.imread('photo.jpg')[..., ::-1]{bicubic}",
        *([f"{camera} = ...  # of the photograph's camera, in its pixels"] if spec.canonical or sees_camera else []),
        f"image = cv2.resize(photo, {_new_size(spec)}, interpolation=cv2.{method}).transpose(2, 0, 1)[None]{cast}",
        *(CAMERA_LINES if sees_camera else []),
        f"{'depth' if _has_depth(spec) else 'mask'} = {call}{_to_metres(spec)}",
        _saved(spec),
    ]
    others = [name for name in names if name not in ("image", "intrinsics")]
    further = f"\n\n{', '.join(others)}: arrays as in the table, of the size of `image`." if others else ""
    return "```python\n" + "\n".join(lines) + "\n```" + further


def _new_size(spec: ExportSpec) -> str:
    """Columns and rows of the input, as code."""
    if spec.canonical is None or spec.canonical.transform == "label":
        return f"({spec.size[1]}, {spec.size[0]})"
    sides = (f"round(photo.shape[{axis}] * {spec.canonical.focal:g} / {name})" for axis, name in ((1, "fx"), (0, "fy")))
    return f"({', '.join(sides)})"


def _to_metres(spec: ExportSpec) -> str:
    """What makes depth of the graph metres, as code."""
    if spec.canonical is None or spec.canonical.transform == "image" or not _has_depth(spec):
        return ""
    height, width = spec.size
    return f" * (fx * {width} / photo.shape[1] * fy * {height} / photo.shape[0]) ** 0.5 / {spec.canonical.focal:g}"


def _saved(spec: ExportSpec) -> str:
    if not _has_depth(spec):
        return "cv2.imwrite('mask.png', 255 * (cv2.resize(mask, photo.shape[1::-1]) > 0.5).astype('uint8'))"
    resized = "cv2.resize(depth, photo.shape[1::-1])"
    if spec.depth_kind == "metric":
        return f"cv2.imwrite('depth.png', (1000 * {resized}).round().astype('uint16'))  # millimetres"
    return f"depth = {resized}  # {spec.outputs[0].unit}"


def _has_depth(spec: ExportSpec) -> bool:
    return any(port.name == "depth" for port in spec.outputs)
