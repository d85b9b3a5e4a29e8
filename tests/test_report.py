"""The report page without a browser: what it finds, says and escapes."""

import html.parser
import json
import os
import re
import shlex
import shutil

import numpy as np
import pages
import pytest
from pages import EVIL, change, copy
from small import ROOT

import vgg_jax
from vgg_jax import write_report
from vgg_jax.console import flags
from vgg_jax.console.errors import UserError
from vgg_jax.evaluation import intervals
from vgg_jax.landscape import verdict
from vgg_jax.page import finding, groups, hills, reading, scored, sections, study, writing
from vgg_jax.runs import log
from vgg_jax.runs.pictures import drops
from vgg_jax.settings import again, config as configs

NAMES = [str(digit) for digit in range(10)]
DATA = re.compile(r'<script type="application/json" id="page-data">(.*?)</script>', re.DOTALL)


@pytest.fixture(autouse=True)
def no_plotly(monkeypatch):
    """These tests read the page without running it, and need no plotly."""
    monkeypatch.setattr(writing, "plotly", lambda: "/* plotly */")


@pytest.fixture
def run(finished_run, tmp_path):
    return copy(finished_run, tmp_path / "run")


def page(*folders):
    return writing.page(finding.find(folders), "/* plotly */")


def figures(text):
    return json.loads(DATA.search(text)[1])


