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
from chaos.serving.service import TITLES, Service, checkpoint, eventually
from serve.registry.promotion import promote
from serve.registry.store import Store

WIRES = 4
ALLOWED = {200, 400, 415, 422}
EXAMPLES = 50  # of schemathesis for each operation
# Its own check that valid requests are accepted is left out: no schema can say which bytes are an image.
UNTRUE = "positive_data_acceptance"


def bodies(sizes: Sizes) -> Iterator[Finding]:
    """The fuzzer of test_serve_fuzz through the proxy: everything is answered or refused, nothing dies."""
    with Service(sizes.port, "limits.pixels=1000000", "limits.batch_pixels=1000000") as service:
        run = checkpoint(service.folder / "second", "data.inputs=image,sparse", "data.sparse.pattern=stored")
        promote(Store(service.store), "completion", run)
        eventually(lambda: service.ask("/v1/models/completion").status == 200, 60, "the second model")
        before = {role: service.pids(role) for role in TITLES}
        seen: Counter[str] = Counter()
        threads = [
            threading.Thread(target=_send, args=(service.port, seed, sizes.bodies // WIRES, seen))
            for seed in range(WIRES)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        codes = ", ".join(f"{word}: {count}" for word, count in sorted(seen.items()))
        fair = set(seen) <= {str(code) for code in ALLOWED} and sum(seen.values()) == WIRES * (sizes.bodies // WIRES)
        yield Finding(f"{sizes.bodies} harmed bodies", "200, 400, 415 or 422", codes, fair)
        after = {role: service.pids(role) for role in TITLES}
        yield Finding("processes that died", "none", "none" if before == after else "some", before == after)


def _send(port: int, seed: int, count: int, seen: Counter[str]) -> None:
    fuzz = importlib.import_module("harmed_bodies")
    chance = random.Random(seed)
    wire = HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(count):
        kind, data = chance.choice(fuzz.SEEDS)
        path = chance.choice(("/v1/depth", "/v1/depth", "/v1/models/completion/depth", "/v1/depth:batch"))
        form = chance.choice(("png", "npy", "ply"))
        try:
            body = fuzz.harmed(data, chance)
            wire.request("POST", f"{path}?format={form}", body=body, headers={"Content-Type": kind})
            response = wire.getresponse()
            response.read()
            seen[str(response.status)] += 1
        except OSError as error:
            seen[type(error).__name__] += 1
            wire.close()


def schema(sizes: Sizes) -> Iterator[Finding]:
    """Schemathesis over /openapi.json; skipped without it (install it anywhere and name it with SCHEMATHESIS)."""
    program = os.environ.get("SCHEMATHESIS") or shutil.which("schemathesis")
    if not program:
        yield Finding("schemathesis", "clean", "skipped: it is not installed", True)
        return
    with Service(sizes.port) as service:
        before = {role: service.pids(role) for role in TITLES}
        command = [program, "run", f"http://127.0.0.1:{service.port}/openapi.json", "--exclude-checks", UNTRUE]
        command += ["--max-examples", str(EXAMPLES), "--seed", "1", "--no-color", "--warnings", "off"]
        done = subprocess.run(command, cwd=service.folder, capture_output=True, text=True, timeout=3600)
        lines = [line.strip() for line in done.stdout.splitlines()]
        cases = next((line for line in lines if " generated" in line), "no cases")
        wrong = "; ".join(line for line in lines if line.startswith("- "))
        found = f"{cases}{'; ' + wrong if wrong else ''}"
        yield Finding("schemathesis", "clean", found, done.returncode == 0)
        after = {role: service.pids(role) for role in TITLES}
        yield Finding("processes that died", "none", "none" if before == after else "some", before == after)
