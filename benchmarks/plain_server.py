"""What most people write to serve a network: FastAPI, uvicorn and torch in one process, one image at a time.

    python benchmarks/plain_server.py CHECKPOINT --port 8000 --threads 2

A `def` endpoint, which FastAPI runs in a thread, decodes the JPEG, runs the network on it and encodes a 16-bit PNG in
millimetres. Fairly written: inference mode, OpenCV for decoding, resizing and encoding with fast compression, uvloop
and httptools, no access log. No batches, no limits, no bound on the queue: that is what it is compared for.
"""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import uvicorn
from fastapi import Body, FastAPI, Response
from torch.nn import functional as F

from depthray import models
from depthray.checkpoints import load


def create(path: Path, *, together: int) -> FastAPI:
    """The application; so many forward passes run at a time."""
    contents = load.load(path)
    model = load.build_network(contents, where=path).eval()
    height, width = contents.recipe.data.size
    free = threading.Semaphore(together)  # with 1, as many threads compute as in a pass of serve
    app = FastAPI()

    @app.post("/depth")
    def depth(data: Annotated[bytes, Body(media_type="image/jpeg")]) -> Response:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if decoded is None:
            return Response(status_code=400)
        image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        tensor = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255
        # Decoding and encoding are outside: only forward passes share the cores that torch is given.
        with free, torch.inference_mode():
            metres = models.run(model, {"image": tensor})["depth"]
            metres = F.interpolate(metres, image.shape[:2], mode="bilinear")[0, 0]
        stored = (metres.numpy() * 1000).round().clip(0, 65535).astype(np.uint16)
        # Fast compression, as serve's answers have it.
        _, png = cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        return Response(png.tobytes(), media_type="image/png")

    return app


def main() -> int:
    """Serve until a signal arrives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=0, help="of one forward pass; 0: torch chooses")
    parser.add_argument("--together", type=int, default=40, help="forward passes at a time (default: all threads')")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    app = create(args.checkpoint, together=args.together)
    uvicorn.run(app, host="127.0.0.1", port=args.port, log_level="warning", access_log=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