class Words(html.parser.HTMLParser):
    """The text of a page, its elements and their attributes."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tags, self.attributes, self._hidden = "", set(), [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag):
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data):
        self.text += "" if self._hidden else data + " "


def words(text):
    return " ".join(Words(text).text.split())


def test_a_finished_run_has_every_section(run, tmp_path, monkeypatch):
    pages.evaluate(run, NAMES)
    shutil.copy(ROOT / "results" / "quickstart_curves.png", run / "evaluation" / "latest_test_mistakes.png")
    monkeypatch.chdir(tmp_path)
    file = vgg_jax.report(run)
    assert file.name == "report.html" and file.is_file() and not list(tmp_path.glob("*.partial"))
    text = words(file.read_text())
    for said in (
        "Accuracy",
        "Curves",
        "Evaluation",
        "Time",
        "Origin",
        "Most frequent mistakes",
        "cpu (",
        "fingerprint",
    ):
        assert said in text, said
    assert "What differs" not in text and "missing" not in file.read_text().split("</style>")[1]
    assert "data:image/png;base64," in file.read_text()
    summary = json.loads((run / "summary.json").read_text())
    assert f"{100 * summary['protocols']['final']['test_accuracy']:.2f} %" in text
    vgg_jax.report([run], file)  # an earlier report is replaced


def test_the_curves_hold_what_metrics_jsonl_holds(run):
    data, records = figures(page(run)), log.read(run)
    (place,) = data["runs"]
    assert place["step"] == [r["step"] for r in records] and place["epoch"] == [r["epoch"] for r in records]
    curves = [trace for figure in data["figures"] if figure["curves"] for trace in figure["data"]]
    assert [r["test_loss"] for r in records] in [trace["y"] for trace in curves]
    assert [r["validation_accuracy"] for r in records] in [trace["y"] for trace in curves]
    assert len(curves) == 8


def test_two_runs_and_only_the_field_that_differs(run, finished_run, tmp_path):
    optimizer = json.loads((run / "config.json").read_text())["optimizer"]
    other = copy(finished_run, tmp_path / "other", optimizer=optimizer | {"learning_rate": 0.125})
    text = words(page(run, other))
    assert "optimizer.learning_rate run 0.05 other 0.125 The other" in text
    found = finding.find([run, other])
    assert [group.name for group in groups.group(found.runs, found.rows)] == ["run", "other"]


def test_a_run_made_again_is_no_second_seed(finished_run, tmp_path):
    made = [copy(finished_run, tmp_path / name, seed=seed) for name, seed in (("a", 0), ("a_again", 0), ("b", 1))]
    found = finding.find(made)
    together = groups.group(found.runs, found.rows)
    assert [[run.name for run in group.runs] for group in together] == [["a", "b"], ["a_again"]]


def test_bins_of_no_images_are_no_reliability(run):
    pages.evaluate(run, NAMES)
    report = json.loads((run / "evaluation" / "latest_test.json").read_text())
    assert reading.fault_of(report) == ""
    for count in (0, -1):
        report["reliability"][0]["count"] = count
        assert reading.fault_of(report) == "no reliability"


def test_a_table_and_its_seeds(finished_run, tmp_path):
    for seed in range(3):
        folder = copy(finished_run, tmp_path / "project2" / "vgg_a" / f"seed{seed}", seed=seed)
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        last = json.loads(lines[-1]) | {"test_accuracy": 0.5 + seed / 10}
        (folder / "metrics.jsonl").write_text("\n".join([*lines[:-1], json.dumps(last)]))
    row = {"config": "vgg_a", "name": "VGG_A", "reported": 75.77, "runs": [{"test_accuracy": {"final": 0.5}}]}
    (tmp_path / "project2" / "project2.json").write_text(json.dumps({"table": "project2", "rows": [row]}))
    half = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    unfinished = copy(finished_run, tmp_path / "project2" / "vgg_a" / "seed10", seed=10)
    (unfinished / "metrics.jsonl").write_text(json.dumps(half | {"test_accuracy": 0.99}))
    found = finding.find([tmp_path / "project2"])
    assert [run.name for run in found.runs] == [f"vgg_a/seed{n}" for n in (0, 1, 2, 10)]
    (group,) = groups.group(found.runs, found.rows)
    assert group.name == "VGG_A" and group.reported == pytest.approx(0.7577)
    final = group.estimates["final"]
    assert final.mean == pytest.approx(0.6) and final.deviation == pytest.approx(0.1) and final.n == 3
    assert final.low == pytest.approx(0.6 - 4.302653 * 0.1 / 3**0.5, abs=1e-6)
    assert group.gap == pytest.approx(json.loads((folder / "summary.json").read_text())["train_accuracy"] - 0.6)
    text = words(page(tmp_path / "project2"))
    assert "VGG_A 60.00 ± 10.00 % 35.16 to 84.84, n = 3" in text and "75.77%" in text
    assert "vgg_a/seed10: 1 of 2 epochs were logged" in text
    assert "What differs" not in text

    own = tmp_path / "own"  # a table with a row of the same name
    copy(finished_run, own / "vgg_a" / "seed0")
    (own / "own.json").write_text(json.dumps({"rows": [{"config": "vgg_a", "name": "mine", "reported": None}]}))
    for tables in ((tmp_path / "project2", own), (own, tmp_path / "project2")):
        found = finding.find(tables)
        named = {g.name: g.reported for run in found.runs for g in groups.group([run], found.rows)}
        assert named == {"VGG_A": pytest.approx(0.7577), "mine": None}
    trial = copy(finished_run, tmp_path / "project2" / "vgg_a" / "trial")  # no seed of the row
    found = finding.find([tmp_path / "project2"])
    (alone,) = groups.group([run for run in found.runs if run.folder == trial], found.rows)
    assert (alone.name, alone.reported) == ("vgg_a/trial", None)
    elsewhere = tmp_path / "elsewhere"  # where `reproduce --results` may write the table
    copy(finished_run, elsewhere / "other")
    shutil.move(tmp_path / "project2" / "project2.json", elsewhere)
    found = finding.find([tmp_path / "project2", elsewhere])
    assert groups.group(found.runs[:1], found.rows)[0].reported == pytest.approx(0.7577)


def test_intervals_against_known_values():
    """Wilson's of 8 of 10 and of 10 of 10 (Brown, Cai and DasGupta 2001); Student's 97.5 % point of two degrees."""
    assert intervals.wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert intervals.wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert intervals.student([0.5, 0.6, 0.7]) == pytest.approx((0.3516, 0.8484), abs=1e-4)
    assert intervals.student([0.0, 1.0]) == (0.0, 1.0)
    assert intervals.estimate([], 10) is None and intervals.estimate([0.5], None).low is None
    alike = intervals.estimate([0.5, 0.5], 10)
    assert alike[:4] == (0.5, 0.0, None, None) and alike.interval("{:.0f} to {:.0f}") == ""
    assert intervals.estimate([0.5, 0.6, 0.7], 10).interval("{:.0f} to {:.0f}") == "35 to 85"


def test_unfinished_diverged_and_damaged_runs_show_what_there_is(run, finished_run, tmp_path):
    half = copy(finished_run, tmp_path / "half")
    (half / "summary.json").unlink()
    lines = (half / "metrics.jsonl").read_text().splitlines(keepends=True)
    (half / "metrics.jsonl").write_text(lines[0] + lines[1][:20])  # as a crash leaves it
    text = words(page(half))
    assert "1 of 2 epochs were logged: the run is still training, was stopped, or its loss" in text
    assert "damaged" not in text and "Not evaluated: half." in text

    rising = copy(finished_run, tmp_path / "rising")
    change(rising / "config.json", lambda c: c | {"train": c["train"] | {"epochs": 9}})
    (rising / "summary.json").unlink()
    losses = [{"step": i, "epoch": i, "train_loss": loss} for i, loss in enumerate((2.3, 1.5, 8e9), 1)]
    (rising / "metrics.jsonl").write_text("\n".join(map(json.dumps, losses)))
    assert (
        "is still training, was stopped, or its loss was no longer finite; its training loss had risen from 1.5 to "
        in (words(page(rising)))
    )
    (rising / "best" / "2").mkdir(parents=True)  # saved when the loss was no longer finite
    assert "ended in an error, most likely since its loss was no longer finite" in words(page(rising))
    (rising / "latest" / "2").mkdir(parents=True)
    assert "ended in an error" not in words(page(rising))
    (rising / "metrics.jsonl").unlink()
    assert "no epoch of 9 was logged" in words(page(rising))

    (run / "config.json").write_text("{")
    (run / "run.json").write_text("[]")
    (run / "metrics.jsonl").write_text(lines[0] + "rubbish\n" + '{"step": NaN, "epoch": 2}\n' + lines[1])
    pages.evaluate(run, NAMES, confusion=[[1, 2]])
    (run / "damaged" / "latest_10").mkdir(parents=True)
    text = words(page(run))
    for said in (
        "config.json is damaged", "run.json is damaged", "its lines 2, 3 of 4 are left out",
        "evaluation/latest_test.json is damaged", "damaged/: latest_10", "The command that makes it again run unknown",
    ):  # fmt: skip
        assert said in text, said
    for file in ("config.json", "run.json", "summary.json"):
        (run / file).unlink()
    assert "config.json is not there" in words(page(run))
    (run / "config.json").write_text('{"a": ' * 5000 + "1" + "}" * 5000)
    (run / "seconds.txt").unlink()
    (run / "seconds.txt").mkdir()
    assert "config.json is damaged" in words(page(run))


def test_imported_weights_were_not_trained_here(run):
    change(run / "run.json", lambda facts: facts | {"origin": {"file": "vgg.pt", "sha256": "0"}})
    (run / "metrics.jsonl").unlink()
    text = words(page(run))
    assert "its weights were imported from vgg.pt; no epochs were logged here" in text and "was stopped" not in text
    assert "none: its weights were imported" in text and "vgg-jax train" not in text


def test_given_data_are_not_called_by_the_configs_name(run):
    assert "own data" not in words(page(run))
    change(run / "run.json", lambda facts: facts | {"data_given": True})
    assert "data own data" in words(page(run))
    assert sections._data(configs.flatten(configs.load(ROOT / "examples" / "resnet.py")), {}) == "digits"


def test_a_field_that_does_nothing_does_not_part_seeds(finished_run, tmp_path):
    adam = json.loads((finished_run / "config.json").read_text())["optimizer"] | {"name": "adam"}
    a = copy(finished_run, tmp_path / "a", optimizer=adam)
    b = copy(finished_run, tmp_path / "b", optimizer=adam | {"momentum": 0.8}, seed=1)
    found = finding.find([a, b])
    assert len(groups.group(found.runs, found.rows)) == 1


def test_learning_rate_drops_in_a_long_run_with_a_point_without_one(run):
    rates = [{"learning_rate": 0.1 if step < 702 else 0.01} if step != 3 else {} for step in range(1501)]
    records = [{"step": step, "epoch": step, "train_loss": 1.0} | rate for step, rate in enumerate(rates)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert figures(page(run))["drops"] == [{"run": 0, "key": 0, "at": 350}]


def leaves(value, path=()):
    """The paths of all values in a JSON document, those of objects and lists too."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, one in inner for found in leaves(one, (*path, key)))]


