"""`nlora explain` of runs of a tiny model, from their folders."""

import gzip
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml

from nlora.continual.model import ContinualModel
from nlora.errors import NloraError
from nlora.explain.asked import Options
from nlora.explain.conclusion import conclusion
from nlora.explain.explain import explain
from nlora.explain.looks import Look, Looks
from nlora.explain.parts import PARTS
from nlora.explain.shift import cosine
from nlora.explain.sources import NEUTRAL
from nlora.explain.tables import tables
from nlora.page.material import gather
from nlora.report.explained import explained_tasks
from nlora.store.directory import ModelDirectory
from tests.calling import call
from tests.runs import Listener, read_jsonl, tree, write_stream

FEW = Options(texts=6, probe=24)


@pytest.fixture(scope="module")
def explained(finished, tmp_path_factory):
    """The copy of a run, what was found of it, and what was told meanwhile."""
    folder = tmp_path_factory.mktemp("explained")
    out = shutil.copytree(finished("seq-lora").out, folder / "out")
    (folder / "lines.txt").write_text("".join(f"a line of number {i}\n" for i in range(9)))
    watch = Listener()
    asked = Options(texts=6, probe=24, neutral=folder / "lines.txt", relearn=6)
    return out, asked, explain(out, asked, watch), watch


def when(task, moment):
    [found] = [reading for reading in task["readings"] if reading["when"] == moment]
    return found


def test_readings_are_the_run_s_own_figures(explained):
    out, _, found, _ = explained
    first, last = ModelDirectory(out).stages()
    assert found["committed"] == {r.folder: r.finished for r in (first, last)}
    colour = found["tasks"]["colour"]
    for record, moment in ((first, "right after it"), (last, "later")):
        reading = when(colour, moment)
        assert reading["free"] == pytest.approx(record.accuracy["colour"])
        assert reading["among"] == pytest.approx(record.among_labels["colour"])
        assert reading["off_list"] == pytest.approx(record.off_list["colour"])
    assert (
        when(colour, "never learned")["free"] == ModelDirectory(out).zero_shot().accuracy["colour"]
    )
    assert "later" not in [reading["when"] for reading in found["tasks"]["animal"]["readings"]]


def test_parts_add_up_to_the_loss_by_the_protocol(explained):
    out, _, found, _ = explained
    first, last = ModelDirectory(out).stages()
    [lost] = found["tasks"]["colour"]["lost"]
    loss = first.accuracy["colour"] - last.accuracy["colour"]
    assert loss > 0
    assert lost["loss"] == pytest.approx(loss)
    assert sum(lost["parts"].values()) == pytest.approx(loss)
    each = lost["by_example"]
    assert 100 * (each["lost"] - each["won"]) / 6 == pytest.approx(loss)
    assert sum(each[part] for part in PARTS) == each["lost"]
    assert found["over_tasks"]["parts"] == pytest.approx(lost["parts"])


def test_how_far_a_later_stage_moved_the_states_of_old_texts(explained):
    out, asked, found, _ = explained
    [moved] = found["tasks"]["colour"]["moved"]
    assert (moved["after"], moved["stage"]) == ("animal", 2)
    model = ContinualModel.open(out)
    tests = next(data.test for data in model.stream if data.name == "colour")
    assert len(tests) <= asked.shift
    states = []
    for stage in (1, 2):
        with model.standing(stage):
            states.append(np.stack([s.numpy() for s in model.states(tests, "colour")]))
    assert moved["cosine"] == pytest.approx(cosine(*states), abs=1e-5)
    assert 0 < moved["cka"] < 1
    assert found["tasks"]["animal"]["moved"] == []


@pytest.mark.parametrize("method", ["seq-lora", "per-task", "de-lora"])
def test_what_the_evaluation_has_asked_is_not_asked_again(finished, tmp_path, monkeypatch, method):
    out = shutil.copytree(finished(method).out, tmp_path / "out")
    model = ContinualModel.open(out)
    tests = {data.name: data.test for data in model.stream}
    asked = {Look(s, name, "test"): tests[name] for s in (0, 1, 2) for name in tests}
    expected = {}
    for look, examples in asked.items():
        with model.standing(look.stage):
            expected[look] = model.scores(examples, look.task)
    monkeypatch.setattr(Looks, "_measure", lambda *_: pytest.fail("asked again"))
    looks = Looks(model, out / "explain")
    looks.take(asked.items())
    assert looks.found.keys() == expected.keys()
    for look, scores in expected.items():
        np.testing.assert_allclose(looks.found[look], scores, rtol=1e-4, atol=1e-4)
    fewer = {Look(1, "colour", "test"): tests["colour"][1:]}
    with pytest.raises(pytest.fail.Exception, match="asked again"):
        looks.take(fewer.items())


