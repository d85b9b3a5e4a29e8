"""All fields explained, for `--help` and docs/fields.md, which `python -m vgg_jax.settings.help` writes."""

from pathlib import Path
from typing import Any

from vgg_jax.settings.check import needs
from vgg_jax.settings.fields import FIELDS, Field


def listing() -> str:
    """Every field with its default, meaning and choices, one per line."""
    return "\n".join(f"  --config.{name}={_text(field.default)}  {_explained(field)}" for name, field in FIELDS.items())


def markdown() -> str:
    """The same listing as Markdown, for docs/fields.md."""
    rows = [f"| `{name}` | `{_text(field.default)}` | {_explained(field)} |" for name, field in FIELDS.items()]
    head = [
        "# Every field of a config",
        "",
        "Written by `python -m vgg_jax.settings.help`. A recipe changes a few of them; the command line can change",
        "any, e.g. `--config.train.epochs=30`.",
        "The fields of `landscape` are only in the configs of `python -m vgg_jax.landscape`. A group `own` may hold",
        "the settings of your own network or data.",
        "",
        "| field | default | meaning |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *rows, ""])


def _text(value: Any) -> str:
    return str(value) if value != "" else '""'


def _explained(field: Field) -> str:
    """Meaning, where it does something, and what it may be."""
    said = field.meaning + (f"; only with {needs(field)}" if field.only else "")
    if field.choices:
        return f"{said} ({', '.join(field.choices)})"
    if field.low == -float("inf"):
        return said
    return f"{said} [{_number(field.low)} to {_number(field.high)}]"


def _number(value: float) -> str:
    """1048576 -> 1,048,576; 1e-12 and 0.999 as they are"""
    return f"{int(value):,}" if abs(value) < 1e10 and value == int(value) else f"{value:g}"


if __name__ == "__main__":
    (Path(__file__).parent.parent.parent / "docs" / "fields.md").write_text(markdown())
