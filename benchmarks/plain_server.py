"""What most people write to serve a network: FastAPI, uvicorn and torch in one process, one image at a time.

    python benchmarks/plain_server.py CHECKPOINT|EXPORT --port 8000 --threads 2

A `def` endpoint, which FastAPI runs in a thread, decodes the JPEG, runs the network on it and encodes a 16-bit PNG in
millimetres. Fairly written: inference mode, OpenCV for decoding, resizing and encoding with fast compression, uvloop
and httptools, no access log. No batches, no limits, no bound on the queue: that is what it is compared for. An export
is computed by its own runtime.
"""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import uvicorn
from fastapi import Body, FastAPI, Request, Response
from torch import Tensor
from torch.nn import functional as F

from depthray import models
from depthray.batch import collate, to_device
from depthray.config.sections import Data
from depthray.network_inputs import prepare
from depthray.runtimes.open import open_model
from serve.http import codec
from serve.settings import RequestLimits

CPU = torch.device("cpu")


def create(path: Path, *, threads: int, together: int) -> FastAPI:
    """The application; so many forward passes run at a time."""
    opened = open_model(path, device=CPU, threads=threads)
    model, data = opened.network.eval(), opened.recipe.data
    free = threading.Semaphore(together)  # with 1, as many threads compute as in a pass of serve
    app = FastAPI()

    @app.post("/depth")
    def depth(request: Request, body: Annotated[bytes, Body(media_type="image/jpeg")]) -> Response:
        if data.inputs == ("image",) and data.fit == "exact":
            batch, size = decode(body, data)
        else:
            batch, size = decode_all(body, request.headers["content-type"], data)
        # Decoding and encoding are outside: only forward passes share the cores that torch is given.
        with free, torch.inference_mode():
            maps = models.run(model, batch)
            metres = maps["depth"] if "depth" in data.targets else maps["mask"].sigmoid()
            metres = F.interpolate(metres, size, mode="bilinear")[0, 0]
        stored = (metres.numpy() * 1000).round().clip(0, 65535).astype(np.uint16)
        # Fast compression, as serve's answers have it.
        _, png = cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        return Response(png.tobytes(), media_type="image/png")

    return app


def decode(body: bytes, data: Data) -> tuple[Any, tuple[int, int]]:
    """A JPEG -> (1,3,h,w) of the network's size, and (H,W) of the photograph."""
    decoded = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None, "the body is no image"
    image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    small = cv2.resize(image, (data.size[1], data.size[0]), interpolation=cv2.INTER_AREA)
    tensor: Tensor = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255
    return {"image": tensor}, (image.shape[0], image.shape[1])


def decode_all(body: bytes, kind: str, data: Data) -> tuple[Any, tuple[int, int]]:
    """The same for networks of several inputs or free sizes, by depthray's own functions: they are quick."""
    image = codec.read(body, kind, RequestLimits())
    sample = prepare(image.rgb, image.others, data)
    batch = to_device(collate([sample]), CPU, min_depth=data.min_depth, max_depth=data.max_depth)
    return batch, (image.rgb.shape[0], image.rgb.shape[1])


def main() -> int:
    """Serve until a signal arrives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="CHECKPOINT|EXPORT")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=0, help="of one forward pass; 0: torch chooses")
    parser.add_argument("--together", type=int, default=40, help="forward passes at a time (default: all threads')")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    app = create(args.model, threads=args.threads or torch.get_num_threads(), together=args.together)
    uvicorn.run(app, host="127.0.0.1", port=args.port, log_level="warning", access_log=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
