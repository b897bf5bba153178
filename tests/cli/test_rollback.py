"""`nlora rollback` and `nlora prune` say what they did and what can be done next."""

import json
import shutil

from tests.runs import tree


def test_a_stage_goes_comes_back_and_is_removed(nlora, finished, tmp_path):
    model = shutil.copytree(finished("inc-lora").out, tmp_path / "m")
    gone = nlora("rollback", model)
    assert gone.exit_code == 0, gone.stderr
    assert gone.stdout.startswith("the model stands at stage 1 (colour) again; animal is set aside")
    assert f"`nlora rollback {model} --undo`" in gone.stdout
    assert "set aside (rollback 1): 002-animal" in nlora("history", model).stdout
    assert nlora("rollback", model, "--to", "colour").stdout.endswith("nothing to do\n")
    back = nlora("rollback", model, "--undo", "--json")
    assert json.loads(back.stdout) == {
        "stages": ["animal"],
        "place": None,
        "last": 2,
        "name": "animal",
    }
    assert nlora("prune", model).stdout == f"{model} has nothing set aside\n"
    both = nlora("rollback", model, "--to", "0").stdout
    assert "; colour, animal are set aside in " in both
    assert "brings them back, " in both
    assert nlora("rollback", model, "--undo").stdout.startswith("colour, animal are back; ")
    nlora("rollback", model, "--to", "0")
    kept = tree(model)
    listed = nlora("prune", model, "--dry-run")
    assert listed.stdout.startswith("001-colour, 002-animal would be removed, ")
    assert tree(model) == kept
    assert nlora("prune", model).stdout.startswith("001-colour, 002-animal are removed, ")


def test_what_else_is_set_aside_is_said(nlora, refused, finished, tmp_path):
    model = shutil.copytree(finished("inc-lora").out, tmp_path / "m")
    nlora("rollback", model)
    nlora("rollback", model)
    assert "there are 1 (002-animal), 2 (001-colour)" in refused(
        "rollback", model, "--undo", "--number", "7"
    )
    back = nlora("rollback", model, "--undo")
    assert back.stdout.splitlines() == [
        "colour is back; the model stands at stage 1 (colour)",
        "still set aside (rollback 1): 002-animal",
    ]


def test_what_cannot_be_taken_or_brought_back_is_refused(refused, finished, tmp_path):
    model = finished("inc-lora").out
    assert "holds no model" in refused("rollback", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    assert "holds no model" in refused("prune", tmp_path)
    assert "no stages set aside" in refused("rollback", model, "--undo")
    assert "did you mean 'colour'" in refused("rollback", model, "--to", "colur")
    assert "give one of them" in refused("rollback", model, "--undo", "--to", "1")
    assert "--number says" in refused("rollback", model, "--number", "1")
