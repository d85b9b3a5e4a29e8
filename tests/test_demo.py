"""The demo without a browser: what it computes, says and refuses, and that it talks to no other machine."""

import re
import socket
import types
import urllib.request

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from browsing import served
from flax import linen as nn
from ml_collections import ConfigDict
from PIL import Image
from small import OWN_NETWORK, free_port

import vgg_jax
from vgg_jax import demo
from vgg_jax.console.errors import UserError
from vgg_jax.demo_page import drawing, examples, looking, serving, signals
from vgg_jax.evaluation.opening import load_or_shipped
from vgg_jax.landscape import interpret
from vgg_jax.model import layers
from vgg_jax.model.vgg import VGG

EVIL = "<img src=x onerror=hacked=1>"


@pytest.fixture(scope="module")
def run(finished_run):
    return vgg_jax.load(finished_run)


@pytest.fixture(scope="module")
def looker(run):
    return looking.Looker(run)


@pytest.fixture(scope="module")
def look(looker, run):
    return looker.look(run.data("test").images[0])


class Means(nn.Module):
    """Logits that are known: the means of the image's channels, times 1, 2 and -3."""

    @nn.compact
    def __call__(self, x, train=False):
        maps = nn.Conv(3, (1, 1), use_bias=False, kernel_init=lambda *_: jnp.eye(3)[None, None])(x)
        return maps.mean((1, 2)) * jnp.array([[1.0, 2.0, -3.0]])


class Dropping(nn.Module):
    """Nothing but dropout: Flax's, told of the mode when it is made or when it is called, or ours."""

    rate: float
    by_call: bool = False
    ours: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        if self.ours:
            return layers.Dropout(self.rate)(x, train)
        off = {"deterministic": not train}
        return nn.Dropout(self.rate)(x, **off) if self.by_call else nn.Dropout(self.rate, **off)(x)


def test_class_evidence_is_where_the_class_is():
    """For logits that are weighted means of the maps, Grad-CAM is the class activation map."""
    images = jnp.zeros((1, 8, 8, 3)).at[0, 2, 5, 1].set(4.0).at[0, 6, 6, 2].set(1.0)
    model = Means()
    variables = model.init(jax.random.key(0), images)
    seen = signals.watch(model, variables, images)
    (stage,) = seen.maps
    assert np.allclose(seen.maps[stage], images) and np.allclose(seen.logits, [[0, 8 / 64, -3 / 64]])
    for label, expected in enumerate(
        np.maximum(np.array(images[0]) * np.array([1.0, 2.0, -3.0]) / 64, 0).transpose(2, 0, 1)
    ):
        gradients = jax.grad(
            lambda added, label=label: signals.watch(model, variables, images, {stage: added}).logits[0, label]
        )(jnp.zeros_like(images))
        np.testing.assert_allclose(interpret.class_evidence(seen.maps[stage], gradients)[0], expected, atol=1e-7)


