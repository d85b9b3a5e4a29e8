"""Installation: the wheel works in any current directory, and a broken installation says what is missing."""

import os
import subprocess
import sys
import types
import venv

import numpy as np
import pytest
from PIL import Image
from small import ROOT, SMALL, flags

from vgg_jax import doctor
from vgg_jax.console.errors import UserError
from vgg_jax.datasets import archive
from vgg_jax.settings import config as configs

OVERLAY = """
from configs.default import get_config as default_config


def get_config():
    config = default_config()
    config.train.epochs = 7
    return config
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The Python of a fresh environment with the wheel; the wheel's dependencies come from this environment."""
    root = tmp_path_factory.mktemp("wheel")
    copy = root / "source"
    copy.mkdir()
    tracked = ["vgg_jax", "configs", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"]
    subprocess.run(["cp", "-r", *(str(ROOT / name) for name in tracked), str(copy)], check=True)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(root), str(copy)]
    done = subprocess.run(build, capture_output=True, text=True)
    if done.returncode and "No matching distribution found for setuptools" in done.stderr:
        pytest.skip("building a wheel needs a package index")
    assert done.returncode == 0, done.stderr
    (wheel,) = root.glob("*.whl")
    venv.create(root / "venv", symlinks=True, with_pip=False)
    python = root / "venv/bin/python"
    (site,) = (root / "venv/lib").glob("python*/site-packages")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(site)], check=True)
    borrowed = [entry for entry in sys.path if entry.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join(borrowed) + "\n")  # without their .pth files (editable installs)
    return python


def test_the_wheel_works_beside_another_package_called_configs(installed, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/__init__.py").write_text("raise SystemExit('a stranger was imported')")
    (tmp_path / "mine.py").write_text(OVERLAY)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "picture.png")

    def ends(*command):
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "VGG_JAX_CACHE": str(tmp_path / "cache")}
        environment["XLA_FLAGS"] = os.environ["XLA_FLAGS"]
        command = [str(installed), "-m", *command]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    small = flags(SMALL | {"train.epochs": "1"})
    assert "final: test accuracy" in ends("vgg_jax.main", "--config", "quickstart", "--workdir", "run", *small)
    assert "on 360 test images" in ends("vgg_jax.evaluate", "--workdir", "run")
    assert "picture.png: " in ends("vgg_jax.predict", "--workdir", "run", "picture.png")
    assert "parameters" in ends("vgg_jax.describe", "--config", "mine.py")


def test_a_config_starts_from_the_shipped_defaults_whatever_is_called_configs(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/other.py").write_text(OVERLAY.replace("7", "8"))
    (tmp_path / "mine.py").write_text("from configs.other import get_config")
    monkeypatch.syspath_prepend(str(tmp_path))
    foreign = types.ModuleType("configs")
    monkeypatch.setitem(sys.modules, "configs", foreign)
    assert configs.load(tmp_path / "mine.py").train.epochs == 8
    assert sys.modules["configs"] is foreign and "configs.other" not in sys.modules


def test_a_config_named_as_a_shipped_one_says_which_was_taken(tmp_path, capsys):
    (tmp_path / "bn.py").write_text(OVERLAY)
    assert configs.load(tmp_path / "bn.py").train.epochs == 7
    assert f"using {tmp_path / 'bn.py'}, not the shipped config" in capsys.readouterr().err


def test_a_missing_dependency_is_no_damaged_data(monkeypatch):
    monkeypatch.setitem(sys.modules, "array_record", None)
    monkeypatch.setitem(sys.modules, "array_record.python", None)
    monkeypatch.setitem(sys.modules, "array_record.python.array_record_data_source", None)
    with pytest.raises(UserError, match=r"installation is broken .*pip install --upgrade tensorflow-datasets"):
        archive.import_tfds()


def test_the_doctor_names_an_unknown_xla_flag(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_of_the_future=1")
    (finding,) = doctor.xla_flags()
    assert "--xla_of_the_future" in finding.what and "unset XLA_FLAGS" in finding.remedy
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    assert not list(doctor.xla_flags())
