"""The metrics of Ray's agents on all hosts as one page for Prometheus, the same from every replica of the ingress."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import httpx

CACHE_SECONDS = 1.0  # for which a page is reused, so that many requests for it cost little
AGENT_TIMEOUT = 5.0  # seconds


class MetricsPage:
    """An async callable that returns the page."""

    def __init__(self) -> None:
        self._page, self._created = b"", float("-inf")
        self._lock = asyncio.Lock()

    async def __call__(self) -> bytes:
        """-> the page as text of Prometheus' format 0.0.4"""
        async with self._lock:
            if time.monotonic() - self._created > CACHE_SECONDS:
                self._page = merge(await _download(await asyncio.to_thread(_agents)))
                self._created = time.monotonic()
            return self._page


def _agents() -> list[str]:
    """The addresses of the metrics agents of the hosts that are alive."""
    import ray  # heavy, and tests merge pages without it

    alive = (node for node in ray.nodes() if node["Alive"] and node["MetricsExportPort"])
    return [f"http://{_url_host(node['NodeManagerAddress'])}:{node['MetricsExportPort']}/metrics" for node in alive]


def _url_host(host: str) -> str:
    """An address as URLs have it: of IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


async def _download(addresses: Iterable[str]) -> list[bytes]:
    """The pages of the agents; one that does not answer is left out, so that the metrics of the others stay."""
    # trust_env=False: a proxy of the environment must not see requests between hosts of the cluster.
    async with httpx.AsyncClient(timeout=AGENT_TIMEOUT, trust_env=False) as client:
        answers = await asyncio.gather(*map(client.get, addresses), return_exceptions=True)
    return [answer.content for answer in answers if isinstance(answer, httpx.Response) and answer.is_success]


def merge(pages: Iterable[bytes]) -> bytes:
    """Pages -> one, in which each metric is described once, followed by all its samples, as the format requires."""
    families: dict[bytes, tuple[list[bytes], list[bytes]]] = {}
    for page in pages:
        comments: list[bytes] = []
        samples: list[bytes] = []
        for line in page.splitlines(keepends=True):
            if line.startswith(b"# HELP "):
                comments, samples = families.setdefault(line.split(b" ", 3)[2], ([], []))
            if not line.startswith(b"#"):
                samples.append(line)
            elif line.split(b" ", 2)[1] not in [known.split(b" ", 2)[1] for known in comments]:
                comments.append(line)
    return b"".join(b"".join((*comments, *samples)) for comments, samples in families.values())
