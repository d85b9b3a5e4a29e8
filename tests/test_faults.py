"""Damaged checkpoints, full disks, removed directories, second runs: detected, reported, and nothing is lost."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import PYTHONPATH, QUICK, ROOT, SMALL, config, flags
from test_resume import contents

from vgg_jax import evaluate, main
from vgg_jax.console import errors
from vgg_jax.console.errors import UserError
from vgg_jax.runs import checkpoint, damage, seal
from vgg_jax.training.step import init_state, make_recipe

SAVING = SMALL | {"train.save_minutes": "0"}


def arguments(workdir):
    return ["--config", str(ROOT / "configs" / "quickstart.py"), "--workdir", str(workdir), *flags(SAVING)]


@pytest.fixture
def run(finished_run, tmp_path):
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def truncate(file):
    os.truncate(file, file.stat().st_size // 2)


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def newest(run, kind="latest"):
    return sorted((p for p in (run / kind).iterdir() if p.name.isdigit()), key=lambda p: int(p.name))


def test_a_kill_leaves_the_best_of_the_state_that_it_leaves(tmp_path, monkeypatch):
    """`best` keeps two, so it must not be two saves ahead of the last state that is whole."""
    sealed, write = [], seal.write

    def slowly(folder):
        time.sleep(0.3 * (folder.parent.name == "latest"))
        write(folder)
        sealed.append(f"{folder.parent.name} {folder.name}")

    monkeypatch.setattr(seal, "write", slowly)
    state = init_state(make_recipe(config("quickstart"), 10, 64), 0)
    (tmp_path / "run.json").write_text("{}")  # sealed with every checkpoint
    checkpoints = checkpoint.Checkpoints(tmp_path)
    for step in (1, 2, 3):
        state = state.replace(step=jnp.int32(step))
        checkpoints.save_best(step, state.variables)
        checkpoints.save_latest(state)
    checkpoints.close()
    assert sealed == ["best 1", "latest 1", "best 2", "latest 2", "best 3", "latest 3"]


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
def test_every_damaged_file_is_found_and_the_checkpoint_before_serves(damage, run, finished_run, tmp_path, capsys):
    before, last = newest(run)
    files = sorted(p.relative_to(last) for p in last.rglob("*") if p.is_file())
    assert len(files) > 10
    for file in files:
        if damage is not Path.unlink and not (last / file).stat().st_size:
            continue
        damage(last / file)
        found = seal.fault(last)
        assert found and (str(file) in found or file.name == seal.NAME), file
        checkpoints = checkpoint.Checkpoints(run)
        assert checkpoints.steps() == {int(before.name)}
        checkpoints.close()
        assert f"{last} is damaged ({found})" in capsys.readouterr().out
        (aside,) = (run / "damaged").iterdir()
        assert sorted(p.relative_to(aside) for p in aside.rglob("*") if p.is_file()) == [
            f for f in files if f != file or damage is not Path.unlink
        ]
        shutil.rmtree(run / "damaged")
        shutil.copytree(finished_run / "latest" / last.name, last)
    assert seal.fault(last) is None


def test_strangers_in_a_checkpoint_are_ignored(run, capsys):
    """A file browser's, NFS's and an editor's files, some there when it was sealed and gone since."""
    for folder in (*newest(run), *newest(run, "best")[-1:]):
        for place in (folder.parent, folder, folder / "variables"):
            for name in (".DS_Store", ".nfs0001", "_METADATA~", "notes.txt"):
                (place / name).write_text("stray")
    before, last = newest(run)
    (before / ".nfs0002").write_text("")
    seal.write(before)
    for name in (".nfs0002", ".DS_Store"):
        (before / name).unlink()
    evaluate.main(["--workdir", str(run)])
    text = {file: file.read_bytes() for file in run.glob("*.json*")}
    main.main(arguments(run))
    told = capsys.readouterr()
    assert f"(step {last.name})" in told.out and "already finished" in told.out
    assert text == {file: file.read_bytes() for file in run.glob("*.json*")}
    assert "damaged" not in told.out + told.err and not (run / "damaged").exists()


