"""The plan of the code: files at the top are commands, folders are rooms, and a room imports only rooms to its left."""

import ast

import pytest
from small import ROOT

PACKAGE = ROOT / "vgg_jax"
ROOMS = (
    "console", "settings", "datasets", "model", "training", "runs", "torch", "exchange", "evaluation", "tables",
    "landscape", "page", "demo_page",
)  # fmt: skip
BESIDE = {"tables", "landscape"}  # neither imports the other
FILES = sorted(PACKAGE.rglob("*.py"))
BESIDE_IT = sorted(file for folder in ("benchmarks", "examples") for file in (ROOT / folder).glob("*.py"))


def imported(file):
    """Names of the package's modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "vgg_jax")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vgg_jax":
            whole = node.module.count(".") > 1  # vgg_jax.room.file
            yield from [node.module] if whole else (f"{node.module}.{alias.name}" for alias in node.names)


def wrong(file, names):
    """The names among these that the file must not import."""
    room = file.relative_to(PACKAGE).parts[0]
    if room == "__main__.py":
        return [name for name in names if name != "vgg_jax.cli.main"]
    if room == "__init__.py" or room.endswith(".py"):
        return [name for name in names if name.split(".")[1] not in (*ROOMS, "__version__")]
    left = set(ROOMS[: ROOMS.index(room) + 1]) - (BESIDE - {room} if room in BESIDE else set())
    return [name for name in names if name.split(".")[1] not in left | {"__version__"}]


def test_every_folder_is_a_room():
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    assert folders == set(ROOMS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_imports_only_to_its_left_and_nobody_imports_a_command(file):
    assert wrong(file, imported(file)) == []


def test_the_rule_finds_what_breaks_it():
    model = PACKAGE / "model" / "vgg.py"
    assert wrong(model, ["vgg_jax.datasets.load", "vgg_jax.model.layers"]) == []
    assert wrong(model, ["vgg_jax.training.step", "vgg_jax.main", "vgg_jax.tables.rows"]) == [
        "vgg_jax.training.step", "vgg_jax.main", "vgg_jax.tables.rows",
    ]  # fmt: skip
    assert wrong(PACKAGE / "tables" / "table.py", ["vgg_jax.landscape.study"]) == ["vgg_jax.landscape.study"]
    assert wrong(PACKAGE / "page" / "study.py", ["vgg_jax.landscape.study", "vgg_jax.tables.table"]) == []
    assert wrong(PACKAGE / "main.py", ["vgg_jax.evaluate"]) == ["vgg_jax.evaluate"]


def test_no_file_and_no_function_is_too_long_to_read():
    assert len(BESIDE_IT) > 5
    for file in FILES + BESIDE_IT:
        text = file.read_text()
        assert len(text.splitlines()) <= 250, file
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno - node.lineno < 40, f"{file}: {node.name}"
