"""How a command ends: a user's mistake in one line, a bug with its traceback."""

import contextlib
import errno
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

# Conventional exit codes: 2 for a mistake, 128 + signal number for a stop; and one of our own.
MISTAKE, LOST = 2, 4
MACHINE = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO,
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE,
}  # fmt: skip
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"  # in XLA's message
LESS_MEMORY = "the device has not enough memory; give a smaller --config.train.micro_batch or batch_size"


class UserError(Exception):
    """What is wrong and what to do about it, in one line."""


class RunFailed(UserError):
    """What ends one run but not those beside it: it diverged, is held by another process, has lost its checkpoints."""


class Stopped(Exception):
    """The run was asked to stop and has saved; `signal_number` says by what."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number


class Lost(Exception):
    """Another process of the run is gone."""


_in_a_command = False


def run(main: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> None:
    """Call main(argv), turn what ends it into a line on stderr and an exit code."""
    global _in_a_command
    _in_a_command = True
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # tfds and Orbax chat at lower levels
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no mistake
    try:
        main(sys.argv[1:] if argv is None else argv)
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
        if OUT_OF_MEMORY not in str(error):
            raise
        _end(f"error: {LESS_MEMORY}", MISTAKE)
    except OSError as error:
        if error.errno not in MACHINE:
            raise
        _end(f"error: {error.strerror}: {error.filename or 'while writing'}", MISTAKE)


def is_of_the_machine(error: Exception) -> bool:
    """Whether it says nothing of the file that was being read: memory, the disk, rights, the installation."""
    if isinstance(error, OSError):
        return error.errno in (errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE)
    return isinstance(error, (MemoryError, ImportError))


def broken_installation(error: ImportError, packages: str) -> str:
    """What is missing, and the command that brings it."""
    return f"the installation is broken ({error}); pip install --upgrade {packages}"


def give_up(line: str) -> NoReturn:
    """End a command at once, though threads would go on; from Python, only raise a UserError."""
    if _in_a_command:
        leave(f"error: {line}", MISTAKE)
    raise UserError(line) from None


def leave(line: str, code: int) -> NoReturn:
    """End this process at once, whatever its threads still do."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        print(line, end="\n" if line else "", file=sys.stderr, flush=True)
    os._exit(code)


def _end(line: str, code: int) -> None:
    print(" ".join(line.split()), file=sys.stderr, flush=True)
    sys.exit(code)
