"""The API in words: what /openapi.json says of each route beyond its path, and /docs, which needs no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from serve.http.problems import MEDIA as PROBLEM
from serve.http.query import CHOICES, MEDIA, RANGES

ABOUT = """Depth in metres from one picture: `curl --data-binary @room.jpg localhost:8000/v1/depth > depth.png`.

The answer has the pixels of the picture, turned as its EXIF orientation says. PNG has 16 bits: millimetres, 0 =
invalid, and 65535 is 65.535 m or farther; scale=256 reaches 256 m. NumPy arrays are metres along the optical axis."""

_WORDS = {
    "format": "of the answer; without it the Accept header chooses, and without that it is png",
    "cmap": "colours of format=colour",
    "size": "pixels of the answer: those of the picture, or those the network has seen",
    "plane": "which map, of networks that give several",
    "scale": "steps per metre of the 16-bit PNG: 1000 are millimetres, 256 as KITTI, 5000 as TUM",
    "dtype": "of the numbers in npy and npz",
    "vmin": "metres at the near end of the colours",
    "vmax": "metres at the far end of the colours",
    "fx": "focal length in pixels of the upright picture, for points",
    "fy": "the same from top to bottom, if it differs",
    "cx": "column of the optical axis; the middle by default",
    "cy": "row of the optical axis; the middle by default",
    "fov": "degrees from left to right, instead of fx; without both 60 are assumed, as X-Intrinsics says",
}


def _parameter(name: str) -> dict[str, Any]:
    if name in CHOICES:
        schema: dict[str, Any] = {"type": "string", "enum": list(CHOICES[name]), "default": CHOICES[name][0]}
        if name in ("format", "plane"):
            del schema["default"]
    else:
        schema = {"type": "number", "minimum": RANGES[name][0], "maximum": RANGES[name][1]}
    return {"name": name, "in": "query", "required": False, "description": _WORDS[name], "schema": schema}


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
_DOCUMENT = {
    "type": "object",
    "properties": {
        **{name: {"type": "string"} for name in ("type", "title", "detail", "instance", "error")},
        "status": {"type": "integer"},
    },
    "required": ["type", "title", "status", "detail", "instance", "error"],
}
_SAID = {
    400: "Not a picture, damaged, or a parameter that cannot be understood",
    401: "No API key, or an unknown one",
    404: "No such model",
    406: "No format that Accept allows",
    408: "The body came too slowly",
    413: "The body is too large",
    415: "Content-Type or kind of file not taken",
    422: "Understood, but out of bounds, or an input the model needs is missing",
    429: "The queue is full; see Retry-After",
    500: "A fault of the server",
    503: "No model is ready; see Retry-After",
    504: "The answer took too long",
}
_HEADERS = {
    "X-Depth-Unit": "mm, m, or another as X-Depth-Scale",
    "X-Depth-Scale": "metres of one step",
    "X-Model": "name@version that answered",
    "X-Model-Input-Size": "WIDTHxHEIGHT pixels the network saw",
    "X-Intrinsics": "camera of the points: given, or assumed",
    "Server-Timing": "milliseconds by stage",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem documents a route can answer with."""
    content = {PROBLEM: {"schema": _DOCUMENT}}
    return {status: {"description": _SAID[status], "content": content} for status in statuses}


def _good(words: str, content: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    headers = {name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()}
    return {200: {"description": words, "content": content, "headers": headers}}


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": content}


ESTIMATE: dict[str, Any] = {
    "responses": {**_good("The depth of the picture", {media: _BINARY for media in MEDIA}), **problems(*_SAID)},
    "openapi_extra": {
        "parameters": [_parameter(name) for name in (*CHOICES, *RANGES)],
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
        **_good("A zip file: index.json, and a file for each picture that has an answer", {"application/zip": _BINARY}),
        **problems(*(status for status in _SAID)),
    },
    "openapi_extra": {
        "parameters": [_parameter(name) for name in (*CHOICES, *RANGES)]
        + [{"name": "model", "in": "query", "required": False, "schema": {"type": "string"}}],
        "requestBody": _body({"multipart/form-data": _FORMS}),
    },
}


def manual(tree: Mapping[str, Any]) -> str:
    """An OpenAPI document -> a page to read, without a line of script."""
    routes = [
        _route(method.upper(), path, route) for path, item in tree["paths"].items() for method, route in item.items()
    ]
    return _PAGE.format(title=escape(tree["info"]["title"]), about=_text(ABOUT), routes="\n".join(routes))


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
    rows = [(entry["name"], _parameter_words(entry)) for entry in route.get("parameters", ())]
    rows += [("body", " or ".join(body))] if body else []
    rows += [(status, _answer_words(answer)) for status, answer in sorted(route["responses"].items())]
    cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(words)}</td></tr>" for name, words in rows)
    return f"<h2>{method} {escape(path)}</h2><p>{_text(route.get('description', ''))}</p><table>{cells}</table>"


def _parameter_words(entry: Mapping[str, Any]) -> str:
    schema = entry.get("schema", {})
    ends = f"{schema['minimum']:g} to {schema['maximum']:g}" if "minimum" in schema else ""
    return "; ".join(part for part in (", ".join(schema.get("enum", [])) or ends, entry.get("description", "")) if part)


def _answer_words(answer: Mapping[str, Any]) -> str:
    kinds = ", ".join(answer.get("content", {}))
    return f"{answer.get('description', '')}{f' ({kinds})' if kinds else ''}"


def _text(words: str) -> str:
    parts = escape(words).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))


def pretty(tree: Mapping[str, Any]) -> bytes:
    """Plain values -> JSON with a line end."""
    return json.dumps(tree, allow_nan=False).encode() + b"\n"