def test_a_seal_cut_short_is_damage(run):
    """At any byte: also where a line ends, and the files that are named no more look like strangers."""
    last = newest(run)[1]
    whole = (last / seal.NAME).read_bytes()
    ends = [i for i, byte in enumerate(whole) if byte == ord("\n")]
    for length in [*range(10), *ends, *(end + 1 for end in ends[:-1])]:
        (last / seal.NAME).write_bytes(whole[:length])
        assert seal.fault(last), length
    (last / seal.NAME).write_bytes(whole.partition(b"\n")[2])  # of an earlier version, which did not vouch for itself
    assert seal.fault(last) is None


def test_a_run_goes_on_from_the_checkpoint_before(run, finished_run, capsys):
    before, last = newest(run)
    flip(max((p for p in last.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size))
    evaluate.main(["--workdir", str(run)])
    assert f"(step {before.name})" in capsys.readouterr().out
    assert last.exists()  # evaluation moves nothing
    main.main(arguments(run))
    out = capsys.readouterr().out
    assert f"{last} is damaged (" in out and f"resumed at step {before.name} of" in out
    expected, got = contents(finished_run), contents(run)
    for name, value in expected.items():
        np.testing.assert_array_equal(value, got[name], err_msg=name)


def test_nothing_whole_is_left(run, capsys):
    for folder in newest(run):
        flip(next(folder.glob("variables/**/manifest.ocdbt")))
    with pytest.raises(UserError, match="there is no other"):
        evaluate.main(["--workdir", str(run)])
    with pytest.raises(UserError, match="no whole checkpoint is left"):
        main.main(arguments(run))
    aside = run / "damaged"
    assert len(list(aside.iterdir())) == 2 and (run / "best").is_dir()
    best, records = contents(run, ("best",)), (run / "metrics.jsonl").read_text()
    main.main(arguments(run))
    out = capsys.readouterr().out
    assert "started at step 0" in out and f"best moved to {aside / 'best_2'}" in out
    assert (aside / "metrics.jsonl_3").read_text() == records and (aside / "summary.json_4").exists()
    (aside / "best_2").rename(aside / "best")
    for name, value in best.items():
        np.testing.assert_array_equal(value, contents(aside, ("best",))[name], err_msg=name)


def test_what_is_put_aside_finds_a_name_though_some_was_removed(tmp_path):
    def put_aside():
        (tmp_path / "latest" / "5" / "variables").mkdir(parents=True)
        return damage._move(tmp_path, tmp_path / "latest" / "5").name

    assert [put_aside(), put_aside()] == ["latest_5_0", "latest_5_1"]
    shutil.rmtree(tmp_path / "damaged" / "latest_5_0")
    assert put_aside() == "latest_5_2"


OTHERWISE = {
    "jax_enable_x64": (True, "set JAX_ENABLE_X64=False (in Python: jax.config.update('jax_enable_x64', False))"),
    "jax_default_matmul_precision": ("highest", "unset JAX_DEFAULT_MATMUL_PRECISION"),
    "jax_default_prng_impl": ("rbg", "set JAX_DEFAULT_PRNG_IMPL=threefry2x32"),
    "jax_threefry_partitionable": (False, "set JAX_THREEFRY_PARTITIONABLE=True"),
    "jax_random_seed_offset": (7, "set JAX_RANDOM_SEED_OFFSET=0"),
}


@pytest.fixture(params=OTHERWISE)
def otherwise(request):
    """The name of a setting that is another one meanwhile."""
    before = getattr(jax.config, request.param)
    jax.config.update(request.param, OTHERWISE[request.param][0])
    yield request.param
    jax.config.update(request.param, before)


def test_other_settings_of_jax_are_refused_by_name(otherwise, run, capsys):
    """Each would make another run of the same config and seed; runs of before they were recorded go on."""
    facts, (value, remedy) = json.loads((run / "run.json").read_text()), OTHERWISE[otherwise]
    recorded = facts.pop("jax_settings")
    with pytest.raises(UserError) as refused:
        main.main(arguments(run))
    assert f"change its numbers: {otherwise} ({recorded[otherwise]!r} there, {value!r} now); " in str(refused.value)
    assert remedy in str(refused.value) and set(recorded) == set(OTHERWISE)
    (run / "run.json").write_text(json.dumps(facts))
    main.main(arguments(run))
    assert "already finished" in capsys.readouterr().out


def test_settings_of_jax_are_recorded_as_the_environment_has_them():
    given = {name.upper(): str(value) for name, (value, _) in OTHERWISE.items()}
    program = "import json; from vgg_jax.runs import numerics; print(json.dumps(numerics.settings()))"
    environment = os.environ | given | {"PYTHONPATH": PYTHONPATH}
    child = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(child.stdout) == {name: value for name, (value, _) in OTHERWISE.items()}


def test_a_run_of_before_there_were_seals(run, capsys):
    facts = json.loads((run / "run.json").read_text())
    del facts["sealed"]
    (run / "run.json").write_text(json.dumps(facts))
    config = json.loads((run / "config.json").read_text())
    del config["train"]["devices"]
    (run / "config.json").write_text(json.dumps(config))
    for file in run.rglob(seal.NAME):
        file.unlink()
    evaluate.main(["--workdir", str(run)])
    main.main(arguments(run))
    out = capsys.readouterr().out
    assert f"(step {newest(run)[1].name})" in out and "already finished" in out and not (run / "damaged").exists()


def test_a_second_run_in_the_same_directory_is_refused(tmp_path, monkeypatch):
    """A second run is refused at the first's start and at each of its saves, until the first has ended."""
    run, refused, save = tmp_path / "run", [], checkpoint.Checkpoints.save_latest

    def start_another(self, state):
        with monkeypatch.context() as usual, pytest.raises(UserError, match="another process is training"):
            usual.setattr(checkpoint.Checkpoints, "save_latest", save)
            main.main(arguments(run))
        refused.append(self)
        save(self, state)

    monkeypatch.setattr(checkpoint.Checkpoints, "save_latest", start_another)
    main.main(arguments(run))
    assert refused
    main.main(arguments(run))


FILL = """
import sys
from pathlib import Path
from vgg_jax import main
from vgg_jax.runs import checkpoint, loop as fit
from vgg_jax.console import errors
fit.CHUNK_SECONDS, saves, save = 0.0, [], checkpoint.Checkpoints.save_latest
def save_then_fault(self, state):
    saves.append(0)
    if len(saves) == 3:
        self.wait()
        {fault}
    save(self, state)
checkpoint.Checkpoints.save_latest = save_then_fault
errors.run(main.main)
"""


def ends(fault, run):
    """Exit code and last line of a run in which the fault appears before its third save."""
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    command = [sys.executable, "-c", QUICK + FILL.replace("{fault}", fault), *arguments(run)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr.splitlines()[-1]


@pytest.fixture
def disk(tmp_path):
    """A disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(disk, finished_run):
    fill = "f = open(self._workdir.parent / 'ballast', 'wb', 0); sys.exit() if f.write(bytes(2**22)) == 2**22 else None"
    code, line = ends(fill, disk / "run")
    assert code == errors.MISTAKE and line.startswith(f"error: cannot save in {disk / 'run'}: No space left on device")
    assert all(seal.fault(p) is None for p in (disk / "run" / "latest").iterdir())
    (disk / "ballast").unlink()
    evaluate.main(["--workdir", str(disk / "run")])
    main.main(arguments(disk / "run"))
    expected, got = contents(finished_run), contents(disk / "run")
    for name, value in expected.items():
        np.testing.assert_array_equal(value, got[name], err_msg=name)


def test_directory_removed_under_the_run(tmp_path):
    code, line = ends("import shutil; shutil.rmtree(self._workdir)", tmp_path / "run")
    assert code == errors.MISTAKE and line.startswith(f"error: {tmp_path / 'run'} was removed while the run was in it")


def test_read_only_disk(disk, finished_run, capsys):
    shutil.copytree(finished_run, disk / "run")
    shutil.rmtree(newest(disk / "run")[1])
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(UserError, match="cannot write to"):
        main.main(arguments(disk / "run"))
    evaluate.main(["--workdir", str(disk / "run")])
    out, err = capsys.readouterr()
    assert "on 360 test images" in out and "--out=DIR" in err
    with pytest.raises(OSError, match="Read-only file system"):
        evaluate.main(["--workdir", str(disk / "run"), "--out", str(disk / "out")])
