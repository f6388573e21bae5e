"""The page that a person sees: one file, fenced in by headers to what it does itself."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from fastapi.responses import HTMLResponse


def search_page() -> HTMLResponse:
    """Return the page by which a collection is searched in a browser."""
    text = files("fastness.serving").joinpath("pages/search.html").read_text(encoding="utf-8")
    return HTMLResponse(text, headers=_fences(text))


def _fences(page: str) -> dict[str, str]:
    """Return headers by which a page may run its own script and ask its own service, and do nothing else."""
    policy = {
        "default-src": "'none'",
        "style-src": _own(page, "style"),
        "script-src": _own(page, "script"),
        "img-src": "blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",  # a newer service may have a newer page
    }


def _own(page: str, tag: str) -> str:
    """Return how a policy names the one element of a kind that a page has."""
    inside = page.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
    return f"'sha256-{b64encode(sha256(inside.encode()).digest()).decode()}'"