def replaced(value, path, by):
    if not path:
        return by
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], by)
    return copy


RUBBISH = (None, -1, 0, 7, 1e308, 10**400, float("nan"), "x", "", True, [], [None], {}, {"a": {"b": None}})


@pytest.mark.parametrize("name", ["config", "run", "summary", "evaluation/latest_test", "metrics", "../study/verdict"])
def test_rubbish_in_place_of_any_value_ends_in_a_page(name, run, tmp_path):
    pages.evaluate(run, NAMES)
    pages.study(tmp_path / "study")
    file, rng = run / f"{name}.json{'l' * (name == 'metrics')}", np.random.default_rng(0)
    last = file.read_text().splitlines()[-1] if name == "metrics" else file.read_text()
    whole = json.loads(last)
    places = leaves(whole)
    some = places if len(places) < 25 else [places[i] for i in rng.choice(len(places), 25, replace=False)]
    for path in some:
        for by in (RUBBISH[i] for i in rng.choice(len(RUBBISH), 3, replace=False)):
            file.write_text(json.dumps(replaced(whole, path, by)))
            assert "<!doctype html>" in page(run, tmp_path / "study"), (path, by)
    for text in ("", "\x00", "{", "[" * 10000, last[:-9]):
        file.write_text(text)
        page(run, tmp_path / "study")


