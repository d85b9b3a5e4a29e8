"""The report page: one HTML file with everything in it, which needs no network."""

import base64
import datetime
import hashlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from vgg_jax import __version__
from vgg_jax.console.errors import UserError
from vgg_jax.page import evaluated, landscape, reading, sections, study
from vgg_jax.page.finding import Found, find
from vgg_jax.page.groups import group
from vgg_jax.page.html import Html, element, join, notes
from vgg_jax.page.plots import Plots

MADE_BY = "vgg_jax report"
_HERE = Path(__file__).parent
_NO_SCRIPT = "Without JavaScript the figures are not drawn; everything else is here."


def report(
    runs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], out: str | os.PathLike[str] = "report.html"
) -> Path:
    """Write a page about run directories, tables' folders and landscape studies; returns its path.

    Args:
      runs: a directory, or several. What each holds is found out; what is damaged or missing is said on the page.
      out: the HTML file; an earlier report there is replaced.

    Raises: UserError when a directory holds nothing to show, the file cannot be written, or plotly is not installed.
    """
    script = plotly()
    given = [runs] if isinstance(runs, (str, os.PathLike)) else list(runs)
    if not given:
        raise UserError("report needs the directory of a run, a table or a landscape study")
    file = Path(out)
    _check(file)
    text = page(find([Path(path) for path in given]), script)
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text, encoding="utf-8", errors="replace")
    partial.replace(file)
    return file


def plotly() -> str:
    """plotly's JavaScript.

    Raises: UserError when it is not installed.
    """
    found = importlib.util.find_spec("plotly")
    for place in (found and found.submodule_search_locations) or []:
        file = Path(place, "package_data", "plotly.min.js")
        if file.is_file():
            return file.read_text(encoding="utf-8")
    raise UserError(
        "the report needs plotly: pip install plotly, or pip install -e '.[report]' in the checkout of vgg_jax"
    )


def _check(file: Path) -> None:
    """Raises: UserError when a file must not be replaced, or has no folder."""
    if file.is_dir():
        raise UserError(f"{file} is a directory; --out takes the file to write, as --out {file / 'report.html'}")
    if not file.parent.is_dir():
        raise UserError(f"{file.parent} is not there; make it, or give another --out")
    if file.exists():
        with open(file, "rb") as old:
            if MADE_BY.encode() not in old.read(1000):
                raise UserError(f"{file} is there and is no report; give another --out")


def page(found: Found, plotly_script: str) -> str:
    """The page as text."""
    plots = Plots()
    studies = [study.read(folder) for folder in found.studies]
    inside = _sections(found, studies, plots)
    title = ", ".join(found.names[:4]) + (f" and {len(found.names) - 4} more" if len(found.names) > 4 else "")
    now = datetime.datetime.now(datetime.UTC).strftime("%d %B %Y, %H:%M UTC")
    lines = [f"{run.name}: {line}" for run in found.runs for line in run.missing]
    lines += [f"{s.folder.resolve().name}: {line}" for s in studies for line in s.missing]
    body = [
        element("h1", title),
        element("p", f"{MADE_BY}, version {__version__}, {now}", class_="said"),
        element("noscript", element("p", _NO_SCRIPT)),
        notes(lines),
        element("nav", [element("a", name, href=f"#{_anchor(name)}") for name in inside]),
        [element("section", element("h2", name), content, id=_anchor(name)) for name, content in inside.items()],
    ]
    return _document(title, join(body), plots.json(), plotly_script)


def _sections(found: Found, studies: Sequence[study.StudyFiles], plots: Plots) -> dict[str, Html]:
    runs, groups = found.runs, group(found.runs, found.rows)
    given = {
        "Accuracy": sections.accuracies(groups, plots),
        "What differs": sections.differences(groups),
        **{_title(one, studies): landscape.section(one, plots) for one in studies},
        "Curves": sections.curves(runs, groups, plots),
        "Evaluation": evaluated.evaluations(runs, plots),
        "Time": sections.time(runs, plots),
        "Origin": sections.origin(_origins(found, studies)),
    }
    return {name: content for name, content in given.items() if content}


def _title(one: study.StudyFiles, studies: Sequence[study.StudyFiles]) -> str:
    return "Landscape" if len(studies) == 1 else f"Landscape of {one.folder}"


def _is_of(run: reading.RunFiles, studies: Sequence[study.StudyFiles]) -> bool:
    return any(run.folder.is_relative_to(one.folder) for one in studies)


def _origins(found: Found, studies: Sequence[study.StudyFiles]) -> Sequence[sections.Origin]:
    """Of every run; the runs of a study are made again by the study's command."""
    runs: list[sections.Origin] = [(run.name, run.config, run.facts) for run in found.runs if not _is_of(run, studies)]
    return runs + [
        (one.folder.resolve().name, one.config, reading.read_object(one.folder / "run.json", [])) for one in studies
    ]


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _document(title: str, body: Html, data: Html, plotly_script: str) -> str:
    """The whole file. Its policy runs these two scripts alone and loads nothing, even if markup slipped in."""
    own = (_HERE / "page.js").read_text(encoding="utf-8")
    scripts = [_inside(script) for script in (plotly_script, own)]
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    policy = f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {hashes}"
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="generator", content=MADE_BY),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html((_HERE / "page.css").read_text(encoding="utf-8"))),
    ]
    tail = [element("script", data, type="application/json", id="page-data"), *(element("script", s) for s in scripts)]
    whole = element("html", element("head", head), element("body", body, tail), lang="en")
    return f"<!doctype html>\n{whole}\n"


def _inside(script: str) -> Html:
    """A script that can stand in a page: line ends as the browser reads them, since its hash counts."""
    if "</script" in script.lower() or "<!--" in script:
        raise ValueError("this script cannot stand in a page")
    return Html(script.replace("\r\n", "\n"))
