"""`depthray serve`: checkpoints answer HTTP on this machine or a cluster, are promoted and taken back."""

from __future__ import annotations

import argparse
import io
import logging
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from depthray.errors import DepthrayError, ResourceError, UsageError
from serve import settings as settings_of
from serve.settings import NAME, Settings
from serve.store import Store

DEFAULT_NAME = APPLICATION = "depth"
WORDS = ("promote", "rollback", "list")
# Read when Ray is imported; a line for each request costs more than answering it.
RAY_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_LOG_TO_STDERR": "0", "NO_ALBUMENTATIONS_UPDATE": "1"}
GRACE = 15.0  # seconds beyond the longest request until Serve's own 408


def main(argv: list[str]) -> int:
    """Serve, or change what is served."""
    if argv and argv[0] in WORDS:
        return {"promote": _promote, "rollback": _rollback, "list": _list}[argv[0]](argv[1:])
    args = _parser().parse_intermixed_args(argv)
    settings = _settings(args)
    _refuse_open(settings, args.host, args.address)
    _refuse_taken(args.host, args.port)
    for path in args.checkpoints:
        name, checkpoint = _named(path, args.name)
        _put(settings, name, checkpoint, force=args.force)
    if not Store(settings.store).names():
        raise UsageError(f"serve what? Give a checkpoint or a run; {settings.store} holds no model")
    return _serve(settings, args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="depthray serve",
        description="Checkpoints answer HTTP. Dotted words change settings: model.max_batch=16 limits.pixels=50000000",
        epilog="depthray serve promote RUN | rollback | list change what a running server serves; see --help of each.",
    )
    parser.add_argument("words", nargs="*", metavar="[NAME=]CHECKPOINT|RUN | section.key=value")
    parser.add_argument("--name", default=DEFAULT_NAME, help=f"name of the model (default: {DEFAULT_NAME})")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at (default: 8000)")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML file of settings")
    parser.add_argument("--min-replicas", type=int, metavar="N", help="model_replicas.min; 0: none while nobody asks")
    parser.add_argument("--max-replicas", type=int, metavar="N", help="model_replicas.max")
    parser.add_argument("--gpu", action="store_true", help="one GPU a replica (model.gpus=1)")
    parser.add_argument("--keys-file", type=Path, metavar="FILE", help="API keys, one a line")
    parser.add_argument("--allow-anonymous", action="store_true", help="no keys even where others can reach it")
    parser.add_argument("--address", help="a running Ray cluster (default: a local one, started and stopped)")
    _add_store(parser)
    parser.add_argument("--force", action="store_true", help="serve a checkpoint though it is far from the one before")
    return parser


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", type=Path, metavar="FOLDER", help="where models are kept (default: served)")


def _settings(args: argparse.Namespace) -> Settings:
    """The settings of file, environment, words and flags; a word without a dot in its key is a checkpoint."""
    args.checkpoints = [word for word in args.words if not _is_setting(word)]
    words = [word for word in args.words if _is_setting(word)]
    flags = {
        "model_replicas.min": args.min_replicas,
        "model_replicas.max": args.max_replicas,
        "model.gpus": 1 if args.gpu else None,
        "keys_file": args.keys_file and args.keys_file.resolve(),
        "allow_anonymous": args.allow_anonymous or None,
        "store": args.store,
    }
    if args.min_replicas is not None and args.max_replicas is None:
        flags["model_replicas.max"] = max(1, args.min_replicas)
    words += [f"{key}={value}" for key, value in flags.items() if value is not None]
    return settings_of.load(args.settings, words)


def _is_setting(word: str) -> bool:
    key, equals, _ = word.partition("=")
    section = key.split(".")[0]
    return bool(equals) and section in Settings.model_fields and not Path(word).exists()


def _named(word: str, name: str) -> tuple[str, Path]:
    """The name and path of [NAME=]PATH."""
    before, equals, after = word.partition("=")
    if equals and re.fullmatch(NAME, before) and not Path(word).exists():
        return before, Path(after)
    return name, Path(word)


def _put(settings: Settings, name: str, checkpoint: Path, *, force: bool) -> None:
    from serve.promotion import promote

    done = promote(Store(settings.store), name, checkpoint, device=settings.model.device or None, force=force)
    apart = "" if done.typical is None else f", on golden images {done.typical:.2f} x apart from the one before"
    print(f"model       {name}@{done.pointer.current}  ({checkpoint}{apart})", flush=True)


def _refuse_open(settings: Settings, host: str, address: str | None) -> None:
    """Before a cluster is started, what its replicas would find."""
    from serve import auth
    from serve.exposed import refuse_open

    if address and os.environ.get(auth.VARIABLE):
        raise UsageError(f"--address: the cluster does not see {auth.VARIABLE} of this shell; give --keys-file FILE")
    refuse_open(settings, host)


