"""Bodies harmed at random and requests made from the OpenAPI document, through the real proxy."""

from __future__ import annotations

import importlib
import os
import random
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection

from chaos.serving.report import Finding, Sizes
from chaos.serving.service import TITLES, Service, checkpoint, wait_until
from serve.registry.promotion import promote
from serve.registry.store import Store

CONNECTIONS = 4
ALLOWED = {200, 400, 415, 422}
EXAMPLES = 50  # of schemathesis for each operation
# Its check that valid requests are accepted is left out: no schema can express which bytes are an image.
EXCLUDED_CHECK = "positive_data_acceptance"


def bodies(sizes: Sizes) -> Iterator[Finding]:
    """The fuzzer of test_serve_fuzz through the proxy: every body is answered or refused, no process dies."""
    with Service(sizes.port, "limits.pixels=1000000", "limits.batch_pixels=1000000") as service:
        run = checkpoint(service.folder / "second", "data.inputs=image,sparse", "data.sparse.pattern=stored")
        promote(Store(service.store), "completion", run)
        wait_until(lambda: service.request("/v1/models/completion").status == 200, 60, "the second model")
        before = {role: service.pids(role) for role in TITLES}
        seen: Counter[str] = Counter()
        threads = [
            threading.Thread(target=_send, args=(service.port, seed, sizes.bodies // CONNECTIONS, seen))
            for seed in range(CONNECTIONS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(seen.items()))
        expected = CONNECTIONS * (sizes.bodies // CONNECTIONS)
        good = set(seen) <= {str(code) for code in ALLOWED} and sum(seen.values()) == expected
        yield Finding(f"{sizes.bodies} corrupted bodies", "200, 400, 415 or 422", codes, good)
        after = {role: service.pids(role) for role in TITLES}
        yield Finding("processes that died", "none", "none" if before == after else "some", before == after)


def _send(port: int, seed: int, count: int, seen: Counter[str]) -> None:
    fuzz = importlib.import_module("harmed_bodies")  # of the tests, whose folder chaos adds to the path
    rng = random.Random(seed)
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(count):
        kind, data = rng.choice(fuzz.SEEDS)
        path = rng.choice(("/v1/depth", "/v1/depth", "/v1/models/completion/depth", "/v1/depth:batch"))
        form = rng.choice(("png", "npy", "ply"))
        try:
            body = fuzz.harmed(data, rng)
            connection.request("POST", f"{path}?format={form}", body=body, headers={"Content-Type": kind})
            response = connection.getresponse()
            response.read()
            seen[str(response.status)] += 1
        except OSError as error:
            seen[type(error).__name__] += 1  # a lost connection is none of the allowed answers
            connection.close()


def schema(sizes: Sizes) -> Iterator[Finding]:
    """Schemathesis over /openapi.json; skipped without it (install it anywhere and name it with SCHEMATHESIS)."""
    program = os.environ.get("SCHEMATHESIS") or shutil.which("schemathesis")
    if not program:
        yield Finding("schemathesis", "clean", "skipped: it is not installed", True)
        return
    with Service(sizes.port) as service:
        before = {role: service.pids(role) for role in TITLES}
        command = [program, "run", f"http://127.0.0.1:{service.port}/openapi.json", "--exclude-checks", EXCLUDED_CHECK]
        command += ["--max-examples", str(EXAMPLES), "--seed", "1", "--no-color", "--warnings", "off"]
        done = subprocess.run(command, cwd=service.folder, capture_output=True, text=True, timeout=3600)
        lines = [line.strip() for line in done.stdout.splitlines()]
        cases = next((line for line in lines if " generated" in line), "no cases")
        wrong = "; ".join(line for line in lines if line.startswith("- "))
        observed = f"{cases}{'; ' + wrong if wrong else ''}"
        yield Finding("schemathesis", "clean", observed, done.returncode == 0)
        after = {role: service.pids(role) for role in TITLES}
        yield Finding("processes that died", "none", "none" if before == after else "some", before == after)
