"""Check this machine: versions, devices, CUDA against the driver, data, writable paths, one training step.

python -m vgg_jax.doctor
"""

import contextlib
import importlib.metadata
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vgg_jax import __version__
from vgg_jax.console import errors, flags
from vgg_jax.console.errors import UserError
from vgg_jax.datasets import cifar, load
from vgg_jax.runs import entry, origin
from vgg_jax.runs.loop import fit
from vgg_jax.settings import cache, config as configs, files
from vgg_jax.training import sharding

# CUDA major version -> (the pip package of JAX's plugin, the oldest driver that runs it).
CUDA = {"12": ("jax-cuda12-plugin", 525), "13": ("jax-cuda13-plugin", 580)}
ENOUGH_BYTES = 2**30  # of free space; four checkpoints of the largest network and the logs of a long run need less


class Finding(NamedTuple):
    """One line of the report; `remedy` says what to do, and is empty if nothing is wrong."""

    what: str
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """All checks, each after those that it depends on."""
    yield from versions()
    if refused := list(xla_flags()):  # XLA would abort this process, too
        yield from refused
        return
    environment, driver, plugins = os.environ, nvidia_driver(), installed_plugins()
    try:
        kinds = [f"{device.platform} {device.device_kind}" for device in sharding.devices()]
    except (UserError, RuntimeError) as error:
        kinds = []
        yield Finding(f"JAX has no device: {error}", "unset JAX_PLATFORMS, or fix the platform that it names")
    for kind in sorted(set(kinds)):
        yield Finding(f"JAX computes on {kinds.count(kind)} x {kind}; {sharding.cores()} CPU cores")
    on_gpu = any(not kind.startswith(("cpu", "tpu")) for kind in kinds)
    yield from cuda(driver, plugins, importlib.metadata.version("jaxlib"), on_gpu, environment)
    if on_gpu:
        yield preallocation(environment)
    yield from data_sets(cifar.find_root(""))
    for name, folder in (("cache (VGG_JAX_CACHE)", cache.directory()), ("runs", Path("checkpoints"))):
        yield writable(name, folder)
    if kinds:
        yield smoke(len(kinds))


def versions() -> Iterator[Finding]:
    found = {name: importlib.metadata.version(name) for name in origin.PACKAGES}
    listed = ", ".join(f"{name} {version}" for name, version in found.items())
    yield Finding(f"vgg_jax {__version__}, Python {platform.python_version()}, {listed}")
    if found["jax"] != found["jaxlib"]:
        yield Finding("jax and jaxlib have different versions", "pip install --upgrade jax jaxlib")


def xla_flags() -> Iterator[Finding]:
    """A flag in XLA_FLAGS that this XLA does not know, and at which it aborts every process."""
    if not os.environ.get("XLA_FLAGS"):
        return
    start = [sys.executable, "-c", "import jax; jax.devices()"]
    told = subprocess.run(start, capture_output=True, text=True)
    if told.returncode and (unknown := re.search(r"Unknown flags? in XLA_FLAGS: (\S+)", told.stderr)):
        yield Finding(f"XLA does not know {unknown[1]} in XLA_FLAGS and aborts", "unset XLA_FLAGS, or remove the flag")


def nvidia_driver() -> str:
    """The driver's version, e.g. '550.54.15'; "" without driver or GPU."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        return (re.findall(r"^\d+[\d.]*", told) or [""])[0]
    return ""


def installed_plugins() -> dict[str, str]:
    """{"12": version} of JAX's CUDA plugins."""
    found = {}
    for major, (package, _) in CUDA.items():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[major] = importlib.metadata.version(package)
    return found


