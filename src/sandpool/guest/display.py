"""What a notebook shows of a value: a bundle of representations by MIME type, all of them text.

Binary types are in base64.  A bundle fits into one frame: what is too large for it is left out, and
its `text/plain` says so.
"""

from __future__ import annotations

import base64
import json
import sys
import traceback
from typing import Any, Dict, Tuple, cast

from . import frames

ROOM = frames.MAX_CONTROL - 16 * 1024
"""The largest bundle as JSON, in bytes."""

_METHODS = (
    ("text/html", "_repr_html_"),
    ("text/markdown", "_repr_markdown_"),
    ("text/latex", "_repr_latex_"),
    ("image/svg+xml", "_repr_svg_"),
    ("image/png", "_repr_png_"),
    ("image/jpeg", "_repr_jpeg_"),
    ("application/pdf", "_repr_pdf_"),
    ("application/json", "_repr_json_"),
    ("application/javascript", "_repr_javascript_"),
)
_CANARY = "_ipython_canary_method_should_not_exist_"
"""An object that has even this attribute answers to every name, and is asked for nothing else."""


def bundle(value: object) -> dict[str, str]:
    """Return the representations of `value`, the plain one always among them.

    What its `__repr__` raises gets out; what other methods raise is printed, their type left out.
    """
    found = _representations(value)
    if "text/plain" not in found:
        found["text/plain"] = repr(value)
    return fit(found)


def fit(found: dict[str, str]) -> dict[str, str]:
    """Return as much of a bundle as has room in one frame, its smallest parts first."""
    sizes = {kind: len(json.dumps({kind: text})) for kind, text in found.items()}
    room = ROOM
    if sum(sizes.values()) <= room:
        return found
    plain = shorten(found.get("text/plain", ""), room // 2)
    room -= len(json.dumps(plain))
    fitting = {"text/plain": plain}
    for kind in sorted(sizes, key=sizes.__getitem__):
        if kind == "text/plain":
            continue
        room -= sizes[kind]
        if room >= 0:
            fitting[kind] = found[kind]
        else:
            size = sizes[kind] // 1024
            fitting["text/plain"] += f"\n[{kind[:_LONGEST_KIND]} left out: {size} KiB are too much]"
    return fitting


_LONGEST_KIND = 100


def shorten(text: str, room: int) -> str:
    """Return `text`, its middle left out where it would need more than `room` bytes as JSON."""
    if len(text) <= room and len(json.dumps(text)) <= room:
        return text
    # One character needs at most twelve bytes: two surrogates, escaped.
    half = room // 24
    count = len(text) - 2 * half
    return f"{text[:half]}\n[... {count} characters left out ...]\n{text[-half:]}"


def _representations(value: object) -> dict[str, str]:
    if isinstance(value, type) or _method(value, _CANARY) is not None:
        return {}
    found: dict[str, str] = {}
    whole = _call(value, "_repr_mimebundle_", include=None, exclude=None)
    if isinstance(whole, dict):
        for kind, data in cast("Dict[Any, Any]", whole).items():
            _add(found, kind, data)
    for kind, name in _METHODS:
        if kind not in found:
            _add(found, kind, _call(value, name))
    return found


def _method(value: object, name: str) -> Any:
    try:
        method = getattr(value, name, None)
    except Exception:  # noqa: BLE001 (a tenant's `__getattr__`)
        return None
    return method if callable(method) else None


def _call(value: object, name: str, **arguments: object) -> object:
    """Return what a method gives, without the metadata that may come with it."""
    method = _method(value, name)
    if method is None:
        return None
    try:
        data: object = method(**arguments)
    except NotImplementedError:
        return None
    except Exception:  # noqa: BLE001 (a tenant's method; the other representations still count)
        traceback.print_exc(file=sys.stderr)
        return None
    if isinstance(data, tuple) and len(cast("Tuple[Any, ...]", data)) == 2:
        return cast("Tuple[Any, Any]", data)[0]
    return cast("object", data)


def _add(found: dict[str, str], kind: object, data: object) -> None:
    """Put `data` into a bundle, as text; what has no form as text is left out."""
    if not isinstance(kind, str) or data is None:
        return
    if isinstance(data, str):
        found[kind] = data
    elif isinstance(data, (bytes, bytearray)):
        found[kind] = base64.b64encode(data).decode("ascii")
    elif "json" in kind:
        try:
            found[kind] = json.dumps(data)
        except (TypeError, ValueError, RecursionError):
            return
