"""HTML whose text is escaped unless it was made here, and JSON that is safe inside a page.

Names of classes, values of configs and the like come from files that a stranger may have written.
"""

import base64
import html
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

_EMPTY = {"img", "input", "meta"}  # elements without an end tag


NONE = "-"  # a table's cell for what there is not


class Html(str):
    """Text that is HTML already."""


def element(tag: str, *children: Any, **attributes: Any) -> Html:
    """<tag attributes>children</tag>. Children and attributes are escaped unless they are Html.

    A trailing underscore of an attribute is dropped and others become hyphens: class_, data_plot. An attribute that is
    None or False is left out, and one that is True has no value.
    """
    given = "".join(
        _attribute(name, value) for name, value in attributes.items() if value is not None and value is not False
    )
    if tag in _EMPTY:
        return Html(f"<{tag}{given}>")
    return Html(f"<{tag}{given}>{join(children)}</{tag}>")


def _attribute(name: str, value: Any) -> str:
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(value)}"'


def escape(value: Any) -> Html:
    return value if isinstance(value, Html) else Html(html.escape(str(value), quote=True))


def join(children: Iterable[Any]) -> Html:
    """Children one after the other; a list among them is joined too, and None is left out."""
    parts = [join(c) if isinstance(c, (list, tuple)) else escape(c) for c in children if c is not None]
    return Html("".join(parts))


def png_address(content: bytes) -> Html:
    """A PNG file as an address that an <img> may have: data:image/png;base64,..."""
    return Html("data:image/png;base64," + base64.b64encode(content).decode())


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], caption: Any = None) -> Html:
    """A table that scrolls sideways where it is too wide; the first cell of each row is its heading."""
    lines = [
        element("tr", element("th", first, scope="row"), [element("td", cell) for cell in rest])
        for first, *rest in rows
    ]
    top = element("thead", element("tr", [element("th", name, scope="col") for name in head])) if head else None
    said = element("caption", caption) if caption else None
    return element("div", element("table", said, top, element("tbody", lines)), class_="wide", tabindex="0")


def command(line: str) -> Html:
    """A command to copy."""
    return element("code", line, class_="command")


def notes(lines: Sequence[str]) -> Html | None:
    """Lines that say what is missing."""
    return element("ul", [element("li", line) for line in lines], class_="missing") if lines else None


def script_json(value: Any) -> Html:
    """value as JSON for a <script> element: nothing in it can end the element, and NaN and infinities become null."""
    text = json.dumps(finite(value), allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Html(text)


def finite(value: Any) -> Any:
    """value with None for every float that is not finite."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def label(text: str) -> str:
    """Text for plotly, which takes <b>, <a href> and the like in names and hover texts for markup."""
    return html.escape(text, quote=False)


def labels(names: Sequence[str]) -> list[str]:
    """The labels of an axis; plotly would put two of the same name on one place, so later ones get a number."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(label(f"{name} ({seen[name]})" if seen[name] > 1 else name))
    return found
