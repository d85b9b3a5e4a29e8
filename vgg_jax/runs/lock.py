"""The lock of a run directory: one process trains in it at a time, also on a file system that several hosts share."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from vgg_jax.console.errors import Busy
from vgg_jax.training import processes

BEAT = 10.0  # seconds between two signs of life of the process that holds a lock: it touches the file
PATIENCE = 35.0  # seconds without one after which the process is taken for dead


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Lock a run directory.

    The system's own lock ends with its process, even by a crash. Not every file system has one that other hosts see, so
    the file `.lock` also says who holds it, and is touched as long as that is so.

    Raises: Busy when another process holds it.
    """
    if not processes.is_first():  # process 0 holds it for all
        yield
        return
    name, since = workdir / ".lock", datetime.now(UTC).isoformat(timespec="seconds")
    own = {"host": socket.gethostname(), "process": os.getpid(), "since": since}
    with open(name, "a+") as file:
        alone = _try(file, workdir)
        holder = _read(name)
        if holder and not (alone and holder.get("host") == own["host"]):
            _watch(workdir, holder)
        _write(file, json.dumps(own))
        with _beating(name):
            try:
                yield
            finally:
                _write(file, "")


def _try(file: TextIO, workdir: Path) -> bool:
    """Take the system's lock; False where there is none."""
    import fcntl  # not on Windows, where `entry.make` refuses

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        raise Busy(f"another process is training in {workdir}; give another --workdir") from None
    except OSError:
        return False


def _read(name: Path) -> dict[str, Any]:
    """Who holds the lock by the file's word: {} for nobody."""
    text = name.read_text(errors="replace")
    with contextlib.suppress(ValueError):
        found = json.loads(text or "{}")
        if isinstance(found, dict):
            return found
    return {"host": "an unknown host"}


def _watch(workdir: Path, holder: dict[str, Any]) -> None:
    """Return when the holder has given the lock back, or no sign of life for a while. No host's clock is compared.

    Raises: Busy at the first sign.
    """
    name = workdir / ".lock"
    who = f"process {holder.get('process')} on {holder.get('host')}"
    print(f"{workdir} is locked by {who}; watching for at most {PATIENCE:.0f} s whether it lives", flush=True)
    first, end = _touched(name), time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(BEAT / 10)
        if not _read(name):
            return
        if _touched(name) != first:
            raise Busy(f"{who} is training in {workdir} since {holder.get('since')}; give another --workdir")


def _touched(name: Path) -> int:
    """When, as the file system says; opened anew each time, since NFS remembers the time otherwise."""
    with open(name) as file:
        return os.fstat(file.fileno()).st_mtime_ns


@contextlib.contextmanager
def _beating(name: Path) -> Iterator[None]:
    """Touch the file every BEAT seconds, from a thread: compiling takes minutes."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(name)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _write(file: TextIO, text: str) -> None:
    with contextlib.suppress(OSError):  # on a full disk the system's lock still holds
        file.truncate(0)
        file.write(text)
        file.flush()
