"""Many devices and many processes train as one device does."""

import contextlib
import dataclasses
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import ALL, PYTHONPATH, QUICK, ROOT, SMALL, TIMING, config, dataset, flags, free_port, pmap
from test_resume import contents, saved_steps

from vgg_jax import main
from vgg_jax.console import errors
from vgg_jax.console.errors import UserError
from vgg_jax.datasets.batches import epoch_order, make_get_batch
from vgg_jax.runs import run as runs, seal
from vgg_jax.runs.log import read
from vgg_jax.training import processes, sharding
from vgg_jax.training.step import init_state, make_recipe, make_train_chunk, make_train_step

STEPS, BATCH = 20, 16
# Normalised to x / 64 - 2, exact in float32; otherwise the rounding depends on how a program fuses the operations.
DATA = dataclasses.replace(dataset(n=STEPS * BATCH, classes=10), mean=(128 / 255,) * 3, std=(64 / 255,) * 3)
# VGG-11 at 1/8 of the width; VGG_JAX_STAGES=D for the full depth and every combination.
SLIM = {"model.stages": os.environ.get("VGG_JAX_STAGES", "A"), "model.width": "0.125", "model.hidden": "(64,)"}
SLIM |= {"train.batch_size": str(BATCH), "train.epochs": "1"}


def steps(name, devices, mapped=False, micro_batch=0):
    """(losses [20], variables) of a shipped config in float64, on that many devices, by `jit` or by `pmap`."""
    c = config(name, SLIM, train__devices=devices, train__micro_batch=micro_batch)
    with jax.enable_x64():
        recipe = make_recipe(c, 10, len(DATA), axis_name="data" if mapped else "")
        recipe = recipe._replace(model=recipe.model.clone(dtype="float64"))
        placement = sharding.place(c)
        state = init_state(recipe, np.uint32(0))
        wide = jax.tree.map(lambda x: x.astype(np.float64), (state.variables, state.opt_state))
        state = state.replace(**wide[0], opt_state=wide[1])
        images = {"image": DATA.images, "label": DATA.labels}
        return (_mapped if mapped else _sharded)(c, recipe, placement, state, images)


def _sharded(c, recipe, placement, state, images):
    state, on_device, losses = placement.jit(lambda s: s)(state), placement.replicate(images), []
    chunk = placement.jit(make_train_chunk(c, recipe, DATA, placement))
    for _ in range(STEPS):
        seen = float(state.sums["loss"])
        state = chunk(state, on_device, np.int32(1))
        losses.append((float(state.sums["loss"]) - seen) / BATCH)
    assert len(state.params["logits"]["kernel"].devices()) == placement.size
    return np.array(losses), jax.device_get(state.trained)


def _mapped(c, recipe, placement, state, images):
    n, losses = placement.size, []
    order = epoch_order(state.key, jnp.int32(0), len(DATA))
    get_batch, step = jax.jit(make_get_batch(c, DATA)), pmap(make_train_step(recipe))
    key, state = state.key, jax.tree.map(lambda x: jnp.stack([x] * n), state)
    for i in range(STEPS):
        batch = get_batch(key, jnp.int32(i), images, order)
        state, metrics = step(state, jax.tree.map(lambda x: x.reshape(n, -1, *x.shape[1:]), batch))
        losses.append(float(metrics["loss"][0]))
    return np.array(losses), jax.tree.map(lambda x: np.asarray(x)[0], state.trained)


one_device = functools.cache(lambda name, micro_batch: steps(name, 1, micro_batch=micro_batch))


WAYS = [("bn_dropout", 8, False, 0), ("bn", 2, False, 0), ("bn", 8, True, 0), ("bn_dropout", 2, False, 4)]
if "VGG_JAX_STAGES" in os.environ:
    WAYS += [("bn_dropout", 2, False, 0), ("bn", 8, False, 0)]


@pytest.mark.parametrize(("name", "devices", "mapped", "micro_batch"), WAYS)
def test_twenty_steps_are_those_of_one_device(name, devices, mapped, micro_batch):
    """In float64, since in float32 rounding at the kinks of ReLU and max-pool makes runs diverge in a few steps."""
    losses, params = one_device(name, micro_batch)
    many_losses, many_params = steps(name, devices, mapped, micro_batch)
    np.testing.assert_allclose(many_losses, losses, rtol=1e-6)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(many_params)):
        # A bias before BatchNorm has zero gradient; its values near 1e-16 are noise.
        assert np.linalg.norm(a - b) <= 1e-6 * np.linalg.norm(a) + 1e-12, jax.tree_util.keystr(path)
    assert len(set(losses)) == STEPS
    apart = max(np.linalg.norm(a - b) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(many_params)))
    print(
        f"{name}, {devices} devices: losses {np.abs(many_losses / losses - 1).max():.1e} apart, parameters {apart:.1e}"
    )