def test_a_study_shows_surfaces_probes_and_verdict(tmp_path):
    folder = pages.study(tmp_path / "study")
    text = page(folder)
    said = words(text)
    assert "Loss surfaces" in said and "Probes over training" in said and "The path walked" in said
    rows = json.loads((folder / "verdict.json").read_text())["rows"]
    assert all(verdict.effect(row) in said and row["source"] in said for row in rows) and "a note" in said
    assert "BatchNorm and fewer sharp minima: 0 for it, 0 against, 10 open; with stored" in said
    kinds = [figure["data"][0]["type"] for figure in figures(text)["figures"]]
    assert kinds.count("surface") == 2 and kinds.count("contour") == 4 and kinds.count("heatmap") == 2
    hill = next(figure for figure in figures(text)["figures"] if figure["data"][0]["type"] == "surface")
    assert hill["data"][0]["z"][0][0] == pytest.approx(np.log10(3.1), rel=1e-4) and len(hill["choices"]) == 2
    with np.load(folder / "planes_bn.npz") as old:
        arrays = dict(old)
    arrays["plane"][0, 0, 0, 0] = np.inf
    np.savez(folder / "planes_bn.npz", **arrays)
    assert "Where there are holes" not in said and "Where there are holes" in words(page(folder))
    whole = dict(np.load(folder / "around_bn.npz"))
    np.savez(folder / "around_bn.npz", **whole | {"end_stored_lines": np.array([["x"]])})
    np.savez(folder / "planes_bn.npz", **arrays | {"plane": arrays["plane"][..., :0]})
    text = words(page(folder))
    assert "around_bn.npz is damaged" in text and "planes_bn.npz is damaged" in text
    np.savez(folder / "planes_bn.npz", **arrays)
    np.savez(folder / "around_bn.npz", **whole | {"end_recomputed_ritz": whole["end_recomputed_ritz"][:, :1]})
    assert "The arrays of around do not fit together" in words(page(folder))
    packed = bytearray((folder / "path_bn.npz").read_bytes())
    packed[8] ^= 99  # the first array's way of compression
    packed[packed.index(b"PK\x01\x02") + 10] ^= 99
    (folder / "path_bn.npz").write_bytes(packed)
    (folder / "probes_bn.npz").write_bytes(b"rubbish")
    (folder / "rates_plain.npz").unlink()
    (folder / "verdict.json").write_text("{}")
    text = words(page(folder))
    for said in (
        "path_bn.npz is damaged",
        "probes_bn.npz is damaged",
        "rates_plain.npz is not there",
        "verdict.json is damaged",
        "Loss surfaces",
    ):
        assert said in text, said
    (folder / "verdict.json").write_text('{"rows": [{"ratio": 2.0, "ratios": [2.0]}], "note": ""}')
    assert "verdict.json is of an earlier version" in words(page(folder))


