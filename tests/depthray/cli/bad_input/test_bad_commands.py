"""Mistakes on the command line before any network or data: an exit code, one line, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from bad_input import Fails

from depthray.__main__ import main

SEE = "; see depthray"
MISTAKES: list[tuple[int, str, str]] = [
    (2, "runs show nowhere", "nowhere holds no run (recipe.yaml is missing)"),
    (2, "runs list nowhere", "nowhere: no such folder"),
    (2, "runs list file", "file: not a folder"),
    (2, "runs stop empty", "empty holds no run"),
    (2, "runs resume empty", "empty holds no run"),
    (2, "runs clean nowhere", "nowhere holds no run"),
    (2, "runs delete x", "(choose from 'list', 'show', 'stop', 'resume', 'clean')"),
    (2, "models unett", f"unrecognized arguments: unett{SEE} models --help"),
    (2, "models --jsn", "(did you mean '--json'?)"),
    (2, "recipe", "the following arguments are required: list|show|schema"),
    (2, "recipe lst", "(did you mean 'list'?)"),
    (2, "recipe show", f"the following arguments are required: name{SEE}"),
    (2, "recipe show demo optim.learning_rate=1", "(did you mean 'optim.lr'?)"),
    (2, "recipe show original/nope", "no recipe 'original/nope'"),
    (2, "weights show dinov2", "(did you mean 'dinov2_vits14'?)"),
    (2, "weights fetch nope", "no such weights in the catalogue"),
    (2, "report nowhere", "nowhere holds no search"),
    (2, "report", "the following arguments are required: SEARCH"),
    (2, "tune --resume nowhere", "nowhere holds no search"),
    (2, "tune demo --space nope", "no space 'nope' (choose from: all, "),
    (2, "tune demo --search bayes", "(choose from 'tpe', 'random', 'grid')"),
    (2, "tune demo --objectives latency", "(did you mean 'latency_ms'?)"),
    (2, "tune demo --concurrent 0", "--concurrent 0 is too few"),
    (2, "tune demo --cpus-per-worker -1", "--cpus-per-worker -1 is too few"),
    (2, "measure nowhere a.jpg 1,2 3,4", "argument x1: invalid int value: '1,2'"),
    (3, "view nowhere", "neither a checkpoint nor a run folder"),
    (2, "view", f"the following arguments are required: checkpoint{SEE}"),
    (3, "completion nowhere", "neither a checkpoint nor a run folder"),
    (2, "export nowhere --to onxx --out x", "(did you mean 'onnx'?)"),
    (3, "export nowhere --to onnx --out x", "neither a checkpoint nor a run folder"),
    (2, "export nowhere", "the following arguments are required: --to, --out"),
    (2, "evaluate nowhere --splt val", "(did you mean '--split'?)"),
    (2, "demo --workers two", "invalid int value: 'two'"),
    (2, "doctor --jsn", "(did you mean '--json'?)"),
    (2, "train demo --out x --resume", "--resume: x holds no run"),
    (2, "train demo --resume", "--resume needs --out RUN"),
    (2, "train demo --wait soon", "invalid float value: 'soon'"),
    (2, "train demo --min-workers 1", "--min-workers is for a cluster whose nodes come and go"),
    (2, "train --from x", "no recipe is given; choose from: "),
    (2, "train demo model.name=unett", "no architecture 'unett' (did you mean 'unet'?)"),
    (2, "train demo loss.l3=1", "unknown key 'loss.l3'"),
    (2, "train demo loss.l1=-1", "loss.l1=-1"),
    (2, "train demo augment.hflip=2", "augment.hflip=2"),
    (2, "train demo optim.name=adamax", "(did you mean 'adam'?)"),
    (2, "train demo eval.monitor=absrel", "(did you mean 'abs_rel'?)"),
    (2, "train demo data.inputs=", "data.inputs has unknown ''"),
    (2, "train demo data.targets=[]", "data.targets is empty; give at least 1 value"),
    (2, "train demo curriculum.sizes=[[1]]", "curriculum.sizes[0][1] is missing"),
    (2, "train demo optim=3", "optim is a section; give its keys, optim.KEY=VALUE"),
    (2, "train demo optim.lr.x=3", "optim.lr.x: 'lr' is a value, not a section"),
    (2, "train demo =3", "'=3' is neither a flag nor an override"),
    (2, "train demo seed=-1", "seed=-1"),
    (2, "train demo data.val_fraction=2", "data.val_fraction=2"),
    (2, "train demo model.weights=nowhere.pth", "model.weights=nowhere.pth: no such file"),
    (2, "train demo --local --data nowhere", "nowhere: no such folder"),
    (2, "train demo --local data.source=synthetic --data empty", "draws its frames and would ignore data.root="),
    (2, "data render", "the following arguments are required: out"),
    (2, "data pack nowhere", "the following arguments are required: out"),
    (2, "data convert kittti x y", "no form 'kittti' (did you mean 'kitti'?)"),
    (3, "data convert kitti nowhere y", "nowhere: No such file or directory"),
    (3, "data pack empty out", "empty: no index.csv there"),
    (3, "data check file", "file: no data set of a known form"),
    (2, "data stats empty --protocl x", "(did you mean '--protocol'?)"),
    (2, "train demo data.source=foldr --data empty", "no data.source='foldr' (did you mean 'folder'?)"),
    (2, "train demo loss=5", "loss is a section; give its keys, loss.KEY=VALUE"),
    (2, "train demo train.precision=fp8", "(did you mean 'fp32'?)"),
    (2, "train demo optim.schedule=cosin", "(did you mean 'cosine'?)"),
    (2, "train demo --log tensorbord", "--log: no 'tensorbord' (did you mean 'tensorboard'?)"),
    (2, "train demo --from nowhere", "model.weights=nowhere: no such weights in the catalogue"),
    (2, "train demo augment.flip=1", "(did you mean 'vflip'?)"),
    (2, "train demo train.max_minutes=-1", "train.max_minutes=-1"),
    (2, "train demo --workers 3", "it does for 1, 2, 4, 8 or 16 workers"),
    (2, "train demo --data", "argument --data: expected one argument"),
    (2, "train masknet data.source=synthetic optim.encoder_lr=0.1", "this architecture has no encoder; leave it at 1"),
    (2, "train demo model.name=nosuch.module", "Python finds no module 'nosuch.module'"),
    (2, "train demo data.source=./nosuch.py", "data.source=./nosuch.py: no file nosuch.py"),
    (2, "train demo eval.protocol=nosuch.NEAR", "Python finds no module 'nosuch'"),
    (2, "train demo loss.terms.unet=0.1", "no loss term 'unet'"),
    (2, "tune", "no recipe is given; choose from: "),
    (2, "tune demo --trials none", "argument --trials: invalid int value: 'none'"),
    (2, "tune demo --scheduler ahsa", "(did you mean 'asha'?)"),
    (2, "tune demo --constraints latency_ms", "give a name and a limit, as in latency_ms=20"),
    (3, "data index file file", "file: not a folder; give the folder of the colour images"),
    (3, "data index nowhere other", "nowhere: No such file or directory"),
    (3, "data index empty empty", "empty: no colour images in it or below"),
    (2, "data render out --size 1", "argument --size: expected 2 arguments"),
    (2, "data render out --layout shrads", "(did you mean 'shards'?)"),
    (2, "data convert kitti x y --workers 0", "--workers 0: at least 1 is needed"),
    (2, "new modle x", "(did you mean 'model'?)"),
    (2, "new model 1bad", "'1bad' is no name of Python"),
    (2, "new model ../x/y", "'../x/y' is no name of Python"),
    (2, "shell-completion zshh", "(did you mean 'zsh'?)"),
    (2, "measure nowhere a.jpg 1 2 3", "the following arguments are required: y2"),
    (3, "measure nowhere a.jpg 1 2 3 4", "a.jpg: no such file"),
    (2, "predict nowhere", "no checkpoint is given; name a checkpoint or a run, and images after it"),
    (2, "predict nowhere file --range 3", "--range=3: give two numbers NEAR,FAR in metres"),
    (2, "predict nowhere file --range 5,1", "--range=5,1: NEAR is at least 0, and FAR is larger"),
    (2, "predict nowhere file --every 0", "--every 0: give a number above 0"),
    (2, "predict nowhere file --model room", "--model needs --url"),
    (2, "predict nowhere file --url http://127.0.0.1:9 --device cpu", "--device cannot be combined with --url"),
    (2, "completion nowhere --samples none", "'none' is no number of samples"),
    (2, "report empty", "empty holds no search (search.json is missing)"),
    (2, "recipe show demo optim", "'optim' is neither a flag nor an override"),
    (2, "models --json extra", "unrecognized arguments: extra"),
    (2, "export nowhere --to onnx --out file", "--out file: exists; choose another folder or remove it"),
    (2, "export nowhere --to onnx --out x --bound small", "argument --bound: invalid float value: 'small'"),
    (2, "serv", "no command 'serv' (did you mean 'serve'?)"),
    (2, "serve promot nowhere", "no command or checkpoint 'promot' (did you mean 'promote'?)"),
    (2, "serve promote nowhere --runtime onxx", "(did you mean 'onnx'?)"),
    (3, "serve rollback --name hall --store empty", "empty: no model 'hall'"),
    (3, "serve prune --name hall --store empty", "empty: no model 'hall'"),
    (2, "serve prune --keep -1", "argument --keep: -1: give a whole number, 0 or more"),
    (2, "serve nowhere --port eighty", "argument --port: invalid int value: 'eighty'"),
    (2, "serve nowhere model.max_batch=0", "settings: model.max_batch=0"),
    (2, "serve nowhere --settings nope.yaml", "nope.yaml: no such file of settings"),
    (2, "serve nowhere --min-replicas 2 --max-replicas 1", "model_replicas.min=2 is more than max=1"),
]


@pytest.mark.parametrize(("code", "line", "message"), MISTAKES, ids=[line for _, line, _ in MISTAKES])
def test_mistake(
    fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, line: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    Path("empty").mkdir()
    fails(code, *line.split(), message=message)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "file"]


@pytest.mark.parametrize("word", ["help", "--help", "-h"])
def test_help(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert main([word]) == 0
    assert "usage: depthray COMMAND" in capsys.readouterr().out
