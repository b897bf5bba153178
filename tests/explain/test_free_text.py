import pytest

from nlora.explain.free_text import free_text


def rows(*answers, label="the red house is old"):
    return [{"text": text, "label": label, "correct": text == label} for text in answers]


def test_what_of_lost_free_answers_is_still_there():
    right = "the red house is old"
    then = rows(right, right, right, right, "no")
    now = rows(right, "the red house is very old", "Nothing", "the end of", right)
    found = free_text(then, now)
    assert (found["lost"], found["won"]) == (3, 1)
    assert found["then"] == pytest.approx(80)
    assert found["now"] == pytest.approx(40)
    assert found["found"] == pytest.approx(100 / 3)  # the second alone has half of the words
    assert found["first"] == pytest.approx(200 / 3)
    assert found["form"] == pytest.approx(200 / 3)
    assert found["length"] == pytest.approx((5 + 6 + 1 + 3 + 5) / 21)


def test_where_nothing_was_lost_there_is_no_share_of_it():
    assert free_text(rows("a"), rows("a"))["found"] is None
