"""Write a checkpoint for others: a folder of files."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vgg_jax.console.errors import UserError
from vgg_jax.exchange import onnx_graph, stablehlo
from vgg_jax.exchange.card import card
from vgg_jax.exchange.outgoing import Outgoing, describe, layers, need, state

Files = dict[str, bytes]


def export(out: Outgoing, to: str, folder: Path) -> Path:
    """Write the files of a format, a key of `WAYS`, to a folder, which is made; returns it.

    An earlier export of the same format is replaced.

    Raises: UserError for another format, one whose package is missing or that has no float16, or a folder that cannot
      be made or holds other files; nothing is written then.
    """
    if to not in WAYS:
        raise UserError(f"no format {to!r}; one of {', '.join(WAYS)}")
    if out.half and to not in HALF:
        raise UserError(f"--half is for {' and '.join(HALF)}, not for {to}")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give another --out")
    files = WAYS[to](out) | {"config.json": describe(out).encode()}
    if others := sorted(file.name for file in folder.glob("[!.]*") if file.name not in files):  # .git may be there
        raise UserError(f"{folder} holds something else ({others[0]}); give another --out, or empty it")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        partial = folder / f".{name}.partial"
        partial.write_bytes(content)
        partial.replace(folder / name)
    return folder


def _safetensors(out: Outgoing) -> Files:
    save: Any = need("safetensors.numpy").save
    layout = {"format": "flax" if out.is_own else "pt"}  # which the Hub shows
    return {"model.safetensors": save(state(out), layout), "README.md": card(out).encode()}


def _pytorch(out: Outgoing) -> Files:
    layers(out)  # refuses networks of one's own
    torch: Any = need("torch")
    file = io.BytesIO()
    torch.save({name: torch.from_numpy(array) for name, array in state(out).items()}, file)
    return {"model.pt": file.getvalue()}


HALF = ("safetensors", "pytorch")  # which can hold float16

WAYS: dict[str, Callable[[Outgoing], Files]] = {
    "safetensors": _safetensors,
    "pytorch": _pytorch,
    "onnx": lambda out: {"model.onnx": onnx_graph.graph(out)},
    "stablehlo": lambda out: {"model.stablehlo": stablehlo.program(out)},
}
