"""What Ray's metrics agents of all hosts say, as one page for Prometheus, the same from every replica."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import httpx

FRESH = 1.0  # seconds for which a page is given again, so that asking often costs nothing
PATIENCE = 5.0  # seconds an agent may take


class Scrape:
    """Called, it gives the page."""

    def __init__(self) -> None:
        self._page, self._made = b"", float("-inf")
        self._asking = asyncio.Lock()

    async def __call__(self) -> bytes:
        """-> the page as text of Prometheus' format 0.0.4"""
        async with self._asking:
            if time.monotonic() - self._made > FRESH:
                self._page = merged(await _pages(await asyncio.to_thread(_agents)))
                self._made = time.monotonic()
            return self._page


def _agents() -> list[str]:
    """The addresses of the agents of the hosts that are alive."""
    import ray

    alive = (node for node in ray.nodes() if node["Alive"] and node["MetricsExportPort"])
    return [f"http://{_bracketed(node['NodeManagerAddress'])}:{node['MetricsExportPort']}/metrics" for node in alive]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _pages(addresses: Iterable[str]) -> list[bytes]:
    """What the agents say; one that does not answer is left out."""
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as client:
        answers = await asyncio.gather(*map(client.get, addresses), return_exceptions=True)
    return [answer.content for answer in answers if isinstance(answer, httpx.Response) and answer.is_success]


def merged(pages: Iterable[bytes]) -> bytes:
    """Pages -> one, in which each metric is described once and all its samples follow, as the format demands."""
    families: dict[bytes, tuple[list[bytes], list[bytes]]] = {}
    for page in pages:
        about: list[bytes] = []
        samples: list[bytes] = []
        for line in page.splitlines(keepends=True):
            if line.startswith(b"# HELP "):
                about, samples = families.setdefault(line.split(b" ", 3)[2], ([], []))
            if not line.startswith(b"#"):
                samples.append(line)
            elif line.split(b" ", 2)[1] not in [known.split(b" ", 2)[1] for known in about]:
                about.append(line)
    return b"".join(b"".join((*about, *samples)) for about, samples in families.values())
