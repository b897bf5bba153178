"""Every bad input is one clear line and status 2, and leaves everything as it was."""

import os
import re

import pytest

from tests.runs import tree, write_stream

TRAIN = "TC/mail/train.json"


def spoil(path, old, new):
    """Replace bytes of a file once."""
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def spoiled(name, old, new):
    return lambda data: spoil(data / name, old, new)


def written(name, content):
    return lambda data: (data / name).write_bytes(content)


DATA = {
    "a missing folder": (
        lambda data: data.rename(data.with_name("moved")),
        r"no such data folder: \S*data",
    ),
    "a missing data set": (lambda data: os.rename(data / "TC", data / "gone"), "mail"),
    "a missing file": (lambda data: (data / TRAIN).unlink(), r"no such file: \S*train\.json"),
    "malformed JSON": (
        spoiled(TRAIN, b'"label": "b"}', b'"label": "b"'),
        r"train\.json, line 4, column \d+: malformed JSON",
    ),
    "not an array": (written(TRAIN, b'{"sentence": "x"}'), r"train\.json: must be a JSON array"),
    "not UTF-8": (spoiled(TRAIN, b"train text 2", b"caf\xe9"), r"train\.json, line 4: not UTF-8"),
    "no label": (spoiled(TRAIN, b'"label": "b"', b'"lable": "b"'), r"json, line 3.*no 'label'"),
    "no sentence": (spoiled(TRAIN, b'"sentence"', b'"text"'), r"json, line 2.*no 'sentence'"),
    "an unknown label": (
        spoiled(TRAIN, b'"label": "b"', b'"label": "B"'),
        r"json, line 3.*unknown label 'B'; did you mean 'b'",
    ),
    "an empty split": (written("TC/mail/test.json", b"[]"), r"test\.json: no examples"),
    "an empty file": (written("TC/mail/test.json", b""), r"test\.json: the file is empty"),
    "an empty text": (spoiled(TRAIN, b'"train text 1"', b'" "'), r"json, line 3.*empty"),
    "no labels": (lambda data: (data / "TC/mail/labels.json").unlink(), r"labels\.json"),
}


@pytest.mark.parametrize("name", DATA)
def test_bad_data(refused, benchmark, llama, tmp_path, name):
    break_it, said = DATA[name]
    break_it(benchmark)
    line = refused(
        *("run", "--stream", "mail,shop", "--data", benchmark, "--method", "inc-lora"),
        *("--model", llama, "--out", tmp_path / "out"),
    )
    assert re.search(said, line), line
    assert not (tmp_path / "out").exists()


