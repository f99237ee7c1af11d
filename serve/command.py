"""`depthray serve`: serve checkpoints over HTTP on this machine or a cluster, promote others, and roll back."""

from __future__ import annotations

import argparse
import os
import re
import socket
from pathlib import Path
from typing import get_args

from depthray.cli.flags import trust
from depthray.cli.flags.command_parser import CommandParser
from depthray.errors import ResourceError, UsageError, did_you_mean
from depthray.waiting import Heartbeat
from serve import lifetime
from serve import settings as settings_of
from serve.http import auth
from serve.registry.exports import RuntimeRequest
from serve.registry.promotion import promote
from serve.registry.quality import Demand
from serve.registry.store import Store
from serve.settings import NAME, Runtime, Settings

DEFAULT_NAME = "depth"
SUBCOMMANDS = ("promote", "rollback", "list", "prune")
NICENESS = 10  # of a promotion: its exports take all cores for a while, and a server on this machine needs them first
KEEP = 5  # versions that prune keeps by default


def main(argv: list[str]) -> int:
    """Serve, or change what is served."""
    # Not by argparse, whose subparsers would take the path of a checkpoint for an unknown command.
    if argv and argv[0] in SUBCOMMANDS:
        return {"promote": _promote, "rollback": _rollback, "list": _list, "prune": _prune}[argv[0]](argv[1:])
    args = build_parser().parse_intermixed_args(argv)
    _refuse_misspelt_command(argv[0] if argv else "")
    # All checks that need no cluster first, as starting one takes seconds.
    settings = _settings(args)
    _check_keys(settings, args.host, args.address)
    _check_port(args.host, args.port)
    for path in args.checkpoints:
        name, checkpoint = _parse_named_path(path, args.name)
        _promote_checkpoint(settings, name, checkpoint, args)
    if not Store(settings.store).names():
        raise UsageError(f"serve what? Give a checkpoint or a run; {settings.store} contains no model")
    return lifetime.run(settings, args.host, args.port, address=args.address)


