"""`nlora copy` says what goes along, and what whoever goes on has to have."""

import json

import pytest


def test_a_copy_and_what_it_holds(nlora, refused, finished, tmp_path):
    there = finished("replay").out
    done = nlora("copy", there, tmp_path / "handed.tar.gz")
    assert done.exit_code == 0, done.stderr
    assert "2 stages" in done.stdout
    assert "with 12 test examples and 6 training examples" in done.stdout
    assert "which is not copied" in done.stderr
    again = nlora("copy", tmp_path / "handed.tar.gz", tmp_path / "mine", "--json")
    assert json.loads(again.stdout)["kept"]["train"] == {"colour": 3, "animal": 3}
    assert "is there already" in refused("copy", there, tmp_path / "mine")
    assert "neither a folder" in refused("copy", there, tmp_path / "b", "--model", "no where")
    assert "--model FOLDER` says where it" in refused("evaluate", tmp_path / "mine")


@pytest.mark.parametrize("name", ["m.zip", "m.tar.xz", "m.TAR.BZ2", "m.gz"])
def test_an_archive_of_another_kind_is_refused(refused, finished, tmp_path, name):
    line = refused("copy", finished("inc-lora").out, tmp_path / name)
    assert "end the name with .tar, .tar.gz or .tgz" in line
    assert list(tmp_path.iterdir()) == []