def test_every_source_that_was_asked_for_is_there(explained):
    _, _, found, _ = explained
    sources = set(when(found["tasks"]["colour"], "later")["matched"])
    assert sources == {
        *("train", "test", "contextual"),
        *(
            f"{kind}: {v}{m}"
            for kind in NEUTRAL
            if kind != "by-label"
            for v in ("shares", "answers")
            for m in ("", ", matched")
        ),
    }
    kept = found["over_tasks"]["kept"]
    assert set(kept["base"]) == sources
    assert kept["before"] == kept["base"]  # the first task came to the base model
    way = found["tasks"]["animal"]["way"]
    then, before = (when(found["tasks"]["animal"], w) for w in ("right after it", "before it"))
    length = then["matched"]["train"] - before["matched"]["train"]
    assert way["before"]["value"] == pytest.approx(length)
    assert set(found["relearned"]) == {"colour"}


def test_texts_by_label_are_written_as_each_label_is_told_in_turn(finished, tmp_path, monkeypatch):
    out = shutil.copytree(finished("inc-lora").out, tmp_path / "out")
    told = []

    def write(model, prompts):
        told.append([model.encoder.tokenizer.decode(ids) for ids in prompts])
        return [f"text {i} of {len(told)}" for i in range(len(prompts))]

    monkeypatch.setattr("nlora.continual.self_written._write", write)
    monkeypatch.setenv("NLORA_CACHE", str(tmp_path / "cache"))
    asked = replace(FEW, kinds=("train", "by-label"), probe=0, shift=0, gradients=0)
    found = explain(out, asked)
    colour = ModelDirectory(out).stages()[0].tasks[0]
    assert [prompt.splitlines()[-2:] for prompt in told[0]] == [
        [f"Answer: {label}", "Text:"] for label in colour["labels"] * 2
    ]
    assert all(colour["instruction"] in prompt for prompt in told[0])
    after = when(found["tasks"]["colour"], "later")["matched"]
    assert {"by-label: answers", "by-label: answers, matched"} <= after.keys()
    explain(out, asked)
    assert len(told) == 2  # one for each task, and kept


def test_what_was_measured_is_not_measured_again_and_the_run_is_as_it_was(explained, finished):
    out, asked, found, watch = explained
    assert "asking" in watch.titles
    again = Listener()
    assert (
        explain(out, asked, again)
        == found
        == json.loads((out / "explain/explained.json").read_text())
    )
    assert again.titles == []
    whole = tree(out)
    assert {n: b for n, b in whole.items() if not n.startswith("explain/")} == tree(
        finished("seq-lora").out
    )
    place = out / "explain" / "001-colour" / "colour-self.safetensors"
    sound = place.read_bytes()
    for spoilt in (b"damaged", sound[:-2] + bytes([sound[-2] ^ 0x40]) + sound[-1:]):
        place.write_bytes(spoilt)
        half = Listener()
        assert explain(out, asked, half) == found
        assert half.titles == ["asking"]
    [again] = out.glob("explain/**/*relearned*.json")
    sound = json.loads(again.read_text())
    for spoilt in ("{", "[1]", json.dumps({**sound, "values": {"free": 99.0, "among": 99.0}})):
        again.write_text(spoilt)
        assert explain(out, asked) == found
    assert tree(out) == whole


def test_a_stage_stands_with_all_that_was_known_then(finished):
    model = ContinualModel.open(finished("seq-lora").out)
    tests = model.stream[0].test
    now = model.scores(tests, "colour")
    with model.standing(1):
        assert model.stage_of("animal") is None
        then = model.scores(tests, "colour")
    with model.standing(0):
        assert model.stage_of("colour") is None
    assert model.stage_of("animal") == 2
    assert model.scores(tests, "colour") == now
    assert np.abs(np.array(then) - now).max() > 0.1


def test_a_model_per_task_has_lost_nothing(finished, tmp_path):
    out = shutil.copytree(finished("per-task").out, tmp_path / "out")
    found = explain(out, FEW)
    [lost] = found["tasks"]["colour"]["lost"]
    assert lost["parts"] == dict.fromkeys(PARTS, 0.0)
    assert lost["kept"]["base"]["train"]["value"] in (None, 100.0)


def test_without_its_training_examples_parts_are_matched_on_the_test_texts(finished, tmp_path):
    out = shutil.copytree(finished("seq-lora").out, tmp_path / "out")
    watch = Listener()
    other = write_stream(tmp_path, "colour", "animal", train=6)
    found = explain(out, FEW, watch, stream=str(other))
    assert any("not the examples that it was learned from" in line for line in watch.messages)
    [lost] = found["tasks"]["colour"]["lost"]
    assert lost["matched_by"] == "test"
    assert lost["parts"]["inaccessible"] is None
    ways = next(table for table in tables(found) if table.key == "ways")
    assert ways.notes[0].startswith("matched on the task's test texts, an upper bound")
    (section,) = gather([out]).sections
    left = explained_tasks(section)
    assert "last stage, matched on the task's test texts" in left.notes[0]
    assert None not in left.rows[0]  # matched alike, they are there, too


