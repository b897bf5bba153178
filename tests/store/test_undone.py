"""Stages that were taken back, as files: several times, brought back, and refused where damaged."""

import json

import pytest

from nlora.errors import NloraError
from nlora.store.directory import ModelDirectory
from tests.store.made import commit

NAME = "003-Third.B+c_d-1"


@pytest.fixture
def taken_back(directory):
    """A directory of three stages, of which the last two were taken back, one by one."""
    with directory.locked():
        commit(directory, 3, NAME[4:], on="002-second")
        for name in (NAME, "002-second"):
            directory.undone.take_back([name], {"model.json": "1"}, "noon", {"left": name})
    return directory


def test_each_rollback_is_there_with_its_stages_and_results(taken_back):
    assert [r.name for r in taken_back.stages()] == ["first"]
    found = taken_back.undone.rollbacks()
    assert [(one.path.name, one.stages) for one in found] == [
        ("001", [NAME]),
        ("002", ["002-second"]),
    ]
    assert {(one.when, one.on["model.json"]) for one in found} == {("noon", "1")}
    assert json.loads((taken_back.path / "results.json").read_text()) == {"left": "002-second"}


def test_the_newest_is_brought_back_with_its_results_and_the_other_one_stays(taken_back):
    with taken_back.locked():
        taken_back.undone.bring_back(taken_back.undone.rollbacks()[-1], {"with": 2})
    again = ModelDirectory(taken_back.path)
    assert [r.name for r in again.stages()] == ["first", "second"]
    assert json.loads((again.path / "results.json").read_text()) == {"with": 2}
    assert [one.path.name for one in again.undone.rollbacks()] == ["001"]
    with again.locked():
        again.undone.prune()
    assert not (again.path / "undone").exists()
    assert [r.name for r in again.stages()] == ["first", "second"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("on", None, "'on': Input should be a valid dictionary"),
        ("stages", ["001-a", 7], "'stages.1': Input should be a valid string"),
        ("stages", ["../../elsewhere"], '"../../elsewhere" is no stage'),
        ("stages", ["001-a/../../../b"], '"001-a/../../../b" is no stage'),
    ],
)
def test_a_damaged_one_is_refused_with_file_and_key(taken_back, key, value, said):
    path = taken_back.path / "undone" / "001" / "undone.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(NloraError) as error:
        taken_back.undone.rollbacks()
    assert str(error.value) == f"{path}: {said}"
