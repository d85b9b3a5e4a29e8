"""Settings of JAX, outside any config, that change what a run draws or how precisely it computes.

Not among them is what changes only rounding: versions, XLA's flags, the number of devices.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from vgg_jax.console.errors import UserError

NAMES = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_random_seed_offset",
)


def settings() -> dict[str, Any]:
    """The settings of this process, as far as this JAX has them."""
    return {name: getattr(jax.config, name) for name in NAMES if hasattr(jax.config, name)}


def check(workdir: Path, recorded: Mapping[str, Any]) -> None:
    """Raises: UserError naming the settings that are not those of the run's start; older runs have recorded none."""
    now = settings()
    differing = {name: there for name, there in recorded.items() if name in now and now[name] != there}
    if differing:
        listed = ", ".join(f"{name} ({there!r} there, {now[name]!r} now)" for name, there in differing.items())
        remedies = " and ".join(_remedy(name, there) for name, there in differing.items())
        raise UserError(
            f"{workdir} holds a run under other settings of JAX, which change its numbers: {listed}; "
            f"{remedies}, or give another --workdir"
        )


def _remedy(name: str, value: Any) -> str:
    environment = f"unset {name.upper()}" if value is None else f"set {name.upper()}={value}"
    return f"{environment} (in Python: jax.config.update({name!r}, {value!r}))"