@pytest.fixture
def command(llama, tmp_path):
    """A good command; the caller changes one thing."""
    values = {
        "--stream": write_stream(tmp_path, "colour"),
        "--method": "inc-lora",
        "--model": llama,
        "--out": tmp_path / "out",
    }

    def line(*more, **changes):
        changed = {**values, **{f"--{name}": value for name, value in changes.items()}}
        pairs = [part for pair in changed.items() if pair[1] is not None for part in pair]
        return ["run", *pairs, *more]

    return line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "nlora"}, "unknown method 'nlora'; did you mean 'n-lora'"),
        ({"stream": "order-9"}, "unknown stream 'order-9'; did you mean 'order-"),
        ({"stream": "agnews,yelpp"}, "unknown data set 'yelpp'; did you mean 'yelp'"),
        ({"stream": "order-1"}, r"give --data or set NLORA_DATA"),
        ({"stream": "missing.yaml"}, r"no such file: \S*missing\.yaml"),
        ({"model": "./no-such-folder"}, "neither a folder that exists nor a Hub name"),
        ({"model": "~stranger/model"}, "neither a folder that exists nor a Hub name"),
        ({"recipe": "n-lora-t5-lrge-order-1"}, "did you mean 'n-lora-t5-large-order-1'"),
        ({"plugin": "missing.py"}, r"missing\.py does not exist"),
        ({"config": "missing.yaml"}, r"missing\.yaml does not exist"),
        ({"seed": -1}, "'seed'"),
        ({"max-train": 0}, "'max_train'"),
        ({"max-eval": -5}, "'max_eval'"),
        ({"evaluate": "al"}, "'seen', 'next' or 'all'"),
        ({"set": "lerning_rate=1"}, "unknown setting of inc-lora.*did you mean 'learning_rate'"),
        ({"set": "learning_rate=-1"}, "'learning_rate': must be"),
        ({"set": "learning_rate=fast"}, "'learning_rate'.*'fast'"),
        ({"set": "batch_size=0"}, "'batch_size'"),
        ({"set": "epochs=[1,2]"}, "'epochs' lists 2 values"),
        ({"set": "rank"}, "--set takes key=value"),
        ({"set": "optimizer=adam"}, "unknown optimizer 'adam'"),
        ({"model": None}, "'model' is needed"),
        ({"stream": None}, "--stream"),
        ({"out": None}, "--out"),
    ],
    ids=str,
)
def test_a_bad_argument(refused, command, tmp_path, monkeypatch, changes, said):
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir(tmp_path))
    line = refused(*command(**changes))
    assert re.search(said, line), line
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"- a\n- b\n", "must hold a mapping"),
        (b"model: [1,\n", r"run\.yaml is neither YAML nor JSON"),
        (b"method: \xff\n", r"run\.yaml is neither"),
        (b"modle: x\n", r"unknown key in \S*run\.yaml: 'modle'; did you mean 'model'"),
        (b"settings: [1]\n", "'settings' must be a mapping"),
        (b"settings:\n  rnk: 3\n", "did you mean 'rank'"),
    ],
)
def test_a_bad_configuration_file(refused, command, tmp_path, content, said):
    (tmp_path / "run.yaml").write_bytes(content)
    line = refused(*command(config=tmp_path / "run.yaml"))
    assert re.search(said, line), line
    assert not (tmp_path / "out").exists()


def test_a_folder_of_somebody_else_is_left_alone(refused, command, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo.jpg").write_bytes(b"mine")
    assert "not a model directory" in refused(*command())
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["photo.jpg"]


def test_a_model_json_of_another_program_is_left_alone(refused, command, tmp_path):
    (tmp_path / "out" / "stages" / ".001-cache").mkdir(parents=True)
    (tmp_path / "out" / "model.json").write_text('{"weights": "mine"}')
    before = sorted(p for p in (tmp_path / "out").rglob("*"))
    assert "model.json is not a model directory's" in refused(*command())
    assert sorted(p for p in (tmp_path / "out").rglob("*")) == before


def test_a_file_is_no_folder(refused, command, tmp_path):
    (tmp_path / "out").write_text("mine")
    assert "is a file" in refused(*command())
    assert "is a file" in refused(*command(out=tmp_path / "out" / "below"))
    assert (tmp_path / "out").read_text() == "mine"


def test_another_configuration_leaves_the_directory_as_it_was(nlora, refused, command, tmp_path):
    more = ("--set", "precision=fp32", "--set", "max_new_tokens=2")
    assert nlora(*command(*more)).exit_code == 0
    before = tree(tmp_path / "out")
    line = refused(*command(*more, "--seed", "1"))
    assert "holds a different configuration (seed 0, not 1)" in line
    assert tree(tmp_path / "out") == before


def test_a_loss_that_is_no_number(refused, command, tmp_path):
    line = refused(
        *command(
            "--set",
            "epochs=3",
            "--set",
            "learning_rate=1e30",
            *("--set", "target_modules=all-linear"),
        )
    )
    assert re.search("stage 'colour', step 2: .* is (nan|inf)", line), line
    assert list((tmp_path / "out").glob("stages/*")) == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "update"), "No space left on device"),
        (MemoryError("8 GB"), "memory is not enough ('8 GB')"),
    ],
    ids=["disk", "memory"],
)
def test_no_room_is_one_line(refused, command, tmp_path, monkeypatch, error, said):
    from nlora.adapters.lora import Lora

    def full(self, folder):
        raise error

    monkeypatch.setattr(Lora, "save", full)
    line = refused(*command("--set", "max_new_tokens=2"))
    assert said in line
    assert list((tmp_path / "out").glob("stages/*")) == []
