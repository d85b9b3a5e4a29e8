"""The documents: every link inside the repository leads to a file, and to a heading in it if it names one."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("results/**/*.md"), *ROOT.glob("vgg_jax/**/*.md")]
)


def headings(text: str) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.M)}


def broken(file: Path) -> list[str]:
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", re.sub(r"`[^`]*`", "", file.read_text()))
    found = []
    for link in (a or b for a, b in links):
        name, _, anchor = link.partition("#")
        target = file.parent / name if name else file
        if not re.match(r"\w+:", link) and (
            not target.exists() or (anchor and anchor not in headings(target.read_text()))
        ):
            found.append(link)
    return found


@pytest.mark.parametrize("file", DOCS, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere(file):
    assert not broken(file)


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "there.md").write_text("## A heading, with `code`\n```\n# no heading\n```\n")
    links = ["there.md#a-heading-with-code", "https://example.org/x#y", "there.md#no-heading", "gone.md", "#nor-this"]
    (tmp_path / "here.md").write_text("\n".join(f"[x]({link})" for link in links))
    assert broken(tmp_path / "here.md") == links[2:]
