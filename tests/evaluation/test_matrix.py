import pytest

from nlora.evaluation.matrix import summary

MATRIX = [[80.0, 10.0, None], [60.0, 70.0, 20.0], [70.0, 50.0, 90.0]]


def test_metrics_by_hand():
    found = summary(MATRIX, [1.0, 2.0, 3.0])
    assert found["average_accuracy"] == pytest.approx((70 + 50 + 90) / 3)
    assert found["learning_accuracy"] == pytest.approx((80 + 70 + 90) / 3)
    # task 1: best of 80, 60 before the end, then 70; task 2: 70, then 50
    assert found["forgetting"] == pytest.approx((10 + 20) / 2)
    assert found["backward_transfer"] == pytest.approx((-10 - 20) / 2)
    assert found["forward_transfer"] == pytest.approx((10 - 2 + 20 - 3) / 2)


def test_forgetting_counts_the_best_accuracy_before_the_last_stage_only():
    # accuracy on task 1 is best after the last stage: forgetting is negative, not 0
    assert summary([[50.0, None], [75.0, 60.0]], None)["forgetting"] == -25.0


def test_one_task_has_no_forgetting_and_no_transfer():
    found = summary([[50.0]], [10.0])
    assert found["average_accuracy"] == found["learning_accuracy"] == 50.0
    assert found["forgetting"] is None
    assert found["backward_transfer"] is None
    assert found["forward_transfer"] is None


def test_nothing_learned_has_no_numbers():
    assert set(summary([], [1.0]).values()) == {None}


def test_a_task_never_measured_before_the_last_stage_has_no_forgetting():
    assert summary([[None, None], [60.0, 70.0]], None)["forgetting"] is None


def test_what_was_not_measured_is_null_and_never_a_mean_over_fewer_tasks():
    assert summary([[80.0, None], [60.0, None]], None)["average_accuracy"] is None
    assert summary([[80.0, None], [60.0, 70.0]], [0.0, 0.0])["forward_transfer"] is None


def test_what_one_task_brought_in_stages_counts_as_one_task_in_proportion_to_its_tests():
    # two columns of "a", of 30 and 10 tests, and one of "b" between them
    found = summary(MATRIX, [1.0, 2.0, 3.0], [("a", 30), ("b", 6), ("a", 10)])
    assert found["learning_accuracy"] == pytest.approx(((30 * 80 + 10 * 90) / 40 + 70) / 2)
    assert found["forgetting"] == pytest.approx((10 + 20) / 2)
    assert found["backward_transfer"] == pytest.approx((-10 - 20) / 2)
    assert found["forward_transfer"] == pytest.approx((8 + 17) / 2)
    twice = summary(
        [*MATRIX, [50.0, 50.0, 80.0]], [1.0, 2.0, 3.0], [("a", 30), ("b", 6), ("a", 10)]
    )
    assert twice["forgetting"] == pytest.approx(((30 * 30 + 10 * 10) / 40 + 20) / 2)


def test_gains_of_one_task_in_stages_count_in_proportion_to_its_tests():
    matrix = [[50.0, 10.0, 20.0], [50.0, 60.0, 50.0], [50.0, 60.0, 70.0]]
    found = summary(matrix, [0.0, 0.0, 0.0], [("b", 7), ("a", 30), ("a", 10)])
    assert found["forward_transfer"] == pytest.approx((30 * 10 + 10 * 50) / 40)
