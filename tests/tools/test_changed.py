from pathlib import Path

from tools.changed import tests_of as found_for


def found(*names):
    return found_for([Path(name) for name in names])


def test_a_module_has_the_tests_of_its_name_first_and_then_those_of_its_room():
    own, room = found("src/nlora/lowrank/l1.py")
    assert own == {"tests/lowrank/test_l1.py"}
    assert "tests/lowrank/test_factors.py" in room
    assert all(test.startswith("tests/lowrank/") for test in room)


def test_a_test_that_changed_is_one_of_them_and_one_that_is_gone_is_not():
    own, _ = found("tests/store/test_atomic.py", "tests/store/test_never_was.py")
    assert own == {"tests/store/test_atomic.py"}


def test_documentation_helpers_and_tools_have_tests_too():
    assert found("docs/guide.md")[0] == {"tests/test_docs.py"}
    assert "tests/report/test_tables.py" in found("tests/report/rows.py")[1]
    assert found("training_tools/tiny_t5/train.py")[1] == {"tests/training_tools/test_tiny_t5.py"}
    assert found("src/nlora/recipes/a.yaml", "LICENSE")[1] == {"tests/recipes/test_recipes.py"}
