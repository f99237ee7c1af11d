"""The description of the API: parameters, bodies and answers for /openapi.json, and the page /docs made from them.

Written by hand: bodies are streamed and limited before they are parsed, so FastAPI sees neither them nor the query.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from serve.http.problems import MEDIA as PROBLEM
from serve.http.query import CHOICES, DISTORTION, MEDIA, PARAMETERS, RANGES

ABOUT = """Depth in metres from one image: `curl --data-binary @room.jpg localhost:8000/v1/depth > depth.png`.

The answer has the size of the image, rotated as its EXIF orientation says. PNG has 16 bits: millimetres, 0 =
invalid, and 65535 is 65.535 m or farther; scale=256 reaches 256 m. NumPy arrays are metres along the optical axis."""

_DESCRIPTIONS = {
    "format": "of the answer; default: by the Accept header, or png without one",
    "cmap": "colour map of format=colour",
    "size": "resolution of the answer: that of the image, or that of the network's input",
    "plane": "which map, for networks that predict several: confidence is the probability that depth is right within "
    "10 percent (PNG: 8 bit, 255 = 1), sigma the standard deviation of depth, valid the probability that there is a "
    "depth (PNG: 255 where it is one half or more); npz has all of them",
    "scale": "steps per metre of the 16-bit PNG: 1000 are millimetres, 256 as KITTI, 5000 as TUM",
    "dtype": "of the numbers in npy and npz",
    "vmin": "metres at the near end of the colour map",
    "vmax": "metres at the far end of the colour map",
    "fx": "horizontal focal length in pixels of the upright image, for point clouds, and needed by models with "
    "canonical_focal",
    "fy": "vertical focal length in pixels; default: fx",
    "cx": "column of the principal point; default: the centre",
    "cy": "row of the principal point; default: the centre",
    "fov": "horizontal field of view in degrees, instead of fx; without both 60 is assumed, as X-Intrinsics states",
    "keep_invalid": "depth of pixels too of which the network says that there is none, for networks that do; by "
    "default they are 0, or no points, in all formats but npz",
    "distortion": "with fx: the lens of an image that is not undistorted, k1,k2,p1,p2,k3 in OpenCV's order, for points",
    "camera_model": "what the numbers of distortion are; fisheye is Kannala-Brandt's, k1,k2,k3,k4",
    "min_confidence": "ply, glb: no points of pixels of less confidence, for networks that predict it",
}


def _parameter(name: str) -> dict[str, Any]:
    if name in CHOICES:
        schema: dict[str, Any] = {"type": "string", "enum": list(CHOICES[name]), "default": CHOICES[name][0]}
        if name in ("format", "plane"):
            del schema["default"]  # their default depends on the Accept header, and on the model
    elif name == DISTORTION:
        schema = {"type": "string", "maxLength": 200}
    else:
        schema = {"type": "number", "minimum": RANGES[name][0], "maximum": RANGES[name][1]}
    return {"name": name, "in": "query", "required": False, "description": _DESCRIPTIONS[name], "schema": schema}


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_MAPS = ("background", "sparse", "semantics", "instances")
_FORM = {
    "schema": {
        "type": "object",
        "properties": {name: {"type": "string", "format": "binary"} for name in ("image", *_MAPS)},
        "required": ["image"],
        "additionalProperties": False,
    }
}
_SEVERAL = {"type": "array", "items": {"type": "string", "format": "binary"}}
_FORMS = {
    "schema": {
        "type": "object",
        "properties": {name: _SEVERAL for name in ("image", *_MAPS)},
        "required": ["image"],
        "additionalProperties": False,
    }
}
# A problem document; `error` repeats `detail` for clients of the Open Inference Protocol.
_DOCUMENT = {
    "type": "object",
    "properties": {
        **{name: {"type": "string"} for name in ("type", "title", "detail", "instance", "error")},
        "status": {"type": "integer"},
    },
    "required": ["type", "title", "status", "detail", "instance", "error"],
}
_STATUS_TEXTS = {
    400: "Not an image, damaged, or an unknown or malformed parameter",
    401: "No API key, or an unknown one",
    404: "No such model",
    406: "No format that Accept allows",
    408: "The body arrived too slowly",
    413: "The body is too large",
    415: "Content-Type or kind of file not supported",
    422: "Well-formed, but out of range, or an input the model needs is missing",
    429: "The queue is full; see Retry-After",
    500: "Internal error",
    503: "No model is ready; see Retry-After",
    504: "The answer took too long",
}
_HEADERS = {
    "X-Depth-Unit": "mm, m, or another as X-Depth-Scale",
    "X-Depth-Scale": "metres of one step",
    "X-Model": "name@version that answered",
    "X-Model-Input-Size": "WIDTHxHEIGHT pixels of the network's input",
    "X-Depth-Warning": "what of the image, its camera or its depth is not as in training; metres may be off",
    "X-Intrinsics": "camera of the point cloud: given, or assumed",
    "Server-Timing": "milliseconds by stage",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem documents a route can answer with."""
    content = {PROBLEM: {"schema": _DOCUMENT}}
    return {status: {"description": _STATUS_TEXTS[status], "content": content} for status in statuses}


