"""A real S3 server on loopback, which can be stopped and started again with all its objects."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar
from unittest import mock
from uuid import uuid4

SETTINGS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


class Store:
    """The server, its bucket, and how long it is away. What it holds lives in this process."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.bucket = f"bucket-{uuid4().hex[:8]}"
        self.server: Any = None
        self.environment = {**SETTINGS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}

    def url(self, name: str) -> str:
        return f"s3://{self.bucket}/{name}"

    def start(self) -> None:
        """Listen at the port, the same one each time."""
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        app = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", self.port, app, threaded=True)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, as a store that is down does."""
        server, self.server = self.server, None
        if server:
            server.shutdown()
            server.server_close()

    @contextmanager
    def away(self) -> Iterator[None]:
        self.stop()
        try:
            yield
        finally:
            self.start()

    def make_bucket(self) -> None:
        from moto.core.models import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket(self.bucket, "us-east-1")


S = TypeVar("S", bound=Store)


@contextmanager
def serving(store: S) -> Iterator[S]:
    """A store with an empty bucket, the environment of this process set to it."""
    before = dict(os.environ)
    os.environ.update(store.environment)
    store.start()
    store.make_bucket()
    try:
        with _no_retries_of_pyarrow():
            yield store
    finally:
        store.stop()
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _no_retries_of_pyarrow() -> Iterator[None]:
    """Calls that fail at once: pyarrow repeats one that is refused for 6 s, and only then do our own retries begin."""
    from pyarrow import fs

    once = fs.AwsStandardS3RetryStrategy(max_attempts=1)
    with mock.patch.object(fs, "S3FileSystem", partial(fs.S3FileSystem, retry_strategy=once)):
        yield
