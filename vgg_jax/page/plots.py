"""The figures of a page: places for them in its HTML, and their data for its script."""

from pathlib import Path
from typing import Any

from vgg_jax.page.html import Html, element, png_address, script_json

LARGEST = 2_000_000  # bytes of an embedded picture


class Plots:
    """Collects figures.

    Attributes:
      runs: for every run, where its points are: {"epoch": [...], "step": [...], "minutes": [...]}.
      drops: learning-rate drops: {"run": its number, "key": its entry in the legend, "at": the number of the point}.
    """

    def __init__(self) -> None:
        self._figures: list[dict[str, Any]] = []
        self.runs: list[dict[str, list[float]]] = []
        self.drops: list[dict[str, int]] = []

    def add(self, figure: dict[str, Any], said: str, curves: bool = False) -> Html:
        """The place of a figure, with its caption; curves get their x from `runs`, and share their zoom."""
        self._figures.append(figure | {"curves": curves})
        height = f"min-height:{figure['layout']['height']}px"
        place = element(
            "div", class_="plot", data_plot=len(self._figures) - 1, role="img", aria_label=said, style=height
        )
        return element("figure", element("figcaption", said), place)

    def json(self) -> Html:
        return script_json({"figures": self._figures, "runs": self.runs, "drops": self.drops})


def picture(file: Path, said: str) -> Html | None:
    """A PNG file as part of the page; None where there is none, or it is no PNG, or too large."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    if not content.startswith(b"\x89PNG\r\n") or len(content) > LARGEST:
        return None
    return element("figure", element("figcaption", said), element("img", src=png_address(content), alt=said))