def _success(description: str, content: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    headers = {name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()}
    return {200: {"description": description, "content": content, "headers": headers}}


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": content}


# Passed to FastAPI's add_api_route: it writes what it is given into the document, and validates nothing by it.
ESTIMATE: dict[str, Any] = {
    "responses": {
        **_success("The depth of the image", {media: _BINARY for media in MEDIA}),
        **problems(*_STATUS_TEXTS),
    },
    "openapi_extra": {
        "parameters": [_parameter(name) for name in PARAMETERS],
        "requestBody": _body(
            {
                **{media: _BINARY for media in ("image/jpeg", "image/png", "image/webp", "application/x-npz")},
                "multipart/form-data": _FORM,
            }
        ),
    },
}
BATCH: dict[str, Any] = {
    "responses": {
        **_success(
            "A zip file: index.json, and a file for each image that has an answer", {"application/zip": _BINARY}
        ),
        **problems(*(status for status in _STATUS_TEXTS)),
    },
    "openapi_extra": {
        "parameters": [_parameter(name) for name in PARAMETERS]
        + [{"name": "model", "in": "query", "required": False, "schema": {"type": "string"}}],
        "requestBody": _body({"multipart/form-data": _FORMS}),
    },
}


def manual(tree: Mapping[str, Any]) -> str:
    """An OpenAPI document -> an HTML page without scripts. FastAPI's own pages load theirs from other servers."""
    routes = [
        _route(method.upper(), path, route) for path, item in tree["paths"].items() for method, route in item.items()
    ]
    return _PAGE.format(title=escape(tree["info"]["title"]), about=_text(ABOUT), routes="\n".join(routes))


# Braces are doubled for str.format.
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c1e22 }}
code, h2 {{ font-family: ui-monospace, monospace }} h2 {{ font-size: 1.1rem; margin-top: 2.5rem }}
table {{ border-collapse: collapse; width: 100% }}
td {{ border-top: 1px solid #8884; padding: .3rem .8rem .3rem 0; vertical-align: top }}
td:first-child {{ font-family: ui-monospace, monospace; white-space: nowrap }}
@media (prefers-color-scheme: dark) {{ body {{ background: #16181c; color: #e4e6ea }} a {{ color: #8cf }} }}
</style></head><body><h1>{title}</h1><p>{about}</p><p><a href="openapi.json">openapi.json</a></p>
{routes}</body></html>"""


def _route(method: str, path: str, route: Mapping[str, Any]) -> str:
    body = route.get("requestBody", {}).get("content", {})
    rows = [(entry["name"], _describe_parameter(entry)) for entry in route.get("parameters", ())]
    rows += [("body", " or ".join(body))] if body else []
    rows += [(status, _describe_answer(answer)) for status, answer in sorted(route["responses"].items())]
    cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in rows)
    return f"<h2>{method} {escape(path)}</h2><p>{_text(route.get('description', ''))}</p><table>{cells}</table>"


def _describe_parameter(entry: Mapping[str, Any]) -> str:
    schema = entry.get("schema", {})
    range_ = f"{schema['minimum']:g} to {schema['maximum']:g}" if "minimum" in schema else ""
    parts = (", ".join(schema.get("enum", [])) or range_, entry.get("description", ""))
    return "; ".join(part for part in parts if part)


def _describe_answer(answer: Mapping[str, Any]) -> str:
    kinds = ", ".join(answer.get("content", {}))
    return f"{answer.get('description', '')}{f' ({kinds})' if kinds else ''}"


def _text(plain: str) -> str:
    """Plain text with `code` -> HTML."""
    parts = escape(plain).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))


def pretty(tree: Mapping[str, Any]) -> bytes:
    """Plain values -> JSON with a line end, so that a shell's prompt follows on a line of its own."""
    return json.dumps(tree, allow_nan=False).encode() + b"\n"
