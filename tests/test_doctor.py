"""The doctor finds what is wrong, says what to do, and reports nothing on a sound machine."""

import os
import subprocess
import sys

import pytest
from small import ROOT, SMALL, flags

from vgg_jax import doctor
from vgg_jax.console import errors


def test_a_healthy_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(doctor, "nvidia_driver", lambda: "")
    monkeypatch.setattr(doctor, "installed_plugins", dict)
    doctor.main([])
    out = capsys.readouterr().out
    assert "WRONG" not in out and "jaxlib" in out and "8 x cpu" in out
    assert f"cifar10: none in {tmp_path}" in out and "runs: checkpoints can be written" in out
    assert "a training step, evaluated and saved" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("driver", "plugins", "on_gpu", "environment", "words"), [
    ("580.82", {"13": "0.10.2"}, True, {}, []),
    ("550.54", {"12": "0.10.2"}, True, {}, []),
    ("", {}, False, {}, []),
    ("550.54", {}, False, {}, ["JAX without CUDA", "[cuda12]"]),
    ("590.1", {}, False, {}, ["JAX without CUDA", "[cuda13]"]),
    ("550.54", {"13": "0.10.2"}, False, {}, ["too old for CUDA 13", "[cuda12]", "does not see the GPU"]),
    ("470.1", {"12": "0.10.2"}, False, {}, ["too old for CUDA 12", "install a driver"]),
    ("550.54", {"13": "0.10.2"}, True, {}, []),
    ("580.82", {"13": "0.10.1"}, True, {}, ["plugin is 0.10.1, jaxlib 0.10.2", "jax[cuda13]==0.10.2"]),
    ("580.82", {"12": "0.10.2", "13": "0.10.2"}, True, {}, ["two CUDA plugins"]),
    ("580.82", {"13": "0.10.2"}, False, {"CUDA_VISIBLE_DEVICES": ""}, ["unset CUDA_VISIBLE_DEVICES="]),
    ("", {"12": "0.10.2"}, False, {}, ["no driver or GPU", "install the driver"]),
    ("", {"12": "0.10.2"}, True, {}, []),  # a container without nvidia-smi
])  # fmt: skip
def test_cuda_against_the_driver(driver, plugins, on_gpu, environment, words):
    wrong = [f for f in doctor.cuda(driver, plugins, "0.10.2", on_gpu, environment) if f.remedy]
    told = " ".join(f"{f.what} {f.remedy}" for f in wrong)
    assert bool(wrong) == bool(words)
    assert not [word for word in words if word not in told], told


def test_the_share_of_memory():
    assert "75%" in doctor.preallocation({}).what
    assert "30%" in doctor.preallocation({"XLA_CLIENT_MEM_FRACTION": "0.3"}).what
    assert "40%" in doctor.preallocation({"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.4"}).what
    assert "no number: 0,3" in doctor.preallocation({"XLA_CLIENT_MEM_FRACTION": "0,3"}).what
    assert "as it needs it" in doctor.preallocation({"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}).what
    assert "75%" in doctor.preallocation({"XLA_PYTHON_CLIENT_PREALLOCATE": "FALSE"}).what  # JAX does not know it


@pytest.mark.parametrize(("told", "version"), [("550.54.15\n550.54.15\n", "550.54.15"), ("[N/A]\n", ""), ("", "")])
def test_the_driver_as_nvidia_smi_tells_it(told, version, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, told))
    assert doctor.nvidia_driver() == version


def test_what_is_wrong_is_said_and_ends_with_code_2(tmp_path, monkeypatch, capsys):
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    (tmp_path / "cifar10" / "3.0.2" / "dataset_info.json").write_text("{}")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(doctor, "nvidia_driver", lambda: "")
    monkeypatch.setattr(doctor, "installed_plugins", dict)
    monkeypatch.setattr(doctor, "fit", lambda *_: 1 / 0)
    monkeypatch.setattr(doctor, "ENOUGH_BYTES", 2**70)
    with pytest.raises(SystemExit) as ended:
        errors.run(doctor.main, [])
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and err.startswith("error: 4 of these")
    assert "needs TensorFlow" in out and "a training step fails: ZeroDivisionError" in out and out.count("->") == 4


def test_a_platform_that_is_not_there():
    """The doctor reports it as a finding, training as one line."""
    for command in (["vgg_jax.doctor"], ["vgg_jax.main", "--config", "configs/quickstart.py", *flags(SMALL)]):
        environment = os.environ | {"JAX_PLATFORMS": "nosuch", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", *command]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert "JAX_PLATFORMS=nosuch" in done.stdout + done.stderr.splitlines()[-1]
