"""What a folder of a comparison holds already must agree with what is asked."""

import json
from dataclasses import replace

import pytest

from nlora.errors import NloraError
from nlora.study import output
from nlora.study.grid import Grid
from tests.runs import tree, write_stream
from tests.study.test_grid import grid, one_line


@pytest.fixture
def files(llama, tmp_path):
    """Streams that begin with the same tasks, and grids over them."""
    stream = write_stream(tmp_path)

    def made(methods="inc-lora", **values):
        return grid(llama, (str(stream),), methods, **values)

    return made


def claim(out, asked, row='{"cell": {}}\n'):
    """Let a grid have a folder, and leave a row there."""
    with output.claimed(out, asked):
        (out / "ledger.jsonl").write_text(row)


def test_streams_and_methods_may_be_added_to_a_folder(files, tmp_path, llama):
    out = tmp_path / "out"
    claim(out, files())
    claim(out, files("n-lora"))
    (tmp_path / "more").mkdir()
    other = write_stream(tmp_path / "more", "animal").rename(tmp_path / "more" / "other.yaml")
    claim(out, grid(llama, (str(other),), "mtl", seeds=(7,)))
    found = json.loads((out / "compare.json").read_text())
    assert list(found["methods"]) == ["inc-lora", "n-lora", "mtl"]
    assert list(found["data"]) == ["stream", "other"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_train": 6}, "max_train None, not 6"),
        ({"max_eval": 6}, "max_eval None, not 6"),
        ({"evaluate": "all"}, "evaluate 'next', not 'all'"),
        ({"tune": 3}, "tune 0, not 3"),
        ({"settings": {"rank": 4}}, "rank 8, not 4"),
        ({"settings": {"inc-lora": {"rank": 4}}}, "methods: inc-lora: settings: rank 8, not 4"),
        (
            {"settings": {"inc-lora": {"replay": 0.05}}},
            "methods: inc-lora: settings: replay 'none', not 0.05",
        ),
        ({"recipes": "t5-large"}, "settings by stream, of a recipe False, not True"),
    ],
    ids=str,
)
def test_a_grid_that_disagrees_with_its_folder_is_refused(files, tmp_path, values, said):
    out = tmp_path / "out"
    claim(out, files())
    before = tree(out)
    with pytest.raises(NloraError) as error:
        claim(out, files(**values))
    assert f"{out} holds a grid that disagrees" in one_line(error)
    assert said in one_line(error)
    assert tree(out) == before


def test_a_grid_of_which_a_trial_has_begun_is_not_corrected(files, tmp_path):
    out = tmp_path / "out"
    with output.claimed(out, files(tune=2)):
        stage = out / "tuning/stream/inc-lora/trial-1/stages/001-colour"
        stage.mkdir(parents=True)
        (stage / "stage.json").write_text("{}")
    with pytest.raises(NloraError, match="rank 8, not 4"):
        claim(out, files(tune=2, settings={"rank": 4}))


def test_what_is_measured_beside_may_differ_from_start_to_start(files, tmp_path):
    out = tmp_path / "out"
    claim(out, files(settings={"inc-lora": {"measure_kl": True}}))
    claim(out, files())


def test_a_grid_of_which_nothing_came_may_be_corrected(files, tmp_path):
    out = tmp_path / "out"
    claim(out, files(settings={"target_modules": "foo"}), '{"cell": {}, "error": "no module"}\n')
    claim(out, files())
    with pytest.raises(NloraError, match="disagrees"):
        claim(out, files(settings={"rank": 4}))


def test_a_default_that_is_another_now_disagrees_and_a_new_setting_does_not(files, tmp_path):
    out = tmp_path / "out"
    claim(out, files())
    written = json.loads((out / "compare.json").read_text())
    settings = written["methods"]["inc-lora"]["settings"]
    del settings["schedule"]  # as if nlora had not had it yet
    (out / "compare.json").write_text(json.dumps(written))
    claim(out, files())
    settings["dropout"] = 0.7
    (out / "compare.json").write_text(json.dumps(written))
    with pytest.raises(NloraError, match=r"methods: inc-lora: settings: dropout 0\.7, not 0\.1"):
        claim(out, files())


def test_a_grid_of_an_earlier_version_agrees_under_todays_names(files, tmp_path):
    out = tmp_path / "out"
    asked = files("ewc:adapter=lora,inc-lora:routing=task")
    claim(out, asked)
    written = json.loads((out / "compare.json").read_text())
    ewc, inc = (m["settings"] for m in written["methods"].values())
    ewc["carrier"] = ewc.pop("adapter")
    inc["routing"] = "told"
    (out / "compare.json").write_text(json.dumps(written))
    claim(out, asked)


def test_other_data_and_another_model_disagree_too(files, tmp_path, t5):
    out = tmp_path / "out"
    claim(out, files())
    with pytest.raises(NloraError, match="model: title"):
        claim(out, grid(t5, files().streams))
    asked = files()
    write_stream(tmp_path, start=50)
    with pytest.raises(NloraError, match="data: stream: colour"):
        claim(out, Grid(asked.model, asked.streams, asked.points))


@pytest.mark.parametrize("name", ["photo.jpg", "model.json", "stages"])
def test_a_folder_that_holds_something_else_is_refused(files, tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("{}")
    with pytest.raises(NloraError, match="not a comparison's folder"):
        claim(tmp_path / "out", files())
    assert [p.name for p in (tmp_path / "out").iterdir()] == [name]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not valid JSON"),
        ("[]", "must hold a JSON object"),
        ('{"format": 999}', "is not a comparison's"),
    ],
)
def test_a_damaged_or_foreign_description_is_refused_and_left_alone(files, tmp_path, content, said):
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "compare.json"
    path.write_text(content)
    with pytest.raises(NloraError, match=said) as error:
        claim(tmp_path / "out", files())
    assert str(path) in one_line(error)
    assert path.read_text() == content


def test_a_file_is_no_folder(files, tmp_path):
    (tmp_path / "out").write_text("mine")
    for out in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(NloraError, match="is a file"):
            claim(out, files())


def test_only_one_comparison_may_write(files, tmp_path):
    with output.claimed(tmp_path / "out", files()), pytest.raises(NloraError, match="in use by"):
        claim(tmp_path / "out", files())


@pytest.mark.parametrize(
    "asked", [{"tune": 3}, {"settings": {"l1": "auto"}}], ids=["tuned", "auto"]
)
def test_other_dev_examples_disagree_where_they_decide(files, tmp_path, asked):
    def made(dev, **values):
        found = files("n-lora", **values)
        for name, tasks in found.tasks.items():
            found.tasks[name] = [replace(data, dev=data.test[dev:]) for data in tasks]
        return found

    claim(tmp_path / "out", made(0, **asked))
    claim(tmp_path / "out", made(0, **asked))
    with pytest.raises(NloraError) as error:
        claim(tmp_path / "out", made(1, **asked))
    assert "data: stream: colour (dev)" in one_line(error)
    claim(tmp_path / "plain", made(0))
    claim(tmp_path / "plain", made(1))  # they decide nothing