def cuda(
    driver: str, plugins: Mapping[str, str], jaxlib: str, on_gpu: bool, environment: Mapping[str, str]
) -> Iterator[Finding]:
    """Whether the CUDA extra matches the driver."""
    runs = [major for major, (_, oldest) in CUDA.items() if driver and int(driver.split(".")[0]) >= oldest]
    install = f"pip install -U 'jax[cuda{runs[-1]}]=={jaxlib}'" if runs else "install a driver of version 525 or newer"
    if not driver:
        if plugins and not on_gpu:
            yield Finding("JAX's CUDA plugin is installed, but nvidia-smi finds no driver or GPU", "install the driver")
        return
    yield Finding(
        f"NVIDIA driver {driver}, plugins: {', '.join(f'CUDA {m} {v}' for m, v in plugins.items()) or 'none'}"
    )
    if not plugins:
        yield Finding("there is a GPU, but JAX without CUDA is installed", install)
    if len(plugins) > 1:
        yield Finding("two CUDA plugins are installed", "pip uninstall one of them with its jax-cudaNN-pjrt")
    for major, version in plugins.items():
        if major not in runs and not on_gpu:  # a newer CUDA's compatibility package serves older drivers, too
            yield Finding(f"driver {driver} is too old for CUDA {major} (needs {CUDA[major][1]})", install)
        if version != jaxlib:
            yield Finding(
                f"the CUDA plugin is {version}, jaxlib {jaxlib}", f"pip install -U 'jax[cuda{major}]=={jaxlib}'"
            )
    if plugins and not on_gpu:
        hiding = [f"{k}={environment[k]}" for k in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES") if k in environment]
        yield Finding(
            "JAX does not see the GPU", f"unset {', '.join(hiding)}" if hiding else f"{install}, and see above"
        )


def preallocation(environment: Mapping[str, str]) -> Finding:
    """The share of the GPU's memory that JAX allocates at its start."""
    if environment.get("XLA_PYTHON_CLIENT_PREALLOCATE") in ("false", "False", "0"):
        return Finding("JAX takes GPU memory as it needs it (XLA_PYTHON_CLIENT_PREALLOCATE)")
    older, newer = environment.get("XLA_PYTHON_CLIENT_MEM_FRACTION"), environment.get("XLA_CLIENT_MEM_FRACTION")
    try:
        share = float(newer or older or "0.75")
    except ValueError:
        return Finding(
            f"the share of the GPU's memory is no number: {newer or older}", "set XLA_CLIENT_MEM_FRACTION=0.3"
        )
    return Finding(
        f"JAX takes {share:.0%} of the GPU's memory at its start; where others share the GPU, set "
        "XLA_CLIENT_MEM_FRACTION=0.3 or XLA_PYTHON_CLIENT_PREALLOCATE=false"
    )


def data_sets(root: Path) -> Iterator[Finding]:
    """Which CIFAR data are there; other sources need no data, or a folder that only the user knows."""
    for name in cifar.SOURCES:
        try:
            prepared = cifar.find_prepared(name, root)
        except (UserError, OSError) as error:
            yield Finding(f"{name}: {error}", "give another --config.data.data_dir")
            continue
        cached = len(list(cache.directory().glob(f"{name}-*.npz")))
        where = f"prepared in {prepared}" if prepared else f"none in {root}; the first start downloads or prepares it"
        yield Finding(f"{name}: {where}" + (f", {cached} decoded in the cache" if cached else ""))


def writable(name: str, folder: Path) -> Finding:
    """Whether a file can be written in folder, or where it would be made, and how much space is free."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
    except OSError as error:
        return Finding(f"{name}: cannot write to {there} ({error.strerror})", "make it writable, or use another")
    free = shutil.disk_usage(there).free
    remedy = "" if free >= ENOUGH_BYTES else "free some space, or use another"
    return Finding(f"{name}: {folder} can be written, {free / 2**30:.1f} GiB free", remedy)


def smoke(devices: int) -> Finding:
    """One training step of a small network on digits, as a complete run with evaluation and saving."""
    n = str(8 * devices)
    fields = {"data.train_size": n, "data.validation_size": "0", "train.batch_size": n, "train.epochs": "1"}
    light = {"model.stages": "light", "model.stage_dropout": "()"}
    begun = time.monotonic()
    try:
        config = configs.load(files.SHIPPED / "quickstart.py", fields | light)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            splits = load.load(config)
            entry.open_run(Path(folder), config, splits)
            with contextlib.redirect_stderr(io.StringIO()):
                fit(config, splits, Path(folder))
    except Exception as error:  # any error is a finding
        return Finding(f"a training step fails: {type(error).__name__}: {str(error)[:300]}", "see the lines above")
    return Finding(f"a training step, evaluated and saved, in {time.monotonic() - begun:.1f} s with its compilation")


def main(argv: Sequence[str]) -> None:
    if flags.parse(argv, __doc__, {})[1]:
        raise UserError("doctor takes no --config fields")
    wrong = 0
    for finding in examine():
        wrong += bool(finding.remedy)
        print(f"{'WRONG' if finding.remedy else 'ok':<6} {' '.join(finding.what.split())}", flush=True)
        if finding.remedy:
            print(f"       -> {finding.remedy}")
    if wrong:
        raise UserError(f"{wrong} of these would stop or slow a run")
    print("nothing is wrong")


if __name__ == "__main__":
    errors.run(main)
