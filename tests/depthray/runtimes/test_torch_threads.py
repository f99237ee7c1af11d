"""PyTorch's threads keep no core waiting while another runtime computes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest
import torch
from exports import batch_of, example, write_export
from torch import Tensor

from depthray.predict import load
from depthray.runtimes.open import open_model
from depthray.runtimes.torch_threads import one_thread


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_one_thread_inside_and_as_many_as_before_after_it() -> None:
    with one_thread():
        assert torch.get_num_threads() == 1
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1, "the end of an inner call is none of the outer one"
    assert torch.get_num_threads() == 3


def test_an_error_leaves_no_trace() -> None:
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert torch.get_num_threads() == 3


def test_a_thread_that_begins_inside_and_ends_outside_has_all_threads_again() -> None:
    counts: dict[str, int] = {}
    entered, left = threading.Event(), threading.Event()

    def work() -> None:
        with one_thread():
            entered.set()
            assert left.wait(10)
            counts["inside"] = torch.get_num_threads()
        counts["after"] = torch.get_num_threads()

    thread = threading.Thread(target=work)
    with one_thread():
        thread.start()
        assert entered.wait(10)
    assert torch.get_num_threads() == 3
    left.set()
    thread.join()
    assert counts == {"inside": 1, "after": 3}


@pytest.mark.parametrize(("target", "threads"), [("openvino", 1), ("onnx", 1), ("torch-export", 3)])
def test_only_runtimes_with_threads_of_their_own_leave_pytorch_one(tmp_path, monkeypatch, target, threads) -> None:
    folder = write_export(tmp_path / target, target)
    seen: list[int] = []
    network = open_model(folder, device=torch.device("cpu")).network
    run = network._run

    def watched(values: Sequence[Tensor]) -> Sequence[Tensor]:
        seen.append(torch.get_num_threads())
        return run(values)

    monkeypatch.setattr(network, "_run", watched)
    network(batch_of(*example()))
    assert seen == [threads] and torch.get_num_threads() == 3


@pytest.mark.parametrize(("target", "threads"), [("openvino", 1), ("torch-export", 3)])
def test_so_does_a_predictor_with_all_that_it_does_around_a_pass(tmp_path, monkeypatch, target, threads) -> None:
    predictor = load(write_export(tmp_path / target, target))
    seen: list[int] = []
    monkeypatch.setattr("depthray.batch.collate", lambda samples: seen.append(torch.get_num_threads()))
    with pytest.raises(TypeError):  # of no batch
        predictor.run([])
    assert seen == [threads] and torch.get_num_threads() == 3