def test_a_study_that_trains_still_has_its_config(run, tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    base = configs.to_json(configs.load("landscape_quick"))
    (study / "config.json").write_text(base)
    copy(run, study / "plain" / "seed0")
    text = words(page(study))
    assert "the study's arrays (npz files) are not here" in text and "unknown: its config.json" not in text


def test_the_committed_study_is_shown_with_its_pictures():
    folder = ROOT / "results" / "landscape_quick"
    text = page(folder)
    rows = json.loads((folder / "verdict.json").read_text())["rows"]
    assert all(row["measure"] in words(text) for row in rows)
    assert words(text).count("npz") == 1 and "its pictures are still ones" in words(text)
    assert "unknown: its config.json cannot be read" in words(text)
    assert (
        text.count("data:image/png;base64,") == len(list(folder.glob("*.png"))) - 1  # the verdict is drawn
    )  # sharpness too; verdict is drawn


def test_a_hundred_classes(run):
    pages.evaluate(run, [f"class {n}" for n in range(100)])
    text = page(run)
    sizes = [len(figure["data"][0]["z"]) for figure in figures(text)["figures"] if "z" in figure["data"][0]]
    assert sizes == [100] and len(text) < 300_000


def test_what_a_stranger_wrote_is_text(finished_run, tmp_path):
    run = copy(finished_run, tmp_path / "<i>x")
    pages.evaluate(run, [*EVIL, "ordinary"])
    change(run / "run.json", lambda facts: facts | {"class_names": list(EVIL), "commit": EVIL[0], EVIL[1]: EVIL[0]})
    change(run / "config.json", lambda c: c | {"code": {"file": EVIL[0], "sha256": EVIL[1]}, "data": {"name": EVIL[1]}})
    (run / "damaged").mkdir()
    (run / "damaged" / "<b>").touch()
    folder = pages.study(tmp_path / "study")
    strange = {"measure": EVIL[1], "claim": EVIL[0], "holds": EVIL[2], "claimed": "<u> with BN", EVIL[1]: EVIL[0]}
    change(folder / "verdict.json", lambda v: {"note": EVIL[0], "rows": [row | strange for row in v["rows"]]})
    text = page(run, folder)
    seen = Words(text)
    ours = {
        "html", "head", "meta", "title", "style", "body", "script", "noscript", "nav", "a", "section", "p", "ul", "li",
        "h1", "h2", "h3", "div", "span", "label", "input", "select", "option", "svg", "line", "table", "caption",
        "thead", "tbody", "tr", "th", "td", "code", "small", "b", "figure", "figcaption", "details", "summary",
    }  # fmt: skip
    assert seen.tags <= ours and text.count("<script") == 3 and text.count("</script") == 3
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert all(name in seen.text for name in EVIL)
    for line in plotly_texts(figures(text)):
        assert "<" not in re.sub(r"<br>|<extra></extra>", "", line), line


def plotly_texts(value):
    """All texts in the figures, in which plotly would find markup."""
    if isinstance(value, dict):
        value = list(value.values())
    return [t for inner in value for t in plotly_texts(inner)] if isinstance(value, list) else [str(value)]


@pytest.mark.parametrize("fields", [{}, {"train.epochs": 7, "model.hidden": (16,), "train.start_from": "a b; rm $x"}])
@pytest.mark.parametrize("name", ["quickstart", "speedrun", "landscape_quick"])
def test_the_command_makes_the_same_config(name, fields):
    config = configs.load(name, fields)
    verb, *argv = shlex.split(again.command(configs.flatten(config), "a_x_again"))[1:]
    assert verb == ("landscape" if name.startswith("landscape") else "train")
    given, overrides = flags.parse(argv, "", {"--config": {}, "--workdir": {}})
    assert given.config == name and given.workdir == "a_x_again" and overrides.keys() == fields.keys()
    assert configs.flatten(configs.load(given.config, overrides)) == configs.flatten(config)


def test_mistakes_end_in_one_line(run, tmp_path, ends, monkeypatch):
    out = ["--out", str(tmp_path / "r.html")]
    ends(write_report.main, [str(tmp_path / "nothing"), *out], "is not there; give the directory of a run")
    ends(write_report.main, [str(run / "config.json"), *out], "is a file; give the directory")
    (tmp_path / "empty").mkdir()
    ends(write_report.main, [str(tmp_path / "empty"), *out], "holds no run, table or landscape study")
    ends(write_report.main, [str(run), "--out", str(tmp_path)], "is a directory; --out takes the file")
    ends(write_report.main, [str(run), "--out", str(tmp_path / "no" / "r.html")], "is not there; make it")
    (tmp_path / "mine.html").write_text("<p>my thesis</p>")
    ends(write_report.main, [str(run), "--out", str(tmp_path / "mine.html")], "is there and is no report")
    ends(write_report.main, [str(run), "--config.seed=1"], "takes no --config fields")
    with pytest.raises(UserError, match="report needs"):
        vgg_jax.report([])
    monkeypatch.undo()
    monkeypatch.setattr(writing.importlib.util, "find_spec", lambda name: None)
    ends(
        write_report.main,
        [str(run), *out],
        "the report needs plotly: pip install plotly, or pip install -e '.[report]'",
    )


def test_ticks_of_any_numbers():
    ticks = hills._numbered([1.0, 1e308])["tickvals"]
    assert ticks[0] == 1 and ticks[-1] == 1e301


def test_long_runs_are_thinned_and_short_ones_are_not():
    from vgg_jax.page.figures import POINTS, thin

    records = [{"step": i} for i in range(10 * POINTS + 3)]
    assert len(thin(records)) <= POINTS and thin(records)[-1] == records[-1]
    assert thin(records[:POINTS]) == records[:POINTS] and thin([]) == []


def test_a_folder_of_runs_and_studies(finished_run, tmp_path):
    copy(finished_run, tmp_path / "all" / "a")
    copy(finished_run, tmp_path / "all" / "table" / "row" / "seed2")
    copy(finished_run, tmp_path / "all" / "table" / "row" / "seed10")
    pages.study(tmp_path / "all" / "study")
    copy(finished_run, tmp_path / "all" / "study" / "plain" / "seed0")
    found = finding.find([tmp_path / "all", tmp_path / "all" / "a"])
    names = ["a", "plain/seed0", "table/row/seed2", "table/row/seed10"]
    assert [run.name for run in found.runs] == names and len(found.studies) == 1
    assert found.runs[1].row == "without BatchNorm"
    copy(finished_run, tmp_path / "other" / "a")
    names = [run.name for run in finding.find([tmp_path / "all" / "a", tmp_path / "other" / "a"]).runs]
    assert names == [os.fspath(tmp_path / "all" / "a"), os.fspath(tmp_path / "other" / "a")]


def test_reading_a_run_of_this_version_says_nothing_is_missing(run):
    assert reading.read(run, "run").missing == [] and study.read(run).missing != []


def test_drops_are_from_a_plateau():
    rates = (0.1, 0.1, 0.01, 0.01, 0.001)
    assert drops([{"epoch": e, "learning_rate": r} for e, r in enumerate(rates, 1)]) == [2, 4]
    assert drops([{"epoch": e, "learning_rate": 0.8**e} for e in range(9)]) == []


def test_mistakes_and_reliability_are_the_reports():
    report = {"per_class_accuracy": {"a": 0.8, "b": 0.8}, "confusion": [[8, 2], [1, 4]]}
    assert scored.mistaken(report) == [("a", "b", 2, 0.2), ("b", "a", 1, 0.2)]
    whole = pages.evaluation(["a", "b"])
    assert scored.reliability(whole)["data"][1]["y"] == [b["accuracy"] for b in whole["reliability"]]
