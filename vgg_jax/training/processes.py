"""Processes of a run: joining, agreeing, and ending when one is lost, by means of `jax.distributed`."""

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from vgg_jax.console import errors
from vgg_jax.console.errors import UserError
from vgg_jax.training import sharding

HEARTBEAT_SECONDS = 30  # a process that is silent for so long counts as lost
WAIT_SECONDS = 3600  # the longest wait for process 0 to prepare the data
_LOST = "another process of this run is lost; start the same command again on all of them, and the run goes on"
_LAUNCHED = {  # set for each of several processes
    "JOB_COMPLETION_INDEX", "OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS", "SLURM_JOB_ID", "TPU_WORKER_HOSTNAMES",
}  # fmt: skip
Result = TypeVar("Result")
_BROKEN_LINK = (
    "Gloo", "NCCL", "closed by peer", "UNAVAILABLE", "coordination", "heartbeat", "Connection reset", "barrier",
)  # fmt: skip


def is_first() -> bool:
    """Whether this process writes the logs: process 0, or the only one."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Wait until every process has called this with the same name; each name works once."""
    if jax.process_count() > 1:  # given all process ids, Orbax asks the coordinator; collectives would time out
        everyone = set(range(jax.process_count()))
        ocp.multihost.sync_global_processes(f"vgg_jax_{name}", timeout=WAIT_SECONDS, processes=everyone)


def in_turn(name: str, work: Callable[[], Result]) -> Result:
    """Run work in process 0 first, so that the others find the files it made; returns its result."""
    if is_first():
        result = work()
        wait_for_all(name)
        return result
    wait_for_all(name)
    return work()


def agree(*numbers: int) -> list[int]:
    """Each number's maximum over all processes, so that all of them decide the same."""
    if jax.process_count() == 1:
        return list(numbers)
    return [int(n) for n in multihost_utils.process_allgather(np.array(numbers, np.int32)).max(0)]


@contextlib.contextmanager
def join(coordinator: str | None, count: int | None, index: int | None) -> Iterator[None]:
    """Join the processes of a run, which the flags describe or JAX detects (Slurm, Open MPI, TPU).

    A process that fails leaves without waiting, and the others end within a minute, with code 4.

    Raises: UserError when the processes cannot be joined.
    """
    _join(coordinator, count, index)
    sharding.devices()
    if jax.process_count() == 1:
        yield
        return
    on_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: _leave(errors.Lost(_LOST)))
    # A lost process is found by JAX's heartbeats, in a thread of C++ that ends this process by abort().
    ctypes.CDLL(None).signal(signal.SIGABRT, on_abort)
    try:
        with contextlib.nullcontext() if is_first() else _silence():
            yield
    except errors.Stopped:  # all stop together
        raise
    except (jax.errors.JaxRuntimeError, TimeoutError) as error:  # TimeoutError: Orbax waited for the others in a save
        lost = any(word in str(error) for word in _BROKEN_LINK)
        _leave(errors.Lost(f"{_LOST} ({str(error)[:200]})") if lost else error)
    except BaseException as error:
        _leave(error)
    finally:
        signal.signal(signal.SIGABRT, signal.SIG_DFL)  # on_abort is freed when this function returns


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def _join(coordinator: str | None, count: int | None, index: int | None) -> None:
    asked = not (coordinator is None and count is None and index is None)
    if not asked and "1" in (os.environ.get("SLURM_NTASKS"), os.environ.get("OMPI_COMM_WORLD_SIZE")):
        return  # the launcher started only this process: JAX would give it just one GPU
    try:
        if hasattr(jax.config, "jax_enable_preemption_service"):  # the loop has its own handlers for SIGTERM
            jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            cluster_detection_method="deactivate" if asked else None,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except ValueError as error:
        if asked or "OMPI_COMM_WORLD_SIZE" in os.environ:  # of a release of Open MPI that JAX does not know
            raise UserError(
                f"{error} Give --coordinator=HOST:PORT, --num_processes and --process_id to each process"
            ) from None
    except Exception as error:  # JAX takes every pod of Kubernetes for one of a job; that raises all kinds of errors
        alone = "KUBERNETES_SERVICE_HOST" in os.environ and not _LAUNCHED & os.environ.keys()
        if asked or not (alone or "before any JAX calls" in str(error)):
            raise UserError(f"cannot join the other processes: {error}") from None


def _leave(error: BaseException) -> None:
    """End this process with the error's line and exit code, without JAX's shutdown, which waits for the others."""
    code, sys.stderr = 1, sys.__stderr__
    try:
        errors.run(lambda _: _throw(error), [])
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    errors.leave("", code if isinstance(code, int) else 1)


def _throw(error: BaseException) -> None:
    raise error