def test_one_image_a_device_is_no_batch_of_one():
    """BatchNorm's statistics are those of all devices together, so that the head's variances are not 0."""
    data, variances = dataset(8), []
    for devices in (1, 8):
        c = config(train__batch_size=8, train__devices=devices, model__batch_norm="before", augment__flip="none")
        recipe, placement = make_recipe(c, 4, 8), sharding.place(c)
        chunk = placement.jit(make_train_chunk(c, recipe, data, placement))
        state = placement.jit(init_state, static_argnums=0)(recipe, np.uint32(0))
        images = placement.replicate({"image": data.images, "label": data.labels})
        variances.append(np.asarray(chunk(state, images, np.int32(1)).batch_stats["bn_fc1"]["var"]))
    assert (variances[0] > 0.9 + 1e-4).all()  # 0.9 of the first ones, which are 1
    np.testing.assert_allclose(variances[1], variances[0], rtol=1e-5)


@pytest.mark.parametrize(("micro_batch", "small_size"), [(0, 0), (2, 0), (2, 16)])
def test_mixed_and_smaller_images_and_sharpness_aware_steps_do_not_depend_on_the_devices(micro_batch, small_size):
    data, results = dataset(8), []
    for devices in (1, 4):
        c = config(
            augment__policy="trivial", augment__mixup=0.4, augment__cutmix=1, optimizer__sam_radius=0.1,
            train__batch_size=8, train__devices=devices, train__micro_batch=micro_batch,
            augment__small_size=small_size, model__global_pool=small_size > 0,
        )  # fmt: skip
        recipe, placement = make_recipe(c, 4, 8), sharding.place(c)
        chunk = placement.jit(make_train_chunk(c, recipe, data, placement))
        state = placement.jit(init_state, static_argnums=0)(recipe, np.uint32(0))
        images = placement.replicate({"image": data.images, "label": data.labels})
        results.append(chunk(state, images, np.int32(1)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *(done.trained for done in results)
    )
    assert float(results[0].sums["loss"]) == pytest.approx(float(results[1].sums["loss"]), rel=1e-4)


@pytest.mark.parametrize(("batch", "devices", "words"), [
    (30, 8, "nearest that fits is 32"), (3, 8, "nearest that fits is 8"), (33, 2, "nearest that fits is 32"),
    (32, 9, "JAX finds 8"),
])  # fmt: skip
def test_uneven_batches_are_refused(batch, devices, words):
    with pytest.raises(UserError, match=words):
        sharding.place(config(train__batch_size=batch, train__devices=devices))


def test_a_config_file_may_have_used_jax_before_cores_become_devices(monkeypatch):
    """JAX has begun in this process, too, so it refuses another number of devices."""
    jax.devices()
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(sharding, "cores", lambda: 2)
    with pytest.raises(RuntimeError, match="before backends are initialized"):
        jax.config.update("jax_num_cpu_devices", 2)
    sharding.use_cores([config(train__batch_size=32, train__micro_batch=8)])


@pytest.mark.parametrize(("fields", "words"), [
    ({"train__batch_size": 30}, "nearest that fits is 32$"),
    ({"train__batch_size": 30, "train__micro_batch": 15}, "nearest that fits is 32 with --config.train.micro_batch=0$"),
    ({"train__micro_batch": 8}, "among 8 devices; set micro_batch to 0$"),
    ({"train__devices": 4}, "several processes use all their 8 devices; set it to 0$"),
])  # fmt: skip
def test_several_processes_are_not_told_to_take_fewer_devices(fields, words, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match=words):
        sharding.place(config(**({"train__devices": 0} | fields)))


def test_micro_batches_are_refused_where_they_do_not_divide_among_devices():
    with pytest.raises(UserError, match="4 micro-batches, which do not divide among 8 devices; take 4 with"):
        sharding.place(config(train__micro_batch=8, train__devices=8))


@pytest.mark.parametrize("count", ["SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", ""])
@pytest.mark.parametrize(("micro_batch", "processes", "cores", "devices"), [
    (0, 1, 2, 1), (8, 1, 2, 2), (16, 2, 2, 1), (8, 1, 3, 2), (4, 1, 6, 4),
])  # fmt: skip
def test_as_many_cores_are_devices_as_divide_the_micro_batches(
    micro_batch, processes, cores, devices, count, monkeypatch
):
    """Of batch 32; the processes are counted by a launcher or by our flag."""
    for name in ("XLA_FLAGS", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "JAX_NUM_CPU_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    if count:
        monkeypatch.setenv(count, str(processes))
    monkeypatch.setattr(sharding, "cores", lambda: cores)
    made = []
    monkeypatch.setattr(jax.config, "update", lambda *given: made.append(given))
    sharding.use_cores([config(train__micro_batch=micro_batch)], None if count else processes)
    assert made == ([("jax_num_cpu_devices", devices)] if devices > 1 else [])
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")  # the user's choice stands
    sharding.use_cores([config(train__micro_batch=micro_batch)], 1)
    assert len(made) == (devices > 1)
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    sharding.use_cores([config(train__micro_batch=micro_batch)], 1)
    assert len(made) == (devices > 1)


def test_as_many_cores_are_devices_as_divide_the_micro_batches_of_all_rows(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    monkeypatch.setattr(sharding, "cores", lambda: 4)
    made = []
    monkeypatch.setattr(jax.config, "update", lambda *given: made.append(given))
    sharding.use_cores(config(train__micro_batch=size) for size in (8, 16, 8))  # 4, 2 and 4 of them
    sharding.use_cores(config(train__micro_batch=size) for size in (8, 0))
    assert made == [("jax_num_cpu_devices", 2)]


def test_the_command_makes_cores_devices():
    """In a separate process, since JAX creates its devices only once."""
    program = (
        "import os, sys; os.sched_getaffinity = lambda _: {0, 1}; from vgg_jax import main; "
        "from vgg_jax.runs import training; from vgg_jax.training import sharding; "
        "training.train = lambda config, _: print(sharding.place(config).size); main.main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", program, *arguments("unused", train__micro_batch=8)]
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    child = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert child.stdout.split()[:1] == ["2"], child.stderr


@pytest.mark.parametrize(("environment", "given", "expected"), [
    ({}, (None, None, None), [None]),  # JAX finds out
    ({"SLURM_NTASKS": "2"}, (None, None, None), [None]),
    ({"SLURM_NTASKS": "1"}, (None, None, None), []),  # JAX would use only the first GPU
    ({"OMPI_COMM_WORLD_SIZE": "1"}, (None, None, None), []),
    ({"SLURM_NTASKS": "2"}, ("host:1", 2, 0), ["deactivate"]),
])  # fmt: skip
def test_whom_a_process_joins(environment, given, expected, monkeypatch):
    seen = []
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda *_, cluster_detection_method, **__: seen.append(cluster_detection_method)
    )
    with processes.join(*given):
        assert seen == expected


@pytest.mark.parametrize(("environment", "error", "said"), [
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, TypeError("'NoneType' object is not iterable"), ""),  # a notebook's pod
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, KeyError("job"), "cannot join the other"),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "OMPI_COMM_WORLD_SIZE": "2"}, RuntimeError("DEADLINE"), "cannot join"),
    ({}, ValueError("coordinator_address should be defined."), ""),
    ({"OMPI_COMM_WORLD_SIZE": "2"}, ValueError("coordinator_address should be defined."), "Give --coordinator="),
])  # fmt: skip
def test_what_jax_cannot_find_out(environment, error, said, monkeypatch):
    """A pod trains alone; processes that cannot find each other do not each train alone."""
    for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def initialize(*_, **__):
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(UserError, match=said) if said else contextlib.nullcontext():
        processes._join(None, None, None)


