"""The jobs API of a Ray cluster: connect, submit, follow a job's log to its end. Faults are one line."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import time
from typing import Any

from depthray.errors import DepthrayError, ResourceError, UsageError

HERE = "http://127.0.0.1:8265"
PATIENCE = 120.0  # seconds without an answer, as while a proxy or the head restarts, before a log is given up
CHATTY = ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging")
STOPPED = 130  # exit code of a job that was stopped


def connect(address: str = "") -> Any:
    """A JobSubmissionClient of the cluster at an address, or where Ray's variables say, or on this machine."""
    url = address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or HERE
    if "://" not in url and (address or "RAY_API_SERVER_ADDRESS" in os.environ):
        url = f"http://{url}"
    if url.startswith(("http://", "https://")):
        _reach(url)
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for module in CHATTY:
        logging.getLogger(f"ray.{module}").setLevel(logging.WARNING)
    os.environ["RAY_API_SERVER_ADDRESS"] = url  # Ray lets it win over an argument
    try:
        headers = json.loads(os.environ.get("RAY_JOB_HEADERS", "null"))  # as `ray job` takes them
        return JobSubmissionClient(url, headers=headers)
    except AuthenticationError as error:
        raise _refused(url, error) from None
    except Exception as error:  # Ray raises what it likes: RuntimeError, ConnectionError, ValueError, of requests
        raise ResourceError(f"no jobs API at {url}: {_line(error)}; {_ADVICE}") from None


_ADVICE = "give the address of the dashboard, --submit http://HOST:8265; `ray start --head` prints it"


def _reach(url: str) -> None:
    """Raise ResourceError at once where no dashboard answers: Ray's client would wait for minutes."""
    import httpx

    try:
        answer = httpx.get(f"{url.rstrip('/')}/api/version", timeout=10.0)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ResourceError(f"no Ray cluster answers at {url} ({_line(error)}); {_ADVICE}") from None
    if answer.status_code not in (401, 403) and '"ray_version"' not in answer.text:
        raise ResourceError(f"what answers at {url} is no Ray dashboard (HTTP {answer.status_code}); {_ADVICE}")


def _refused(url: str, error: Exception) -> UsageError:
    if "failed" in str(error):
        return UsageError(
            f"{url} refuses the token of this machine; put the cluster's own into RAY_AUTH_TOKEN, or its file's path "
            "into RAY_AUTH_TOKEN_PATH (on the head: `ray get-auth-token`)"
        )
    return UsageError(
        f"{url} wants a token; export RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH, else "
        "~/.ray/auth_token); on the head, `ray get-auth-token` prints it"
    )


def submitted(client: Any, **job: Any) -> None:
    """Send a job to the cluster."""
    try:
        client.submit_job(**job)
    except Exception as error:
        raise ResourceError(f"the cluster at {client.get_address()} does not take the job: {_line(error)}") from None


def followed(client: Any, name: str, *, again: str) -> int:
    """Print a job's log until it ends. Returns its exit code; Ctrl-C only ends the printing."""
    log = _Log()
    try:
        details = _ended(client, name, log)
    except KeyboardInterrupt:
        address = client.get_address()
        print(f"\nno longer following; the job goes on. Stop it with: {command('stop', name, address)}", flush=True)
        return STOPPED
    return _outcome(details, log, again)


def _ended(client: Any, name: str, log: _Log) -> Any:
    """Follow the log, over lost connections, until the job has ended; what is known of it then."""
    heard = time.monotonic()
    while True:
        try:
            asyncio.run(log.follow(client, name))
            details = client.get_job_info(name)
            if details.status.is_terminal():
                return details
            heard = time.monotonic()
        except Exception as error:  # of aiohttp, requests and Ray
            if time.monotonic() - heard > PATIENCE:
                raise ResourceError(
                    f"{client.get_address()} has not answered for {PATIENCE:.0f} s ({_line(error)}); the job may go "
                    f"on, look with: {command('status', name, client.get_address())}"
                ) from None
        time.sleep(1.0)


def _outcome(details: Any, log: _Log, again: str) -> int:
    """The exit code of a job that has ended. Raises DepthrayError for one that its cluster ended."""
    status = details.status.value
    if status == "SUCCEEDED":
        return 0
    if status == "STOPPED":
        print(f"stopped      as a job again: {again}", flush=True)
        return STOPPED
    if details.driver_exit_code is None:
        raise DepthrayError(f"the cluster ended the job: {_line(details.message)}; go on with: {again}")
    code = int(details.driver_exit_code)
    if log.lacks_python:
        raise ResourceError(
            "the job's `python` is not the one with depthray's dependencies: it is the first on the PATH that "
            "`ray start` had on that node; put the environment's bin folder first there and start the node again"
        )
    if code not in (2, 3):  # those need another command
        print(f"failed       exit code {code}; go on with: {again}", flush=True)
    return code if code >= 0 else 128 - code


class _Log:
    """A job's log, each character printed once although a new connection begins at its start."""

    def __init__(self) -> None:
        self.printed = 0
        self.lacks_python = False

    async def follow(self, client: Any, name: str) -> None:
        """Print what is new until the connection ends."""
        repeated = self.printed
        async for text in client.tail_job_logs(name):
            new, repeated = text[repeated:], max(0, repeated - len(text))
            self.printed += len(new)
            self.lacks_python |= "python: not found" in new or "ModuleNotFoundError: No module named" in new
            print(new, end="", flush=True)


def command(verb: str, name: str, address: str) -> str:
    """A command of Ray's own on the job."""
    return f"ray job {verb} --address {shlex.quote(address)} {shlex.quote(name)}"


def _line(error: object) -> str:
    """The last line of a message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".;") if lines else type(error).__name__
