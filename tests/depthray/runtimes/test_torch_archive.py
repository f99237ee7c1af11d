"""What an archive of torch.export must not hold: torch would run it."""

import io
import json
import os
import pickle
import zipfile

import pytest
import torch
from checkpoints import Hostile
from exports import change, example, model_files, program, write_export

from depthray.errors import CheckpointError
from depthray.runtimes import torch_archive
from depthray.runtimes.open import open_model
from depthray.runtimes.torch_archive import EXAMPLES, PROGRAM, WEIGHTS_CONFIG, UnsafeArchiveError

CPU = torch.device("cpu")


@pytest.fixture
def archive():
    """The files of an archive by name."""
    with zipfile.ZipFile(io.BytesIO(model_files("torch-export")["model.pt2"])) as opened:
        return {name.partition("/")[2]: opened.read(name) for name in opened.namelist()}


def packed(entries, *, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as opened:
        for name, data in entries.items():
            opened.writestr(f"archive/{name}", data)
    return buffer.getvalue()


def refused(entries, match):
    with pytest.raises(UnsafeArchiveError, match=match):
        torch_archive.rebuild(packed(entries))


def edited(entries, name, edit):
    tree = json.loads(entries[name])
    edit(tree)
    return {**entries, name: json.dumps(tree).encode()}


def test_what_is_rebuilt_computes_the_same(archive):
    data, tree = torch_archive.rebuild(packed(archive))
    loaded = torch.export.load(io.BytesIO(data)).module(check_guards=False)
    expected = program().module(check_guards=False)
    with torch.no_grad():
        for one, other in zip(loaded(*example()), expected(*example()), strict=True):
            assert torch.equal(one, other)
    assert tree["guards_code"] == []
    assert b"stack_trace" not in data  # paths of the machine that it was made on


def test_pickles_are_not_run(archive, tmp_path):
    hostile = pickle.dumps(Hostile(tmp_path / "mark"))
    # Example inputs are unpickled by torch, and are left out here.
    data, _ = torch_archive.rebuild(packed({**archive, EXAMPLES: hostile}))
    torch.export.load(io.BytesIO(data))
    assert not (tmp_path / "mark").exists()


def test_torch_itself_would_run_them(archive, tmp_path):
    """If this fails, torch has become safe, and half of what is tested here can go."""
    buffer = io.BytesIO()
    torch.save(Hostile(tmp_path / "mark"), buffer)
    weights = {**archive, "data/weights/weight_0": buffer.getvalue()}

    def edit(tree):
        next(iter(tree["config"].values()))["use_pickle"] = True

    with pytest.raises(Exception, match=r".*"):
        torch.export.load(io.BytesIO(packed(edited(weights, WEIGHTS_CONFIG, edit))))
    assert (tmp_path / "mark").exists()
    refused(edited(weights, WEIGHTS_CONFIG, edit), "is a pickle, which can run any code")


@pytest.mark.parametrize(
    "name",
    [
        "data/weights/model.pt",  # the former format, which is a pickle
        "data/constants/custom_obj_0",
        "data/constants/opaque_obj_0",
        "data/aotinductor/model/x.so",
        "models/other.json",
        "extra/note.txt",
        "../../outside",
    ],
)
def test_files_that_are_not_needed(archive, name):
    refused({**archive, name: b"x"}, "which is not needed to predict")


def test_files_that_are_missing(archive):
    refused({name: data for name, data in archive.items() if name != PROGRAM}, "it holds no 'models/model.json'")
    refused({name: data for name, data in archive.items() if name != "data/weights/weight_1"}, "is missing")


def test_other_archives(archive):
    with pytest.raises(UnsafeArchiveError, match="it is compressed"):
        torch_archive.rebuild(packed(archive, compression=zipfile.ZIP_DEFLATED))
    for data in (b"", b"PK\5\6", os.urandom(200), packed({})):
        with pytest.raises(UnsafeArchiveError):
            torch_archive.rebuild(data)
    for data in (b"", b"[]", b"{", b"[" * 10**5, b'{"graph_module": 1}'):
        refused({**archive, PROGRAM: data}, "not JSON|not what torch.export writes|not one of torch.export")
    for data in (b"{}", b'{"config": []}', b'{"config": {"a": 1}}', b'{"config": {"a": {"use_pickle": false}}}'):
        refused({**archive, WEIGHTS_CONFIG: data}, "is not described as torch.export does")


OPERATORS = [
    "torch.ops.aten.from_file.default",
    "torch.ops.aten.save.default",
    "torch.ops.evil.run.default",
    "torch.ops.load_library",
    "torch.ops.aten.conv2d.__init__",
    "torch.ops.aten._foreach_add.Scalar",
    "torch.ops.higher_order.cond",
    "torch.hub.load",
    "torch.load",
    "torch.os.system",
    "_operator.methodcaller",
    "_operator.attrgetter",
    "math.__loader__.load_module",
    "#extension:op",
    "os.system",
]


@pytest.mark.parametrize("target", OPERATORS)
def test_operators_that_are_not_of_networks(archive, target):
    def edit(tree):
        tree["graph_module"]["graph"]["nodes"][0]["target"] = target

    refused(edited(archive, PROGRAM, edit), "and only standard ones are run")


EXPRESSIONS = [
    "__import__('os').system('touch mark')",
    "Symbol('__import__(\"os\")')",
    "Add(Symbol('s0'), open('x'))",
    "s0.__class__",
    "(lambda: 0)()",
    "Pow(Pow(Integer(9), Integer(9)), Integer(999999999))",
    "Pow(Pow(Symbol('s0'), Integer(4)), Integer(4))",
    "Integer(99999999999999999999999)",
    "[s for s in ()]",
    "Add(*[1])",
    "f'{1}'",
    "",
    "(" * 3000,
]


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_expressions_that_are_no_sizes(archive, text):
    def edit(tree):
        sizes = tree["graph_module"]["graph"]["tensor_values"]["image"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = text

    refused(edited(archive, PROGRAM, edit), "is no size")


def test_names_that_would_be_python(archive):
    """The graph becomes the source code of a function, with the names of nodes in it."""
    text = json.loads(archive[PROGRAM])
    name = text["graph_module"]["graph"]["nodes"][0]["name"]
    for bad in ("x = __import__('os').system('touch mark')", "a b", "a\nb", "import", "é"):
        data = archive[PROGRAM].replace(f'"{name}"'.encode(), json.dumps(bad).encode())
        refused({**archive, PROGRAM: data}, "is no name")


@pytest.mark.parametrize("field", ["as_operator", "as_graph", "as_custom_obj", "as_string"])
def test_arguments_that_are_no_tensors_and_numbers(archive, field):
    def edit(tree):
        tree["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {field: {"class_fqn": "os.system"}}
        if field in ("as_operator", "as_string"):
            tree["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {field: "/etc/passwd"}

    refused(edited(archive, PROGRAM, edit), "not needed to predict|is given the text")


def test_arguments_of_other_types(archive):
    def edit(tree):
        call = tree["graph_module"]["module_call_graph"][0]["signature"]
        call["in_spec"] = call["in_spec"].replace("builtins.tuple", "subprocess.Popen", 1)

    refused(edited(archive, PROGRAM, edit), "an argument is a 'subprocess.Popen'")


def test_inputs_and_outputs_of_other_kinds(archive):
    def mutate(tree):
        tree["graph_module"]["signature"]["output_specs"][0] = {"buffer_mutation": {"buffer_name": "x"}}

    def call(tree):
        tree["graph_module"]["signature"]["input_specs"][0] = {"custom_obj": {}}

    refused(edited(archive, PROGRAM, mutate), "of the kind 'buffer_mutation'")
    refused(edited(archive, PROGRAM, call), "of the kind 'custom_obj'")


def test_guards_are_left_out(archive, tmp_path):
    def edit(tree):
        tree["guards_code"] = [f"open({str(tmp_path / 'mark')!r}, 'w')"]

    data, tree = torch_archive.rebuild(packed(edited(archive, PROGRAM, edit)))
    assert tree["guards_code"] == []
    torch.export.load(io.BytesIO(data)).module()
    assert not (tmp_path / "mark").exists()


def test_an_export_says_which_file_it_is(archive, tmp_path):
    folder = write_export(tmp_path / "export", "torch-export")
    change(folder, "model.pt2", packed({**archive, "extra/note": b""}))
    with pytest.raises(CheckpointError, match=r"model.pt2: it holds 'extra/note', .*; export the checkpoint again"):
        open_model(folder, device=CPU)


@pytest.mark.parametrize(("axis", "side"), [(1, 4), (0, 1), (3, 48)])
def test_inputs_of_another_shape(archive, tmp_path, axis, side):
    def edit(tree):
        tree["graph_module"]["graph"]["tensor_values"]["image"]["sizes"][axis] = {"as_int": side}

    folder = write_export(tmp_path / "export", "torch-export")
    change(folder, "model.pt2", packed(edited(archive, PROGRAM, edit)))
    with pytest.raises(CheckpointError, match=r"image is float32 \(.*\), not as model.json says"):
        open_model(folder, device=CPU)