def test_the_command_prints_tables_writes_files_and_refuses_in_one_line(explained, tmp_path):
    out, asked, found, _ = explained
    same = ["explain", out, "--texts", 6, "--probe", 24, "--neutral", asked.neutral]
    packed = bytearray(gzip.compress(b"".join(b"line %d\n" % i for i in range(300))))
    packed[40] ^= 0xFF
    (damaged := tmp_path / "damaged.gz").write_bytes(packed)
    shown = call(*same, "--out", tmp_path / "tables")
    assert shown.exit_code == 0, shown.output
    assert "What was lost since it was learned" in shown.output
    assert shown.stdout.rstrip().endswith(str(conclusion(found)))
    names = {path.name for path in (tmp_path / "tables").iterdir()}
    assert {"losses.md", "losses.csv", "sources.csv", "ways.md", "readings.md"} <= names
    assert json.loads(call(*same, "--json").stdout)["tasks"] == found["tasks"]
    refused = {
        "did you mean 'train'": ["explain", out, "--kinds", "trian"],
        "give --neutral FILE": ["explain", out, "--kinds", "neutral"],
        "holds no model": ["explain", tmp_path / "nothing"],
        "no such file": ["explain", out, "--neutral", tmp_path / "nothing"],
        "damaged gzip file": ["explain", out, "--neutral", damaged],
        "different texts and 100 are asked for": ["explain", out, "--neutral", asked.neutral],
        "must be at least 1": ["explain", out, "--texts", 0],
    }
    for said, line in refused.items():
        result = call(*line)
        assert result.exit_code == 2, line
        assert said in result.output


def test_the_conclusion_names_the_largest_part_and_what_helps():
    split = {"off the list": 1.0, "bias": 12.3, "inaccessible": None, "gone": -2.0}
    found = {"over_tasks": {"tasks": ["a", "b"], "parts": split}}
    said = str(conclusion(found))
    assert said.startswith("Of 11.3 points lost of a, b the largest part is bias (12.3): an offset")
    split["gone"] = 20.0
    assert "not brought back by offsets (20.0); without a probe" in str(conclusion(found))
    split["inaccessible"] = 0.0
    assert "the largest part is gone (20.0): it has to be learned again" in str(conclusion(found))
    split["gone"] = -20.0
    assert conclusion(found) == "Nothing is lost of a, b, on average."
    assert conclusion({"over_tasks": None}) is None


def test_a_kind_of_text_that_is_none_is_refused():
    with pytest.raises(NloraError, match="unknown kind of text"):
        Options(kinds=("books",)).checked()


def test_dev_examples_can_be_asked_so_that_something_is_chosen_by_them(finished, tmp_path):
    """The run used all its training rows, so here its stream gets a dev split."""
    run = finished("seq-lora")
    shutil.copytree(run.stream.parent, tmp_path / "copy")
    stream, out = tmp_path / "copy" / "stream.yaml", tmp_path / "copy" / "out"
    watch = Listener()
    assert explain(out, replace(FEW, on_dev=True), watch, stream=str(stream))["tasks"] == {}
    assert "'colour' has no dev examples and is left out" in watch.messages
    entries = yaml.safe_load(stream.read_text())
    for entry in entries:
        rows = read_jsonl(tmp_path / "copy" / entry["train"])
        lines = "".join(json.dumps({**r, "text": f"{r['text']} again"}) + "\n" for r in rows)
        (tmp_path / "copy" / f"{entry['name']}-dev.jsonl").write_text(lines)
        entry["dev"] = f"{entry['name']}-dev.jsonl"
    stream.write_text(yaml.safe_dump(entries))
    found = explain(out, replace(FEW, on_dev=True), watch, stream=str(stream))
    later = when(found["tasks"]["colour"], "later")
    assert later["free"] is None
    assert "dev" not in later["matched"]
    assert found["on"] == "dev"
    assert (out / "explain" / "explained-on-dev.json").is_file()
    made = {table.key: table for table in tables(found)}
    assert all("dev examples" in table.title for table in made.values())
    assert not any("test examples" in note for table in made.values() for note in table.notes)
    helps = {row[0]: row[1].mean for row in made["helps"].rows}
    assert helps["train"] == pytest.approx(later["matched"]["train"] - later["among"])
    on_test = explain(out, FEW, watch, stream=str(stream))
    assert "dev" in when(on_test["tasks"]["colour"], "later")["matched"]
    assert "helps" not in [table.key for table in tables(on_test)]
