"""Where a run was made: versions, git commit and machine."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

from vgg_jax import __version__
from vgg_jax.runs import numerics
from vgg_jax.settings.fields import Config
from vgg_jax.training import sharding

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def describe() -> dict[str, Any]:
    """The versions, git commit and device that a run is made with."""
    here = Path(__file__).parent
    ours = ["ls-files", "--error-unmatch", Path(__file__).name]  # not a repository in which we are only installed
    try:
        commit = (_git(here, *ours) and _git(here, "describe", "--always", "--dirty", "--exclude=*")) or None
    except (OSError, subprocess.SubprocessError):
        commit = None
    return {
        "vgg_jax": __version__,
        "sealed": True,  # every checkpoint has a seal, unlike in runs of earlier versions
        "commit": commit,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "jax_settings": numerics.settings(),
        "device": device(),
    }


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10).stdout.strip()


def device() -> str:
    """The kind of device a run trains on: 'NVIDIA H100' or 'cpu (2 cores)'."""
    first, cores = sharding.devices()[0], sharding.cores()
    return first.device_kind + (f" ({cores} core{'s' if cores > 1 else ''})" if first.platform == "cpu" else "")


def devices(config: Config) -> str:
    """'8 x NVIDIA H100', or '8 x NVIDIA H100, 2 processes' if there are several."""
    count, processes = sharding.place(config).size, jax.process_count()
    return (f"{count} x " if count > 1 else "") + device() + (f", {processes} processes" if processes > 1 else "")