def test_a_look_has_the_probabilities_of_predict(run, look):
    np.testing.assert_allclose(look.probabilities, run.predict(look.pixels[None])[0], atol=1e-6)
    best = int(look.probabilities.argmax())
    pixels = (look.pixels[None] / 255 - np.array(run.mean)) / np.array(run.std)
    expected = interpret.saliency(run.model, run.variables, jnp.float32(pixels), jnp.array([best]))
    np.testing.assert_allclose(look.saliency, expected[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("fields", [{}, {"pool": "first"}, {"batch_norm": "after"}, {"batch_norm": "none"},
                                    {"batch_norm": "none", "tied": True}, {"residual": True}])  # fmt: skip
def test_the_maps_are_what_the_stages_give(fields):
    """Of a ReLU network nothing is below zero before a BatchNorm; every stage is there, before its last pool."""
    model = VGG("speed", 10, 0.05, (), **fields)
    images = jax.random.normal(jax.random.key(1), (1, 32, 32, 3))
    variables = model.init(jax.random.key(0), images)
    seen = signals.watch(model, variables, images)
    np.testing.assert_array_equal(seen.logits, model.apply(variables, images))
    assert list(seen.maps) == [f"stage {i}" for i in range(1, 4)]
    sizes = [maps.shape[1] for maps in seen.maps.values()]
    assert sizes == ([16, 8, 4] if fields.get("pool") == "first" else [32, 16, 8])
    assert set(seen.values) == set(seen.maps)
    assert {after is None for _, after in seen.values.values()} == {fields.get("batch_norm") == "none"}
    if fields.get("batch_norm") == "none":
        given, _ = seen.values["stage 1"]
        np.testing.assert_array_equal(seen.maps["stage 1"], jax.nn.relu(given))
    if fields.get("batch_norm") != "after":
        assert min(float(maps.min()) for maps in seen.maps.values()) == 0
    else:
        np.testing.assert_array_equal(seen.maps["stage 1"], seen.values["stage 1"][1])


def test_dropout_drops_its_share_and_leaves_batch_norm_as_it_is():
    model = VGG("speed", 10, 0.05, (16,), stage_dropout=(0.25,) * 3, head_dropout=(0.5, 0.5))
    images = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
    variables = model.init(jax.random.key(0), images)
    rates = signals.dropouts(model, variables, images)
    assert set(rates.values()) == {0.25, 0.5}
    first, again, other = (signals.watch(model, variables, images, None, jax.random.key(i)).logits for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert abs(first - other).max() > 0
    for model in (Dropping(0.25), Dropping(0.25, by_call=True), Dropping(0.25, ours=True), Dropping(1.0)):
        ones = jnp.ones((1, 100, 100, 3))
        np.testing.assert_array_equal(signals.watch(model, {}, ones).logits, ones)
        dropped = signals.watch(model, {}, ones, None, jax.random.key(0)).logits
        assert float((dropped == 0).mean()) == pytest.approx(model.rate, abs=0.02)
        assert float(dropped.max()) == pytest.approx(0 if model.rate == 1 else 4 / 3)


def test_a_column_says_what_there_is_and_escapes_names(look):
    text = drawing.column(EVIL, (EVIL, *"123456789"), look, EVIL)
    assert EVIL not in text and "&lt;img src=x" in text
    assert not re.findall(r'(?:src|href)="(?!data:image/png)', text)
    assert "Dropout drops" in text if look.draws is not None else "Dropout: this network has none." in text
    plain = look._replace(draws=None, rates={}, stages=[stage._replace(values=None) for stage in look.stages])
    text = drawing.column("a", tuple("0123456789"), plain)
    assert "Dropout: this network has none." in text and "BatchNorm: none in this stage." in text and "<svg" not in text
    alone = look._replace(stages=[stage._replace(values=(np.ones((4, 4, 3)), None)) for stage in look.stages])
    text = drawing.column("a", tuple("0123456789"), alone)
    assert "Spread of a channel 0 to 0 after the convolution" in text and text.count("<polyline") == len(look.stages)
    draws = np.tile(look.probabilities, (looking.DRAWS, 1))
    text = drawing.column("a", tuple("0123456789"), look._replace(draws=draws, rates={"a": 0.3, "b": 0.5}))
    assert "drops 30%, 50% of the values" in text and "30 of them name" in text


def test_the_smallest_map_that_says_where():
    assert (
        looking.evidence_stage({"stage 1": (1, 32, 32, 8), "stage 2": (1, 4, 4, 8), "stage 3": (1, 2, 2, 8)})
        == "stage 2"
    )
    assert looking.evidence_stage({"2x2": (1, 2, 2, 8), "1x1": (1, 1, 1, 8)}) == "2x2"
    assert looking.evidence_stage({}) == ""


def test_a_network_of_ones_own_is_shown(tmp_path):
    (tmp_path / "own.py").write_text(OWN_NETWORK.replace("landscape_quick", "default"))
    fields = {"data.name": "digits", "data.train_size": 64, "data.validation_size": 10}
    fields |= {"train.epochs": 1, "train.batch_size": 32, "train.devices": 1}
    own = vgg_jax.train(vgg_jax.config(str(tmp_path / "own.py"), fields), tmp_path / "run")
    found = looking.Looker(own).look(own.data("test").images[0])
    assert [stage.name for stage in found.stages] == ["32x32", "16x16"] and found.evidence is not None


def test_runs_side_by_side_have_their_bars_in_one_order(looker):
    look = looker.look(looker.run.data("test").images[0])
    order = drawing.ranking(look)[::-1]
    classes = looker.run.class_names
    bars = re.findall(
        r"<span>(\w+)</span><span class=\"demo-bar\">", str(drawing.column("a", classes, look, "", order))
    )
    assert bars == [classes[i] for i in order]


def test_runs_of_the_same_classes_have_one_order_whoever_stands_between(looker, monkeypatch, tmp_path):
    orders, letters = [], tuple("abcdefghij")
    other = types.SimpleNamespace(
        look=looker.look, run=types.SimpleNamespace(class_names=letters, pixels=looker.run.pixels)
    )
    monkeypatch.setattr(drawing, "ranking", lambda look: len(orders))
    monkeypatch.setattr(drawing, "column", lambda name, names, look, truth, order: orders.append(order) or "")
    Image.fromarray(looker.run.data("test").images[0]).save(tmp_path / "digit.png")
    serving.show({"one": looker, "other": other, "again": looker}, tmp_path / "digit.png")
    assert orders[0] == orders[2] != orders[1]


def test_examples_come_from_the_runs_own_test_images_and_nothing_is_downloaded(run, monkeypatch):
    found, said = examples.examples(run)
    assert len({example.label for example in found[:10]}) == 10 and "test images" in said
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("asks the network"))
    monkeypatch.setenv("TFDS_DATA_DIR", "/nonexistent")
    found, said = examples.examples(load_or_shipped(None, "latest", {}, None))
    assert found == [] and "cifar10 is not on this machine, and the demo downloads nothing" in said
    own = {"code": {"file": "own.py", "sha256": "0", "data": True}}  # get_data of a file that is not given here
    config = ConfigDict(vgg_jax.config("default").to_dict() | own)
    found, said = examples.examples(types.SimpleNamespace(config=config))
    assert found == [] and "No examples: get_data of this run has to come from own.py" in said


def test_pictures_that_predict_refuses_get_its_line(looker, tmp_path):
    text, huge = tmp_path / "text.png", tmp_path / "huge.png"
    text.write_text("no picture")
    Image.new("1", (8000, 5000)).save(huge)
    with pytest.raises(UserError) as refused:
        looker.run.predict([text])
    assert str(refused.value).replace(str(text), "text.png") in serving.show({"a": looker}, text, "text.png")
    shown = serving.show({"a": looker}, huge, EVIL)
    assert "is 8000x5000, over the limit of 33554432 pixels" in shown and EVIL not in shown
    assert str(tmp_path) not in shown


def test_a_run_that_diverged_says_so(looker, run, monkeypatch, tmp_path):
    broken = looking.Looker(run)
    monkeypatch.setattr(run, "variables", jax.tree.map(lambda x: x * np.nan, run.variables))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert "had diverged" in serving.show({"a": broken}, tmp_path / "a.png")


def test_mistakes_end_in_one_line(finished_run, tmp_path, ends, monkeypatch):
    pytest.importorskip("gradio")
    run = str(finished_run)
    ends(demo.main, [str(tmp_path)], str(tmp_path))
    ends(demo.main, [run] * 5, "at most 4 runs side by side, not 5")
    ends(demo.main, [run, "--port", "0"], "--port 0 is no port")
    ends(demo.main, [run, "--port", "http"], "invalid int value")
    ends(demo.main, ["--checkpoint", "best"], "are for a run of yours")
    ends(demo.main, [run, "--share-on", "192.0.2.1"], "cannot listen on 192.0.2.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ends(demo.main, [run, "--port", str(port)], f"port {port} is in use", f"--port {port + 1}")
    monkeypatch.setattr(serving.importlib.util, "find_spec", lambda name: None)
    ends(demo.main, [run], "the demo needs gradio: pip install 'gradio>=6.0', or pip install -e '.[demo]'")


def test_names_differ(run):
    assert serving.names([run, run]) == [f"{run.workdir} (1)", f"{run.workdir} (2)"]
    assert serving.names([run, load_or_shipped(None, "latest", {}, None)]) == ["run", "the shipped network"]


@pytest.mark.filterwarnings("ignore")  # Gradio's own
def test_it_listens_on_this_machine_only_and_talks_to_no_other(run, monkeypatch):
    pytest.importorskip("gradio")
    asked, connect = [], socket.socket.connect

    def note(self, address):
        asked.append(address)
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", note)
    port = free_port()
    with served([run], port) as address:
        assert address == f"http://127.0.0.1:{port}/"
        page = urllib.request.urlopen(address).read().decode()
        assert not re.findall(r'<(?:script|link)[^>]*(?:src|href)="https?://', page)
        with pytest.raises(OSError), socket.socket() as elsewhere:
            connect(elsewhere, (_own_address(), port))
    assert {address[0] for address in asked if isinstance(address, tuple)} <= {"127.0.0.1", "localhost", "::1"}


def _own_address():
    """An address of this machine that is not the loopback's first; 127.0.0.2 where it has no other."""
    found = [info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
    return next((each for each in found if not each.startswith("127.")), "127.0.0.2")


def test_saliency_and_filters_of_a_known_network():
    """The largest of the three channels' gradients, in size; each filter scaled to [0, 1]."""
    images, model = jnp.zeros((3, 8, 8, 3)), Means()
    found = interpret.saliency(model, model.init(jax.random.key(0), images), images, jnp.arange(3))
    np.testing.assert_allclose(found, np.broadcast_to(np.array([1, 2, 3])[:, None, None] / 64, (3, 8, 8)), rtol=1e-6)
    kernel = jnp.array([[[[2.0, -1.0]], [[4.0, -1.0]], [[6.0, -1.0]]]]).transpose(0, 2, 1, 3)
    np.testing.assert_allclose(interpret.first_filters({"k": kernel})[:, 0, 0], [[0, 0.5, 1], [0, 0, 0]])
