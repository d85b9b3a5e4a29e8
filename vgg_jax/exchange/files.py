"""Read somebody's weight file: arrays by name, never code."""

import contextlib
import hashlib
import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vgg_jax.console import errors
from vgg_jax.console.errors import UserError
from vgg_jax.exchange.outgoing import need
from vgg_jax.torch.names import Arrays

_PYTORCH = (".pt", ".pth", ".bin")
_IN_A_FOLDER = ("model.safetensors", "model.pt", "pytorch_model.bin")
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # keys under which a checkpoint has its state dict
_PREFIXES = ("module.", "net.", "model.", "_orig_mod.")


class Found(NamedTuple):
    """What a file or folder holds.

    Attributes:
      file: the weight file.
      sha256: of the file.
      arrays: by name, float32; without counters and the prefixes that wrappers add.
      described: config.json of the folder; {} without one.
    """

    file: Path
    sha256: str
    arrays: Arrays
    described: dict[str, Any]


def read(source: Path) -> Found:
    """Read a .safetensors or PyTorch file, or a folder with one and perhaps a config.json.

    float16 and bfloat16 are widened, float64 is rounded to float32.

    Raises: UserError for whatever is not such a file, wants to run code, or has numbers that are not finite.
    """
    file, described = (_inside(source), _described(source)) if source.is_dir() else (source, {})
    if not file.is_file():
        raise UserError(f"there is no file {file}")
    if file.suffix not in (".safetensors", *_PYTORCH):
        raise UserError(f"{file} is no weight file: its name must end in .safetensors, .pt, .pth or .bin")
    if not file.stat().st_size:
        raise UserError(f"{file} is empty")
    found = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pytorch(file)
    if not found:
        raise UserError(f"{file} holds no arrays")
    with open(file, "rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    arrays = {n: _float32(file, n, array) for n, array in found.items() if not n.endswith("num_batches_tracked")}
    if not arrays:
        raise UserError(f"{file} holds no arrays but counters of batches")
    return Found(file, sha256, _without_prefixes(arrays), described)


def _inside(folder: Path) -> Path:
    there = [folder / name for name in _IN_A_FOLDER if (folder / name).is_file()]
    if not there:
        raise UserError(f"{folder} is a folder without {' or '.join(_IN_A_FOLDER)}")
    return there[0]


def _described(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.exists():
        return {}
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(described := json.loads(file.read_text()), dict):
            return described
    raise UserError(f"{file} is damaged: it is not a JSON object")


def _read_safetensors(file: Path) -> Arrays:
    deserialize: Any = need("safetensors").deserialize
    try:
        tensors = deserialize(file.read_bytes())
    except Exception as error:  # its own class, without a public name in some versions
        if errors.is_of_the_machine(error):
            raise
        raise UserError(f"{file} is no whole safetensors file ({str(error)[:120]})") from None
    arrays = {}
    for name, tensor in tensors:
        if tensor["dtype"] not in _TYPES:
            raise UserError(f"{file}: {name} is of type {tensor['dtype']}, not of floating point")
        array = np.frombuffer(tensor["data"], _TYPES[tensor["dtype"]]).reshape(tensor["shape"])
        if tensor["dtype"] == "BF16":  # the upper half of a float32
            array = (array.astype(np.uint32) << 16).view(np.float32)
        arrays[name] = array
    return arrays


def _read_pytorch(file: Path) -> Arrays:
    torch: Any = need("torch")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats
            tensors = _state_dict(torch.load(file, map_location="cpu", weights_only=True))
        arrays = {name: _numpy(tensor) for name, tensor in (tensors or {}).items()}
    except Exception as error:  # of many classes
        if errors.is_of_the_machine(error):
            raise
        if isinstance(error, pickle.UnpicklingError) and _is_pickle(file):
            raise UserError(
                f"{file} is refused: it is a pickle that asks for more than arrays, which can run code; "
                "its owner can save the state_dict() alone, best as safetensors"
            ) from None
        raise UserError(f"{file} is no whole PyTorch file ({' '.join(str(error).split())[:120]})") from None
    if tensors is None:
        raise UserError(f"{file} holds no state dict (a dict of arrays by name)")
    return arrays


def _is_pickle(file: Path) -> bool:
    """Whether a file begins as a pickle does, bare or in a zip file."""
    with open(file, "rb") as opened:
        return opened.read(1) in (b"\x80", b"P")


def _numpy(tensor: Any) -> np.ndarray:
    kept = tensor.detach().to_dense() if tensor.layout != tensor.new_empty(0).layout else tensor.detach()
    return (kept.float() if "bfloat16" in str(kept.dtype) else kept).numpy()


def _state_dict(held: Any) -> Mapping[str, Any] | None:
    if not isinstance(held, Mapping):
        return None
    if held and all(isinstance(name, str) and hasattr(value, "detach") for name, value in held.items()):
        return held
    return next((found for key in _WRAPPERS if (found := _state_dict(held.get(key))) is not None), None)


def _float32(file: Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "f":
        raise UserError(f"{file}: {name} is of type {array.dtype}, not of floating point")
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if not np.isfinite(single).all():
        raise UserError(f"{file}: {name} has numbers that are not finite")
    if name.endswith("running_var") and single.min(initial=0) < 0:
        raise UserError(f"{file}: {name} has a negative variance")
    return single


def _without_prefixes(arrays: Arrays) -> Arrays:
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in arrays)), None):
        arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return arrays
