"""Templates to answers: every text is escaped, and a browser is told to load nothing from afar."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from callmeter_sinks.dashboard import figures
from callmeter_sinks.dashboard.view import FILTERS, RANGES

_HERE = Path(__file__).parent
_TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
#: No inline script or style, no other host, no frame, no plug-in, no form that leads elsewhere.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_SMALL = 1024


class Asset(NamedTuple):
    """A static file, as it is and compressed once."""

    body: bytes
    packed: bytes
    content_type: str
    etag: str


@cache
def assets() -> dict[str, Asset]:
    """Every static file by its path below ``static``."""
    found = {}
    for path in sorted((_HERE / "static").rglob("*")):
        if path.suffix in _TYPES:
            body = path.read_bytes()
            etag = hashlib.sha256(body).hexdigest()[:16]
            name = path.relative_to(_HERE / "static").as_posix()
            found[name] = Asset(body, _gzip(body), _TYPES[path.suffix], etag)
    return found


@cache
def assets_version() -> str:
    """Changes with any static file, so that a URL with it never grows stale."""
    said = "".join(f"{name} {asset.etag}\n" for name, asset in assets().items())
    return hashlib.sha256(said.encode()).hexdigest()[:12]


async def asset(request: web.Request) -> web.StreamResponse:
    """``GET /assets/VERSION/NAME``: for ever under the present version, else to be asked again."""
    held = assets().get(request.match_info["name"])
    if held is None:
        return web.Response(status=404, text="no such file", headers=HEADERS)
    lasting = request.match_info["version"] == assets_version()
    headers = {
        **HEADERS,
        "ETag": f'"{held.etag}"',
        "Cache-Control": "public, max-age=31536000, immutable" if lasting else "no-cache",
        "Vary": "Accept-Encoding",
    }
    if any(each.value in (held.etag, "*") for each in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    body = held.body
    if "gzip" in request.headers.get("Accept-Encoding", "") and len(held.packed) < len(body):
        body, headers["Content-Encoding"] = held.packed, "gzip"
    return web.Response(body=body, content_type=held.content_type, charset="utf-8", headers=headers)


@cache
def templates() -> Environment:
    """The templates, escaping always; an unknown name is an error."""
    env = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    for name in ("usd", "exact_usd", "count", "short", "ms", "us", "moment", "minute", "iso",
                 "number"):  # fmt: skip
        env.filters[name] = getattr(figures, name)
    env.globals.update(
        percent=figures.percent,
        ago=figures.ago,
        unknown=figures.UNKNOWN,
        zero=Decimal(0),
        assets=f"/assets/{assets_version()}",
        ranges=RANGES,
        filter_names=FILTERS,
    )
    return env


def html(template: str, context: Mapping[str, Any], status: int = 200) -> web.Response:
    """A page that is nobody else's: it is neither stored by caches nor framed."""
    text = templates().get_template(template).render(context)
    response = web.Response(
        text=text,
        status=status,
        content_type="text/html",
        charset="utf-8",
        headers={**HEADERS, "Cache-Control": "no-store"},
    )
    if len(text) > _SMALL:
        response.enable_compression()
    return response


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()
