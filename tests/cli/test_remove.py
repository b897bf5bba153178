"""`nlora remove` shows what a task's update was to the others, and says what it is not."""

import json
import shutil

from tests.runs import tree


def test_a_task_goes_and_what_that_costs_is_shown(nlora, refused, finished, tmp_path):
    model = shutil.copytree(finished("inc-lora").out, tmp_path / "m")
    before = tree(model)
    dry = nlora("remove", model, "colour", "--dry-run")
    assert dry.exit_code == 0, dry.stderr
    assert "on top of it" in dry.stdout
    assert f"nothing was changed; `nlora remove {model} colour` does it" in dry.stdout
    assert tree(model) == before
    done = nlora("remove", model, "colour")
    assert "'colour' is out of the model (stage 3). This is no unlearning" in done.stdout
    assert done.stdout.splitlines()[:4] == dry.stdout.splitlines()[:4]
    again = json.loads(nlora("remove", model, "colour", "--json").stdout)
    assert again == {"path": str(model), "task": "colour", "rows": [], "stage": 3}
    assert "taken out" in nlora("history", model).stdout
    assert "unknown task 'colur'" in refused("remove", model, "colur")
    assert "holds no model" in refused("remove", tmp_path / "none", "colour")
