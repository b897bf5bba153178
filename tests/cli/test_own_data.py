"""Data sources of one's own: functions of a plug-in file."""

import json

import pytest

from tests.runs import LEARNING

DESK = """
def january():
    for i in range(8):
        yield {"text": f"order {i} was charged twice", "label": "billing"}
        yield f"version {i} does not start", "technical"


def tests():
    return list(january())[:6]


def broken():
    return {}["missing"]


def odd():
    return [("it is broken", "technical"), 5]


def tidy(text):
    return text.strip()


def billed(answers, labels):
    return 100 * sum(a == b for a, b in zip(answers, labels)) / len(labels)
"""
TOLD = [part for k, v in LEARNING.items() for part in ("--set", f"{k}={v}")]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A plug-in file in the folder where commands run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "desk.py").write_text(DESK)
    return tmp_path / "desk.py"


@pytest.fixture
def new(llama, desk):
    """The beginning of a command that learns into a new directory with the file at hand."""
    asked = ("--model", llama, "--method", "inc-lora", "--labels", "auto", *TOLD)
    return ("learn", desk.parent / "out", "--plugin", "desk.py", *asked)


def test_a_function_of_a_file_is_learned_and_the_directory_needs_it_no_more(nlora, new, desk):
    out = new[1]
    first = nlora(*new, "--task", "desk:january", "--test", "desk:tests", "--json")
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout)["stages"] == ["january"]
    measured = nlora("evaluate", out, "--data", "desk:tests", "--plugin", "desk.py", "--json")
    desk.unlink()
    for command in ("history", "verify"):
        assert nlora(command, out).exit_code == 0, command
    kept = nlora("evaluate", out, "--json")
    [now], [then] = (json.loads(found.stdout)["tasks"] for found in (kept, measured))
    assert now["accuracy"] == then["accuracy"]
    (out.parent / "more.csv").write_text("text,label\nit is broken,technical\n" * 8)
    later = nlora("learn", out, "--task", out.parent / "more.csv", "--max-forgetting", "100")
    assert later.exit_code == 0, later.output


def test_a_file_that_a_directory_needs_for_a_metric_is_recorded(nlora, new, desk):
    entry = {"name": "january", "train": "desk:january", "metric": "desk:billed"}
    (desk.parent / "task.yaml").write_text(json.dumps(entry))
    asked = [part for part in new if part not in ("--labels", "auto")]
    learned = nlora(*asked, "--task", "task.yaml")
    assert learned.exit_code == 0, learned.output
    assert json.loads((new[1] / "model.json").read_text())["plugin"] == str(desk)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("desk:januari", "unknown data source 'desk:januari'; did you mean 'desk:january'?"),
        ("desk:billed", "unknown data source 'desk:billed'"),  # it needs arguments
        ("desk:odd", "desk:odd, row 2: a row is a mapping with text and label, or (text, label)"),
        ("desk.january", "unknown task 'desk.january'"),
    ],
)
def test_what_is_no_data_source_or_gives_no_rows_is_one_line(refused, new, name, said):
    assert said in refused(*new, "--task", name)
    assert not new[1].exists()


def test_an_error_of_the_function_is_told_by_its_line_in_the_file(new, desk):
    from nlora.errors import NloraError
    from tests.commands import done

    with pytest.raises(NloraError, match=r"desk.py, line \d+, in broken: KeyError: 'missing'"):
        done([*new, "--task", "desk:broken"], desk.parent / "log")
    assert not new[1].exists()
