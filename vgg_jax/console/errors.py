"""How a command ends: a user's mistake in one line, a bug with its traceback."""

import contextlib
import difflib
import errno
import io
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

# Exit codes: by convention 2 for a user's mistake and 128 + signal number for a stop; 4 is our own.
MISTAKE, LOST = 2, 4
# Errors of disk, path or limits on open files, which a user can put right.
MACHINE = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO,
    errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EMFILE,
    errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY,
}  # fmt: skip
# What a wrong path leads to. Other errors with a number are the machine's; Pillow's and gzip's own have none.
_OF_A_PATH = (
    None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ELOOP, errno.ENAMETOOLONG,
)  # fmt: skip
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"  # in XLA's message
# Parts of XLA's messages, and what helps. JAX takes three quarters of a GPU; a second process finds only the rest.
_SHARED = "XLA_PYTHON_CLIENT_PREALLOCATE=false for each process, if several share the GPU"
_OF_A_DEVICE = {
    OUT_OF_MEMORY: "the device has not enough memory; what helps: in training, a smaller --config.train.micro_batch or "
    f"batch_size; {_SHARED}",
    "DNN library initialization failed": f"cuDNN does not start; what helps: {_SHARED}; python -m vgg_jax.doctor",
}


class UserError(Exception):
    """One line that says what is wrong and what to do about it."""


def suggest(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """'; did you mean ...?' with the known name that is most like it, or "" where none is like it enough."""
    near = difflib.get_close_matches(name, known, 1, likeness)
    return f"; did you mean {near[0]}?" if near else ""


class RunFailed(UserError):
    """An error of one run that does not stop other runs: divergence, lost checkpoints."""


class Busy(RunFailed):
    """Another process is training in the run's directory."""


class Stopped(Exception):
    """The run was asked to stop, by the signal `signal_number`, and has saved."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number


class Lost(Exception):
    """Another process of the run is gone."""


_in_a_command = False


def run(main: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> None:
    """Call main(argv); turn the exception that ends it into one line on stderr and an exit code."""
    global _in_a_command
    _in_a_command = True
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # tfds and Orbax log a lot at lower levels
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for names that the terminal cannot show
    try:
        main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except UserError as error:
        _end(f"error: {error}", MISTAKE)
    except Stopped as stop:
        _end(str(stop), 128 + stop.signal_number)
    except Lost as error:
        _end(f"error: {error}", LOST)
    except KeyboardInterrupt:
        _end("interrupted", 130)
    except ImportError as error:
        if (error.name or "vgg_jax").split(".")[0] == "vgg_jax":
            raise
        _end(f"error: {broken_installation(error, '-e . (in the checkout of vgg_jax)')}", MISTAKE)
    except MemoryError as error:
        _end(f"error: this machine has not enough memory{f' ({error})' if str(error) else ''}", MISTAKE)
    except BrokenPipeError:  # the reader of our output went away (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except RuntimeError as error:
        if not (line := of_the_device(error)):
            raise
        _end(f"error: {line}", MISTAKE)
    except OSError as error:
        if error.errno not in MACHINE:
            raise
        _end(f"error: {error.strerror}: {error.filename or 'while writing'}", MISTAKE)


def of_the_device(error: Exception) -> str:
    """The line for an error of XLA's that a user can put right, else ""."""
    return next((line for words, line in _OF_A_DEVICE.items() if words in str(error)), "")


def is_of_the_machine(error: Exception) -> bool:
    """Whether the machine is at fault (memory, disk, permissions, installation), not the file that was being read."""
    if isinstance(error, OSError):
        return error.errno not in _OF_A_PATH
    return isinstance(error, (MemoryError, ImportError))


def broken_installation(error: Exception, packages: str) -> str:
    """An error line that says what is missing and which command installs it."""
    return f"the installation is broken ({error}); pip install --upgrade {packages}"


def give_up(line: str) -> NoReturn:
    """End a command at once, even if threads still run; called from Python, only raise a UserError."""
    if _in_a_command:
        leave(f"error: {line}", MISTAKE)
    raise UserError(line) from None


def leave(line: str, code: int) -> NoReturn:
    """End this process at once, even if threads still run."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        print(line, end="\n" if line else "", file=sys.stderr, flush=True)
    os._exit(code)


def _end(line: str, code: int) -> None:
    print(" ".join(line.split()), file=sys.stderr, flush=True)
    sys.exit(code)
