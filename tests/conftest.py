"""Strict settings for every test: eight fake CPU devices, no silent broadcasting, a separate cache."""

import atexit
import os
import shutil
import tempfile
from importlib.metadata import version

import pytest

# The programs are small and compilation is most of a test's time, so: no optimisation, and with JAX 0.10 the older code
# generator for fusions, which takes a third of the time. Later XLA versions do not know its flag and would abort.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
if "VGG_JAX_SHIPPED" not in os.environ:
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
    if version("jaxlib").startswith("0.10."):
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["VGG_JAX_CACHE"] = tempfile.mkdtemp(prefix="vgg_jax_test_")
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["VGG_JAX_CACHE"] + "/xla"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # many tests compile the same small programs
os.environ["TRACKIO_DIR"] = os.environ["VGG_JAX_CACHE"] + "/trackio"
os.environ.pop("TFDS_DATA_DIR", None)

import jax
from matplotlib.figure import Figure
from small import ALL, ROOT, SHIPPED, SMALL, flags, plain_convolution, touch

from vgg_jax import main
from vgg_jax.console import errors
from vgg_jax.model import layers

pytest_plugins = ["browsing"]  # its fixtures
jax.config.update("jax_numpy_rank_promotion", "raise")
atexit.register(shutil.rmtree, os.environ["VGG_JAX_CACHE"], ignore_errors=True)


def make_quick(patch, module=None):
    """A convolution that compiles in half the time, and no pictures, unless the test module is about them."""
    if not (ALL or SHIPPED or getattr(module, "OUR_CONVOLUTION", False)):
        patch.setattr(layers, "conv_cpu", plain_convolution)
    if not (ALL or getattr(module, "PICTURES", False)):
        patch.setattr(Figure, "savefig", touch)


@pytest.fixture(scope="module", autouse=True)
def quick(request):
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch, request.module)
        yield


@pytest.fixture(autouse=True)
def no_command(monkeypatch):
    """A test that has run a command does not let those after it end the process."""
    monkeypatch.setattr(errors, "_in_a_command", False)


@pytest.fixture
def ends(capsys):
    """ends(main, argv, words) checks for code 2 and one error line with all the words; returns the line."""

    def check(main, argv, *words, alone=True):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            errors.run(main, argv)
        *before, line = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2 and line.startswith("error: ")
        assert not (before if alone else [earlier for earlier in before if "Traceback" in earlier])
        assert not [word for word in words if word not in line], line
        return line

    return check


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A small run of two epochs with its last two states saved; tests that damage it copy it first."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    fields = flags(SMALL | {"train.save_minutes": "0"})
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        main.main(["--config", str(ROOT / "configs" / "quickstart.py"), "--workdir", str(workdir), *fields])
    return workdir
