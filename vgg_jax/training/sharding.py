"""Devices: where a run's arrays live.

JAX does the work: `jit` over a mesh with one axis, `data`, splits the batch and replicates everything else;
`shard_map` over that mesh is for devices that work independently (micro-batches, evaluation).
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vgg_jax.console.errors import UserError
from vgg_jax.settings.config import micro_batches
from vgg_jax.settings.fields import Config

_ALL, _SPLIT = PartitionSpec(), PartitionSpec("data")  # a copy on every device; the leading axis split over them


class Placement(NamedTuple):
    """Where a run's arrays live: on a mesh of devices, or on a single device (None), which needs no sharding."""

    mesh: Mesh | None

    @property
    def size(self) -> int:
        """Number of devices."""
        return self.mesh.size if self.mesh else 1

    def jit(self, function: Callable[..., Any], **options: Any) -> Any:
        """`jax.jit` with its results replicated on all devices."""
        more = {"out_shardings": NamedSharding(self.mesh, _ALL)} if self.mesh else {}
        return jax.jit(function, **more, **options)

    def replicate(self, tree: Any) -> Any:
        """Copy a tree of arrays, which every process holds, to every device."""
        return jax.device_put(tree) if self.mesh is None else jax.tree.map(lambda x: self._place(x, _ALL), tree)

    def split(self, batch: Any) -> Any:
        """In a compiled function: split the leading axis of a batch's arrays over the devices."""
        return jax.lax.with_sharding_constraint(batch, NamedSharding(self.mesh, _SPLIT)) if self.mesh else batch

    def forward(self, function: Callable[[Any, jax.Array], jax.Array]) -> Callable[[Any, Any], jax.Array]:
        """The same function(variables, NumPy images [B, ...]), with the images split over the devices."""
        if self.mesh is None:
            return function
        compiled = self.jit(self._each(function, (_ALL, _SPLIT), _SPLIT))
        return lambda variables, images: compiled(variables, self._place(images, _SPLIT))

    def mean(self, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """In a compiled function: (shared, parts split along the leading axis) -> mean of function over devices."""
        if self.mesh is None:
            return function
        return self._each(lambda shared, part: jax.lax.pmean(function(shared, part), "data"), (_ALL, _SPLIT), _ALL)

    def _each(self, function: Callable[..., Any], split: Any, joined: Any) -> Callable[..., Any]:
        """Run function on each device's own part. Inside jit, XLA would gather a sharded array to scan over it."""
        return jax.shard_map(function, mesh=self.mesh, in_specs=split, out_specs=joined, check_vma=False)

    def _place(self, x: Any, spec: PartitionSpec) -> jax.Array:
        assert self.mesh is not None
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, NamedSharding(self.mesh, spec), lambda index: host[index])


ONE_DEVICE = Placement(None)


def place(config: Config) -> Placement:
    """The devices that config.train asks for.

    Raises: UserError when there are fewer, or the batch does not divide among them.
    """
    found, wanted, batch = devices(), config.train.devices, config.train.batch_size
    n, alone = wanted or len(found), jax.process_count() == 1
    if n > len(found):
        raise UserError(f"config.train.devices={n}, but JAX finds {len(found)}; 0 uses all of them")
    if n < len(found) and not alone:
        raise UserError(f"config.train.devices={n}: several processes use all their {len(found)} devices; set it to 0")
    if batch % n:
        fits = max(1, round(batch / n)) * n
        raise UserError(
            f"config.train.batch_size={batch} does not divide among {n} devices; the nearest that fits is {fits}"
            + (" with --config.train.micro_batch=0" if config.train.micro_batch else "")
            + (", or take fewer with --config.train.devices" if alone else "")
        )
    if (parts := micro_batches(config)) > 1 and parts % n:
        raise UserError(
            f"config.train.micro_batch={config.train.micro_batch} makes {parts} micro-batches, which do not divide "
            f"among {n} devices; "
            + (f"take {math.gcd(parts, n)} with --config.train.devices, or " if alone else "")
            + "set micro_batch to 0"
        )
    return Placement(Mesh(np.array(found[:n]), ("data",)) if n > 1 else None)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_cores(configs: Iterable[Config], processes: int | None = None) -> None:
    """Before JAX starts, make CPU cores devices, as many as divide the micro-batches of every config.

    Each core then has its own micro-batches and waits for the others once a step, not at each operation.
    Several processes, counted by the flags, Slurm or Open MPI, share the micro-batches.
    """
    processes = processes or int(os.environ.get("SLURM_NTASKS") or os.environ.get("OMPI_COMM_WORLD_SIZE") or 1)
    parts = max(1, math.gcd(*map(micro_batches, configs)) // processes)
    n = max(n for n in range(1, cores() + 1) if parts % n == 0)
    by_flag = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if n > 1 and not by_flag and "JAX_NUM_CPU_DEVICES" not in os.environ:  # unless the user has chosen
        with contextlib.suppress(RuntimeError):  # a config file has used JAX already: it keeps one device
            jax.config.update("jax_num_cpu_devices", n)


def devices() -> list[Any]:
    """The devices of all processes together.

    Raises: UserError when JAX_PLATFORMS asks for a platform that JAX cannot find.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # an assertion where the CUDA plugin is not installed
        asked = os.environ.get("JAX_PLATFORMS", "")
        if not asked:
            raise
        why = f" ({error})" if str(error) else ""
        raise UserError(
            f"JAX_PLATFORMS={asked}, but JAX finds no such device{why}; unset it, or see python -m vgg_jax.doctor"
        ) from None
