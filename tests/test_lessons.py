"""The lessons are committed with their pictures, and run from an empty folder."""

import ast
import importlib
import os

import nbformat
import pytest
from nbclient import NotebookClient
from small import ALL, ROOT

LESSONS = sorted((ROOT / "docs" / "lessons").glob("*.ipynb"))


def code_cells(file):
    return [cell for cell in nbformat.read(file, 4).cells if cell.cell_type == "code"]


def test_there_are_three_and_each_is_named_in_the_docs():
    assert [file.stem[0] for file in LESSONS] == ["1", "2", "3"]
    assert all(file.name in (ROOT / "docs" / "lessons" / "README.md").read_text() for file in LESSONS)


@pytest.mark.parametrize("file", LESSONS, ids=lambda file: file.stem)
def test_a_lesson_is_committed_as_it_ran(file):
    """Every cell in order, with pictures, without errors or paths of the machine, small enough to open in a browser."""
    cells = code_cells(file)
    outputs = [output for cell in cells for output in cell.outputs]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert not any(output.output_type == "error" for output in outputs)
    assert str(ROOT) not in file.read_text() and "/tmp/" not in file.read_text() and file.stat().st_size < 500_000


@pytest.mark.parametrize("file", LESSONS, ids=lambda file: file.stem)
def test_what_a_lesson_imports_is_there(file):
    nodes = [node for cell in code_cells(file) for node in ast.walk(ast.parse(cell.source))]
    taken = [(node.module, name.name) for node in nodes if isinstance(node, ast.ImportFrom) for name in node.names]
    ours = [(module, name) for module, name in taken if module.split(".")[0] == "vgg_jax"]
    assert ours or any(isinstance(node, ast.Import) and node.names[0].name == "vgg_jax" for node in nodes)
    for module, name in ours:
        assert hasattr(importlib.import_module(module), name) or importlib.import_module(f"{module}.{name}"), name


@pytest.mark.skipif(not ALL, reason="make test-all runs them")
@pytest.mark.parametrize("file", LESSONS, ids=lambda file: file.stem)
def test_a_lesson_runs_in_an_empty_folder(file, tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("VGG_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    book = nbformat.read(file, 4)
    (tmp_path / "empty").mkdir()
    NotebookClient(book, timeout=600, resources={"metadata": {"path": str(tmp_path / "empty")}}).execute()
    said = "".join(output.get("text", "") for cell in book.cells for output in cell.get("outputs", []))
    assert "accuracy" in said or "of the test pictures right" in said
