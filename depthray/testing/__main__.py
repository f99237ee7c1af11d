"""`python -m depthray.testing NAME`: the contract of an architecture, a data set form, a loss term or a protocol.

NAME is as in a recipe: mypkg.net, ./net.py, ./losses.py:mine. What it is follows from what is in it.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from depthray import losses, models
from depthray.cli.flags.command_parser import CommandParser
from depthray.config import own_code
from depthray.config.overrides import apply_override
from depthray.config.own_modules import fault_line
from depthray.config.sections import Data, Loss, Model
from depthray.data import sources
from depthray.errors import DepthrayError, UsageError
from depthray.evaluation import protocols
from depthray.testing import loss_contract, network_contract, source_contract

Check = tuple[str, Callable[[], None]]


def main(argv: list[str] | None = None) -> int:
    """Run the checks of one name, print a line for each, and return 1 if one fails."""
    try:
        arguments = build_parser().parse_args(argv)
        own_code.allow([arguments.name])
        failed = report(checks_of(arguments.name, data=arguments.data, overrides=arguments.overrides))
    except DepthrayError as error:
        print(f"depthray.testing: {error}", file=sys.stderr)
        return error.exit_code
    return 1 if failed else 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of `python -m depthray.testing`."""
    parser = CommandParser(prog="python -m depthray.testing", description="Check code of one's own.")
    parser.add_argument("name", help="a module or file, or an object in it: mypkg.net, ./net.py, ./losses.py:mine")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="options of the network, or keys of data")
    parser.add_argument("--data", default="", metavar="PATH", help="the data that a form is checked with")
    return parser


def report(checks: Iterable[Check]) -> int:
    """Run checks and print a line for each; how many fail."""
    failed = 0
    for title, check in checks:
        try:
            check()
            print(f"ok    {title}", flush=True)
        except AssertionError as error:
            failed += 1
            print(f"FAIL  {title}: {error}", flush=True)
        except Exception as error:  # of somebody's code: it may raise anything
            failed += 1
            print(f"FAIL  {title}: {fault_line(error)}", flush=True)
    return failed


def checks_of(name: str, *, data: str = "", overrides: Iterable[str] = ()) -> list[Check]:
    """The checks of a name of one's own, by their titles. Raises UsageError where it is nothing of the four."""
    options: dict[str, Any] = {}
    for override in overrides:
        apply_override(options, override)
    contracts: Mapping[str, Callable[[], list[Check]]] = {
        "model": lambda: network_checks(Model(name=name, **options)),
        "source": lambda: source_checks(Data(source=name, root=data, **options)),
        "loss": lambda: loss_checks(name),
        "protocol": lambda: protocol_checks(name),
    }
    return contracts[kind_of(name)]()


def kind_of(name: str) -> str:
    """The kind of a name of one's own: a key of `own_code.KINDS`."""
    module, object_name = own_code.open_module(name, where=name)
    if object_name:
        return "protocol" if isinstance(getattr(module, object_name, None), protocols.Protocol) else "loss"
    for kind, about in own_code.KINDS.items():
        if about.member and hasattr(module, about.member):
            return kind
    raise UsageError(
        f"{name}: has neither 'build' (a network) nor 'open_source' (a data set form); of a loss term or a protocol "
        "name the object too: mypkg.losses.mine, ./losses.py:mine"
    )


def network_checks(section: Model) -> list[Check]:
    """The checks of an architecture with the options of a section."""
    models.check(section, where=section.name)
    build = models.builder(section.name)
    default = inspect.signature(build).parameters["inputs"].default
    torch.manual_seed(0)
    network = network_contract.settled(
        models.build_model(section, default if isinstance(default, tuple) else ("image",))
    )
    return [(_title(check), lambda check=check: check(network)) for check in network_contract.CHECKS]  # type: ignore[misc]


def source_checks(section: Data) -> list[Check]:
    """The checks of a data set form, on the data of a section."""
    sources.open_source(section)  # its errors are those of the data
    return [
        (_title(check), lambda check=check: check(lambda: sources.open_source(section)))  # type: ignore[misc]
        for check in source_contract.CHECKS
    ]


def loss_checks(name: str) -> list[Check]:
    """The checks of a loss term."""
    section = Loss(terms={name: 1.0})
    losses.check(section, where=name)

    def term(depth: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        size = depth.shape[-2:]
        camera = torch.tensor([[30.0, 0, 12], [0, 30.0, 11], [0, 0, 1]]).expand(len(depth), 3, 3)
        image = torch.full((len(depth), 3, *size), 0.5)
        batch: Any = {"depth": truth, "valid": valid, "image": image, "intrinsics": camera}
        return losses.total({"depth": depth, "pyramid": [depth[..., ::2, ::2]]}, batch, section)[0]

    return [(_title(check), lambda check=check: check(term)) for check in loss_contract.CHECKS]  # type: ignore[misc]


def protocol_checks(name: str) -> list[Check]:
    """The checks of a protocol: that a perfect prediction has no error."""
    protocol = protocols.named(name, where=name)

    def a_perfect_prediction_has_no_error() -> None:
        side: tuple[int, int] = protocol.size or getattr(protocol.crop, "size", None) or (480, 640)
        truth = torch.full((1, 1, *side), (protocol.min_depth + min(protocol.max_depth, 10.0)) / 2)
        compared = protocols.compare(truth.clone(), truth, protocol)
        assert compared.valid.any(), "scores no pixel of a frame that is measured throughout"
        assert torch.allclose(compared.prediction, compared.truth), "changes a prediction that is the truth"

    return [(_title(a_perfect_prediction_has_no_error), a_perfect_prediction_has_no_error)]


def _title(check: Callable[..., None]) -> str:
    return check.__name__.replace("_", " ")


if __name__ == "__main__":
    sys.exit(main())