def _refuse_misspelt_command(word: str) -> None:
    """UsageError for what is nearly the name of a command and no checkpoint."""
    hint = did_you_mean(word, SUBCOMMANDS)
    if "did you mean" in hint and not Path(word).exists():
        raise UsageError(f"no command or checkpoint '{word}'{hint}")


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray serve`."""
    parser = CommandParser(
        prog="depthray serve",
        description="Serve checkpoints over HTTP. Overrides change settings: model.max_batch=16 limits.pixels=50000000",
        epilog="depthray serve promote RUN | rollback | list | prune manage the served models; see --help of each.",
    )
    parser.add_argument("arguments", nargs="*", metavar="[NAME=]CHECKPOINT|RUN | section.key=value")
    parser.add_argument("--name", default=DEFAULT_NAME, help=f"name of the model (default: {DEFAULT_NAME})")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at (default: 8000)")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML file of settings")
    parser.add_argument("--min-replicas", type=int, metavar="N", help="model_replicas.min; 0: none without requests")
    parser.add_argument("--max-replicas", type=int, metavar="N", help="model_replicas.max")
    parser.add_argument("--gpu", action="store_true", help="one GPU a replica (model.gpus=1)")
    parser.add_argument("--keys-file", type=Path, metavar="FILE", help="API keys, one a line")
    parser.add_argument("--allow-anonymous", action="store_true", help="no keys even if others can reach the address")
    parser.add_argument("--address", help="a running Ray cluster (default: a local one, started and stopped)")
    _add_store(parser)
    trust.add_flag(parser)
    parser.add_argument("--force", action="store_true", help="serve a checkpoint whose depths differ much from before")
    _add_calibration(parser)
    return parser


def _add_calibration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--calibrate", metavar="DATA", help="your frames: by them an export to 8-bit integers is made and compared too"
    )
    parser.add_argument("--source", help="the form of the frames; default: as DATA looks")


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", type=Path, metavar="FOLDER", help="where models are kept (default: served)")


def _settings(args: argparse.Namespace) -> Settings:
    """The settings of file, environment, overrides and flags. Arguments that are no override are checkpoints."""
    args.checkpoints = [argument for argument in args.arguments if not _is_setting(argument)]
    overrides = [argument for argument in args.arguments if _is_setting(argument)]
    flags = {
        "model_replicas.min": args.min_replicas,
        "model_replicas.max": args.max_replicas,
        "model.gpus": 1 if args.gpu else None,
        "keys_file": args.keys_file and args.keys_file.resolve(),  # replicas run in other folders
        "model.trust": args.trust or None,
        "allow_anonymous": args.allow_anonymous or None,  # not given: the file of settings decides
        "store": args.store,
    }
    if args.min_replicas is not None and args.max_replicas is None:  # --min-replicas 4 alone must not exceed max=1
        flags["model_replicas.max"] = max(1, args.min_replicas)
    overrides += [f"{key}={value}" for key, value in flags.items() if value is not None]
    return settings_of.load(args.settings, overrides)


def _is_setting(argument: str) -> bool:
    key, equals, _ = argument.partition("=")
    section = key.split(".")[0]
    # A file may have any name, `store=x` too: if it exists, that is what is meant.
    return bool(equals) and section in Settings.model_fields and not Path(argument).exists()


def _parse_named_path(argument: str, name: str) -> tuple[str, Path]:
    """The name and path of [NAME=]PATH."""
    before, equals, after = argument.partition("=")
    if equals and re.fullmatch(NAME, before) and not Path(argument).exists():
        return before, Path(after)
    return name, Path(argument)


def _promote_checkpoint(
    settings: Settings, name: str, checkpoint: Path, args: argparse.Namespace, demand: Demand | None = None
) -> None:
    model = settings.model
    # On GPUs PyTorch computes: exports are for CPUs.
    is_exported = not (model.gpus or model.device.startswith("cuda"))
    with Heartbeat(f"{checkpoint} to be checked and exported", every=lifetime.ANNOUNCE_SECONDS) as waiting:

        def log(text: str) -> None:
            waiting.beat()
            print(f"export      {text}", flush=True)

        promotion = promote(
            Store(settings.store),
            name,
            checkpoint,
            force=args.force,
            trust=args.trust,
            request=RuntimeRequest(model.runtime, args.calibrate, args.source) if is_exported else None,
            demand=demand,
            log=log,
        )
    factor = promotion.typical
    apart = "" if factor is None else f", on golden images {factor:.2f} x apart from the one before"
    print(f"model       {name}@{promotion.pointer.current}  ({checkpoint}{apart})", flush=True)
    if promotion.found:
        print(f"compared    {promotion.found}", flush=True)
    if promotion.speeds:
        listed = ", ".join(f"{runtime} {speed:.1f}" for runtime, speed in promotion.speeds.items())
        print(f"runtimes    {listed} images/s", flush=True)


def _check_keys(settings: Settings, host: str, address: str | None) -> None:
    """Report missing keys before a cluster is started, rather than by its replicas."""
    # Replicas inherit the environment of their host, not that of this shell: they would answer everybody.
    if address and os.environ.get(auth.VARIABLE):
        raise UsageError(f"--address: the cluster does not see {auth.VARIABLE} of this shell; give --keys-file FILE")
    auth.require_keys(settings, host)


def _check_port(host: str, port: int) -> None:
    """ResourceError for a port in use, before a cluster is started."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As the proxy does it: connections of a server that has just ended do not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "no such port"
            raise ResourceError(f"cannot listen at {host}:{port}: {reason}; choose another --port") from None


def _promote(argv: list[str]) -> int:
    """`depthray serve promote`: serve another checkpoint, on running servers too."""
    args = build_promote_parser().parse_args(argv)
    os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
    settings = _store_settings(args)
    demand = Demand(args.not_worse_on, args.source, args.split) if args.not_worse_on else None
    _promote_checkpoint(settings, args.name, args.checkpoint, args, demand)
    if args.keep is not None:
        _prune_model(settings, args.name, args.keep)
    return 0


def _store_settings(args: argparse.Namespace) -> Settings:
    """The settings of a command that only needs the store."""
    runtime = getattr(args, "runtime", None)
    overrides = {"store": args.store, "model.runtime": runtime}
    return settings_of.load(None, [f"{key}={value}" for key, value in overrides.items() if value])


def build_promote_parser() -> argparse.ArgumentParser:
    """The parser of `depthray serve promote`."""
    parser = CommandParser(
        prog="depthray serve promote",
        description="Serve a checkpoint from now on: it is copied, verified, loaded, and compared with the one before "
        "on golden images. Running servers of the store load it within a second or two. A failure changes nothing.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT|RUN")
    parser.add_argument("--name", default=DEFAULT_NAME, help=f"name of the model (default: {DEFAULT_NAME})")
    trust.add_flag(parser)
    parser.add_argument("--force", action="store_true", help="even if its depths differ much from before, or are worse")
    parser.add_argument(
        "--not-worse-on",
        metavar="DATA",
        help="only if its scores on these frames are not worse than those of what is served, beyond the luck of 95 %%",
    )
    parser.add_argument("--split", default="val", help="of --not-worse-on: train, val, test or all; default: val")
    parser.add_argument(
        "--runtime", choices=get_args(Runtime), help="what computes it: exports to make (default: auto, the fastest)"
    )
    _add_calibration(parser)
    parser.add_argument(
        "--keep", type=_count_argument, metavar="N", help="afterwards prune all but the N newest versions"
    )
    _add_store(parser)
    return parser


def _rollback(argv: list[str]) -> int:
    """`depthray serve rollback`: serve the version before again."""
    args = build_rollback_parser().parse_args(argv)
    pointer = Store(_store_settings(args).store).rollback(args.name)
    print(f"model       {args.name}@{pointer.current}  (before: {pointer.previous})")
    return 0


def build_rollback_parser() -> argparse.ArgumentParser:
    """The parser of `depthray serve rollback`."""
    parser = CommandParser(prog="depthray serve rollback", description="Serve the version before again.")
    parser.add_argument("--name", default=DEFAULT_NAME, help=f"name of the model (default: {DEFAULT_NAME})")
    _add_store(parser)
    return parser


def _list(argv: list[str]) -> int:
    """`depthray serve list`: print the models of the store."""
    args = build_list_parser().parse_args(argv)
    store = Store(_store_settings(args).store)
    for name in store.names():
        card = store.card(name)
        before = f"  before: {', '.join(card.versions[1:])}" if card.versions[1:] else ""
        maps = f"{card.size[1]}x{card.size[0]} {','.join(card.inputs)} -> {','.join(card.targets)}"
        print(f"{card.id:<24} {card.architecture:<12} {maps}{before}")
    return 0


def build_list_parser() -> argparse.ArgumentParser:
    """The parser of `depthray serve list`."""
    parser = CommandParser(prog="depthray serve list", description="The models of a store.")
    _add_store(parser)
    return parser


def _prune(argv: list[str]) -> int:
    """`depthray serve prune`: delete old versions."""
    args = build_prune_parser().parse_args(argv)
    settings = _store_settings(args)
    for name in [args.name] if args.name else Store(settings.store).names():
        _prune_model(settings, name, args.keep)
    return 0


def build_prune_parser() -> argparse.ArgumentParser:
    """The parser of `depthray serve prune`."""
    parser = CommandParser(
        prog="depthray serve prune",
        description="Delete old versions. Those that are served or that a replica may still use are kept in any case.",
    )
    parser.add_argument("--name", help="name of the model (default: all)")
    parser.add_argument(
        "--keep", type=_count_argument, default=KEEP, metavar="N", help=f"newest versions kept (default: {KEEP})"
    )
    _add_store(parser)
    return parser


def _count_argument(text: str) -> int:
    # int() alone would take 1_000, -1 and digits of other scripts.
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text}: give a whole number, 0 or more")
    return int(text)


def _prune_model(settings: Settings, name: str, keep: int) -> None:
    store = Store(settings.store)
    store.pointer(name)  # raises if there is no such model, which prune would take for an empty one
    deleted = store.prune(name, keep)
    print(f"pruned      {name}: {len(deleted)} deleted, {len(store.versions(name))} kept")
