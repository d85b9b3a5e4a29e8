"""Config files: the shipped ones and the user's own."""

import contextlib
import hashlib
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from vgg_jax.console import flags
from vgg_jax.console.errors import UserError
from vgg_jax.settings import code

# configs/ is inside the package when installed from a wheel, beside it in a checkout.
_PACKAGE = Path(__file__).parent.parent
SHIPPED = next(p for p in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if p.is_dir())


def run(path: str | Path) -> ConfigDict:
    """The config from a file's `get_config()`, with the file's own functions, if any, in the group `code`.

    Raises: UserError when there is no such file, or it returns no config.
    """
    file = find(path)
    namesake = SHIPPED / file.name
    if namesake.is_file() and not namesake.samefile(file):
        print(f"using {file.absolute()}, not the shipped config with the same name", file=sys.stderr)
    module, config = _call(path, file, "get_config")
    if not isinstance(config, (ConfigDict, FrozenConfigDict)):
        raise UserError(f"get_config() of {path} returns no ConfigDict; see configs/default.py")
    if own := code.register(module, file, hashlib.sha256(file.read_bytes()).hexdigest()):
        config = ConfigDict(config.to_dict() | {"code": own})
    return config


def sweep(path: str | Path) -> list[dict[str, Any]]:
    """The overrides that a file's `sweep()` yields: [{"optimizer.learning_rate": 0.05}, ...].

    Raises: UserError when there are none, or they are no overrides.
    """
    _, found = _call(path, find(path), "sweep", list)
    if not found or not all(isinstance(one, dict) and all(isinstance(field, str) for field in one) for one in found):
        raise UserError(f'sweep() of {path} has to yield overrides, as {{"optimizer.learning_rate": 0.05}}')
    return found


def names() -> list[str]:
    """Of the shipped configs."""
    return sorted(file.stem for file in SHIPPED.glob("*.py") if not file.stem.startswith("_"))


def find(path: str | Path) -> Path:
    """The file of a config's name. Raises: UserError when there is none."""
    file = flags.path(os.fspath(path))
    if not os.path.isfile(file):  # never raises, whatever the name
        if str(file.parent) in (".", "configs"):
            file = SHIPPED / (file.name.removesuffix(".py") + ".py")
        if not os.path.isfile(file):
            raise UserError(f"no config file {path}; shipped ones are {', '.join(names())}")
    return file


def _call(
    path: str | Path, file: Path, name: str, then: Callable[[Any], Any] = lambda made: made
) -> tuple[types.ModuleType, Any]:
    """(the file's module, what its function of that name returns, after `then`)."""
    spec = importlib.util.spec_from_file_location(f"config_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    try:
        with _configs_are_shipped():
            spec.loader.exec_module(module)
            function = getattr(module, name, None)
            made = then(function()) if function else None
    except Exception as error:
        raise UserError(f"{path} cannot be run: {code.blame(error, file.name)}") from None
    if not function:
        see = "configs/default.py" if name == "get_config" else "docs/recipes.md"
        raise UserError(f"{path} has no {name}(); see {see}")
    return module, made


@contextlib.contextmanager
def _configs_are_shipped() -> Iterator[None]:
    """Within it, `import configs.default` finds the shipped file, even if another package is called configs.

    Other modules of configs are found in folders called configs on the path, as usual.
    """

    def forget() -> dict[str, types.ModuleType]:
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "configs"}

    others = forget()
    package = types.ModuleType("configs")
    package.__path__ = [str(SHIPPED), *(os.path.join(folder, "configs") for folder in sys.path)]
    sys.modules["configs"] = package
    try:
        yield
    finally:
        forget()
        sys.modules.update(others)
