from tests.budget import LEAST, exceeded

BUDGET = {"a": 10.0, "b": 20.0, "c": 30.0}


def test_a_file_that_takes_twice_its_time_is_named_however_fast_the_machine_is():
    assert exceeded(BUDGET, BUDGET) == []
    for speed in (0.5, 1.0, 10.0):
        taken = {name: speed * seconds for name, seconds in BUDGET.items()}
        assert exceeded(taken, BUDGET) == []
        taken["a"] *= 2.1
        (line,) = exceeded(taken, BUDGET)
        assert line.startswith("over budget: a took")


def test_files_of_a_moment_may_take_a_few_times_as_long_and_new_ones_need_a_budget():
    assert exceeded({**BUDGET, "new": 2 * LEAST - 0.1}, BUDGET) == []
    (line,) = exceeded({**BUDGET, "new": 2 * LEAST + 0.1}, BUDGET)
    assert f"new took {2 * LEAST + 0.1:.1f} s" in line


def test_the_files_that_are_not_run_do_not_count():
    assert exceeded({"a": 10.0}, BUDGET) == []
    assert exceeded({"a": 10.0, "b": 20.0}, BUDGET) == []