def _refuse_taken(host: str, port: int) -> None:
    """A port that is taken is said at once, not after a cluster was started."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "no such port"
            raise ResourceError(f"cannot listen at {host}:{port}: {reason}; choose another --port") from None


def _serve(settings: Settings, args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C, then answer what was asked before and go."""
    with _cluster(args.address, settings):
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # once Ray is up, as it takes SIGTERM for itself
        try:
            _start(settings, args)
            _tell(args.host, args.port)
            _wait()
        finally:
            with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):  # Ray warns that what we end has ended
                serve.shutdown()
    return 0


def _wait() -> None:
    """Until a signal comes; another one while requests are answered ends at once."""
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print("stopping    requests under way are answered first; Ctrl-C again ends at once", file=sys.stderr)


def _start(settings: Settings, args: argparse.Namespace) -> None:
    """Run the application; a replica that cannot start is said in one line."""
    from ray import serve

    from serve.app import bind

    patience = settings.timeout_seconds + settings.limits.upload_seconds + GRACE
    quiet: dict[str, Any] = {"enable_access_log": False, "log_level": "WARNING"}
    serve.start(
        http_options={"host": args.host, "port": args.port, "request_timeout_s": patience, "keep_alive_timeout_s": 90},
        logging_config=quiet,
    )
    try:
        serve.run(bind(settings), name=APPLICATION, route_prefix="/", logging_config=quiet)
    except RuntimeError as error:
        reason = next((line for line in reversed(str(error).strip().splitlines()) if line.strip()), "no reason given")
        raise DepthrayError(f"the service did not start: {reason.strip()}") from None


def _tell(host: str, port: int) -> None:
    shown = "localhost" if host in ("0.0.0.0", "::", "127.0.0.1") else host
    url = f"http://{shown}:{port}"
    print(f"page        {url}/")
    print(f"try         curl --data-binary @PHOTO.jpg {url}/v1/depth > depth.png")
    print(f"next        depthray serve promote RUN; {url}/docs tells the rest; Ctrl-C ends", flush=True)


def _set_environment(address: str | None) -> None:
    """What Ray reads when it is imported."""
    for key, value in RAY_SETTINGS.items():
        os.environ.setdefault(key, value)
    if not address and "RAY_AUTH_MODE" not in os.environ:
        # Only this process tree may talk to the local cluster; Ray would leave a token in the home folder.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@contextmanager
def _cluster(address: str | None, settings: Settings) -> Iterator[None]:
    """A connection to the cluster at an address, or a local one that lives as long as the context."""
    _set_environment(address)
    import ray

    if ray.is_initialized():  # by the program that calls us, which will also end it
        yield
        return
    if address:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    else:
        replicas = (settings.model_replicas, settings.ingress_replicas)
        wanted = sum(each.max * each.cpus for each in replicas) + 1
        cpus = max(os.cpu_count() or 1, int(wanted + 0.999))
        ray.init("local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _promote(argv: list[str]) -> int:
    """`depthray serve promote`: another checkpoint is served, by a running server too."""
    args = _promote_parser().parse_args(argv)
    settings = settings_of.load(None, [f"store={args.store}"] if args.store else [])
    _put(settings, args.name, args.checkpoint, force=args.force)
    return 0


def _promote_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="depthray serve promote",
        description="Serve a checkpoint from now on: copied, verified, loaded, compared with the one before on golden "
        "images. Running servers of the store take it up within a second or two; what fails changes nothing.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT|RUN")
    parser.add_argument("--name", default=DEFAULT_NAME, help=f"name of the model (default: {DEFAULT_NAME})")
    parser.add_argument("--force", action="store_true", help="though its depths are far from those of the one before")
    _add_store(parser)
    return parser


def _rollback(argv: list[str]) -> int:
    """`depthray serve rollback`: the version before is served again."""
    args = _rollback_parser().parse_args(argv)
    settings = settings_of.load(None, [f"store={args.store}"] if args.store else [])
    pointer = Store(settings.store).rollback(args.name)
    print(f"model       {args.name}@{pointer.current}  (before: {pointer.previous})")
    return 0


def _rollback_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="depthray serve rollback", description="Serve the version before again.")
    parser.add_argument("--name", default=DEFAULT_NAME, help=f"name of the model (default: {DEFAULT_NAME})")
    _add_store(parser)
    return parser


def _list(argv: list[str]) -> int:
    """`depthray serve list`: the models of the store."""
    args = _list_parser().parse_args(argv)
    store = Store(settings_of.load(None, [f"store={args.store}"] if args.store else []).store)
    for name in store.names():
        card = store.card(name)
        before = f"  before: {', '.join(card.versions[1:])}" if card.versions[1:] else ""
        maps = f"{card.size[1]}x{card.size[0]} {','.join(card.inputs)} -> {','.join(card.targets)}"
        print(f"{card.id:<24} {card.architecture:<12} {maps}{before}")
    return 0


def _list_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="depthray serve list", description="The models of a store.")
    _add_store(parser)
    return parser