MANY = SMALL | {"train.epochs": "4", "model.head_dropout": "(0.3, 0.3)", "augment.crop": "2", "train.devices": "0"}


def arguments(workdir, **more):
    given = MANY | {name.replace("__", "."): str(value) for name, value in more.items()}
    return ["--config", str(ROOT / "configs" / "quickstart.py"), "--workdir", str(workdir), *flags(given)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run on one device, uninterrupted."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    main.main(arguments(workdir, train__devices=1))
    return workdir


def assert_same_run(one, other):
    """The same steps, metrics and parameters, except for rounding."""
    assert [set(r) for r in read(one)] == [set(r) for r in read(other)]
    for a, b in zip(read(one), read(other)):
        assert (a["step"], a["epoch"], a["learning_rate"]) == (b["step"], b["epoch"], b["learning_rate"])
        for field in a.keys() - {"step", "epoch", "learning_rate", *TIMING}:
            assert abs(a[field] - b[field]) < (0.03 if "accuracy" in field else 0.02), (a["step"], field)
    expected, got = contents(one), contents(other)
    for name, value in expected.items():
        if "/variables" in name:  # in float32; biases are small, and only noise before BatchNorm
            assert np.linalg.norm(got[name] - value) <= 0.05 * np.linalg.norm(value) + 0.005, name


def test_a_run_goes_on_with_8_then_1_then_2_devices(alone, tmp_path, monkeypatch, capsys):
    stops = iter((1, 2, 99))  # epochs
    last = [0]
    log_point = runs.Run.log_point

    def log_then_stop(run, *rest):
        line = log_point(run, *rest)
        if len(run.log.records) == last[0]:
            os.kill(os.getpid(), signal.SIGTERM)
        return line

    monkeypatch.setattr(runs.Run, "log_point", log_then_stop)
    for devices in (8, 1, 2):
        last[0] = next(stops)
        with pytest.raises(errors.Stopped) if last[0] < 99 else contextlib.nullcontext():
            main.main(arguments(tmp_path / "run", train__devices=devices))
        out = capsys.readouterr().out
        assert (f"on {devices} x cpu" in out) == (devices > 1)
    assert "resumed at step 10 of 20" in out  # 8 devices until 5, one until 10
    assert_same_run(alone, tmp_path / "run")


class Pair:
    """Two processes with two devices each, in one run."""

    program = (
        QUICK
        + """
from vgg_jax import main
from vgg_jax.console import errors
from vgg_jax.runs import loop
loop.CHUNK_SECONDS = 0.1
errors.run(main.main)
"""
    )

    def __init__(self, workdir):
        join = [f"--coordinator=localhost:{free_port()}", "--num_processes=2"]
        flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
        given, self.files = arguments(workdir, train__save_minutes=0), []
        self.processes = []
        for i in (0, 1):
            self.files.append(Path(f"{workdir}.{i}.log"))
            with open(self.files[-1], "w") as log:
                command = [sys.executable, "-c", self.program, *given, *join, f"--process_id={i}"]
                environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": PYTHONPATH}
                self.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def until(self, reached):
        deadline = time.monotonic() + 200
        while not reached() and self.processes[0].poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert reached(), self.log(0) + self.log(1)

    def log(self, i):
        return self.files[i].read_text()

    def codes(self, seconds):
        return [process.wait(seconds) for process in self.processes]

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()


def test_two_processes_stop_lose_one_and_go_on(alone, tmp_path):
    """SIGTERM to one stops both; kill -9 of either ends the other with a line; the result is that of one process."""
    run = tmp_path / "run"

    def saved(step):
        return lambda: any((run / "latest" / str(s) / seal.NAME).exists() for s in saved_steps(run) if s >= step)

    with contextlib.closing(Pair(run)) as pair:
        pair.until(saved(2))
        pair.processes[1].send_signal(signal.SIGTERM)
        assert pair.codes(60) == [143, 143], pair.log(0) + pair.log(1)
        assert "the same command goes on" in pair.log(0)
    for victim in (1, 0) if ALL else (1,):
        before = max(saved_steps(run))
        with contextlib.closing(Pair(run)) as pair:
            pair.until(saved(before + 2))
            pair.processes[victim].kill()
            assert pair.processes[1 - victim].wait(60) == errors.LOST, pair.log(1 - victim)
            assert pair.log(1 - victim).splitlines()[-1].startswith("error: another process of this run is lost")
    with contextlib.closing(Pair(run)) as pair:
        assert pair.codes(200) == [0, 0], pair.log(0) + pair.log(1)
        assert "resumed at step" in pair.log(0) and "4 x cpu" in pair.log(0)
        assert "epoch" not in pair.log(1) and "finished:" not in pair.log(1)  # only process 0 prints
        assert "finished:" in pair.log(0)
    assert_same_run(alone, run)


@pytest.mark.parametrize(("error", "lost"), [
    (TimeoutError("Timed out while waiting for async_write_complete barrier."), True),  # Orbax's, in a save
    (TimeoutError("no answer within 60 s"), False),
    (ValueError("a mistake"), False),
])  # fmt: skip
def test_waiting_for_a_lost_process_is_no_bug(error, lost, monkeypatch):
    left = []
    monkeypatch.setattr(processes, "_join", lambda *_: None)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "_leave", left.append)
    with processes.join(None, None, None):
        raise error
    assert len(left) == 1 and isinstance(left[0], errors.Lost) == lost
