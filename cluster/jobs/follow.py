"""The jobs API of a Ray cluster: connect, submit, follow a job's log to its end. Errors are one line."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import time
from typing import Any

from cluster import ray_private
from depthray.errors import DepthrayError, ResourceError, UsageError
from depthray.storage.retry import Retry

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
RETRY_SECONDS = 120.0  # a proxy or the head may restart meanwhile; without an answer for longer, a log is given up
POLL_SECONDS = 1.0
STOPPED_CODE = 130  # exit code of a job that was stopped


def connect(address: str = "") -> Any:
    """A JobSubmissionClient of the cluster at an address, or where Ray's variables say, or on this machine."""
    url = address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or DEFAULT_ADDRESS
    if "://" not in url and (address or "RAY_API_SERVER_ADDRESS" in os.environ):
        url = f"http://{url}"
    if url.startswith(("http://", "https://")):
        _check_reachable(url)
    # Ray's client is imported late: a wrong address should fail at once.
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for logger in ray_private.CHATTY_LOGGERS:
        logging.getLogger(logger).setLevel(logging.WARNING)
    os.environ["RAY_API_SERVER_ADDRESS"] = url  # Ray prefers it to the argument
    try:
        headers = json.loads(os.environ.get("RAY_JOB_HEADERS", "null"))  # as `ray job` reads them
        return JobSubmissionClient(url, headers=headers)
    except AuthenticationError as error:
        raise _token_error(url, error) from None
    except Exception as error:  # RuntimeError, ConnectionError, ValueError, and those of requests
        raise ResourceError(f"no jobs API at {url}: {_last_line(error)}; {_ADVICE}") from None


_ADVICE = "give the address of the dashboard, --submit http://HOST:8265; `ray start --head` prints it"


def _check_reachable(url: str) -> None:
    """Raise ResourceError at once where no dashboard answers: Ray's client would wait for minutes."""
    import httpx

    try:
        # A busy head accepts at once and answers late.
        response = httpx.get(f"{url.rstrip('/')}/api/version", timeout=httpx.Timeout(60.0, connect=10.0))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ResourceError(f"no Ray cluster answers at {url} ({_last_line(error)}); {_ADVICE}") from None
    if response.status_code not in (401, 403) and '"ray_version"' not in response.text:
        raise ResourceError(f"what answers at {url} is no Ray dashboard (HTTP {response.status_code}); {_ADVICE}")


def _token_error(url: str, error: Exception) -> UsageError:
    if "failed" in str(error):
        return UsageError(
            f"{url} refuses the token of this machine; put the cluster's own into RAY_AUTH_TOKEN, or its file's path "
            "into RAY_AUTH_TOKEN_PATH (on the head: `ray get-auth-token`)"
        )
    return UsageError(
        f"{url} requires a token; export RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH, else "
        "~/.ray/auth_token); on the head, `ray get-auth-token` prints it"
    )


def submit_job(client: Any, **job: Any) -> None:
    """Send a job to the cluster."""
    try:
        client.submit_job(**job)
    except Exception as error:
        raise ResourceError(f"the cluster at {client.get_address()} refuses the job: {_last_line(error)}") from None


def follow_job(client: Any, name: str, *, resume: str) -> int:
    """Print a job's log until the job ends. Returns its exit code; Ctrl-C ends the printing only."""
    log = _JobLog()
    try:
        details = _wait_for_end(client, name, log)
    except KeyboardInterrupt:
        address = client.get_address()
        print(
            f"\nno longer following; the job continues. Stop it with: {ray_job_command('stop', name, address)}",
            flush=True,
        )
        return STOPPED_CODE
    return _exit_code(details, log, resume)


def _wait_for_end(client: Any, name: str, log: _JobLog) -> Any:
    """Follow the log, over lost connections, until the job has ended. Returns its details."""
    # Any error, as aiohttp, requests and Ray raise their own.
    retry = Retry(RETRY_SECONDS, is_transient=lambda error: isinstance(error, Exception), sleep=time.sleep)

    def follow_once() -> Any:
        asyncio.run(log.follow(client, name))
        return client.get_job_info(name)

    while True:
        try:
            details = retry.run(follow_once)
        except Exception as error:
            raise ResourceError(
                f"{client.get_address()} has not answered for {RETRY_SECONDS:.0f} s ({_last_line(error)}); the job may "
                f"still run, see: {ray_job_command('status', name, client.get_address())}"
            ) from None
        if details.status.is_terminal():
            return details
        time.sleep(POLL_SECONDS)  # the connection ended, as proxies end long ones, but the job has not


def _exit_code(details: Any, log: _JobLog, resume: str) -> int:
    """The exit code of a job that has ended. Raises DepthrayError where the cluster has ended it."""
    status = details.status.value
    if status == "SUCCEEDED":
        return 0
    if status == "STOPPED":
        print(f"stopped      resume with: {resume}", flush=True)
        return STOPPED_CODE
    if details.driver_exit_code is None:
        raise DepthrayError(f"the cluster ended the job: {_last_line(details.message)}; resume with: {resume}")
    code = int(details.driver_exit_code)
    if log.lacks_python:
        raise ResourceError(
            "the job's `python` is not the one with depthray's dependencies: it is the first on the PATH that "
            "`ray start` had on that node; put the environment's bin folder first there and start the node again"
        )
    if code not in (2, 3):  # usage and data errors would repeat themselves
        print(f"failed       exit code {code}; resume with: {resume}", flush=True)
    return code if code >= 0 else 128 - code  # of a signal, as a shell reports it


class _JobLog:
    """A job's log. Each character is printed once, although every connection sends the log from its start."""

    def __init__(self) -> None:
        self.printed = 0
        self.lacks_python = False

    async def follow(self, client: Any, name: str) -> None:
        """Print what is new, until the connection ends."""
        repeated = self.printed
        async for text in client.tail_job_logs(name):
            # The first characters of a connection repeat those that are printed already.
            new, repeated = text[repeated:], max(0, repeated - len(text))
            self.printed += len(new)
            self.lacks_python |= "python: not found" in new or "ModuleNotFoundError: No module named" in new
            print(new, end="", flush=True)


def ray_job_command(verb: str, name: str, address: str) -> str:
    """A command line of `ray job`."""
    return f"ray job {verb} --address {shlex.quote(address)} {shlex.quote(name)}"


def _last_line(error: object) -> str:
    """The last line of a message that is not empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".;") if lines else type(error).__name__
