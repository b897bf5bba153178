"""Metrics by name, on answers written by hand."""

import sys

import pytest

from nlora.data.task import Example, Task
from nlora.errors import NloraError
from nlora.evaluation.answers import Prediction
from nlora.evaluation.metrics import METRICS, NEEDS, by_label, metric
from nlora.evaluation.own_metrics import try_out
from nlora.evaluation.words import Words


def rows(*pairs):
    return [Prediction(text, label) for text, label in pairs]


def test_exact_match_is_the_default():
    found = rows((" Good.", "good"), ("bad", "good"))
    assert metric(None)(found) == metric("exact")(found) == metric("accuracy")(found) == 50


def test_macro_f1_counts_each_label_the_same_and_an_answer_that_is_none_as_a_miss():
    found = rows(("a", "a"), ("a", "a"), ("a", "b"), ("b", "b"), ("what?", "b"))
    # a: precision 2/3, recall 1; b: precision 1, recall 1/3.
    assert metric("macro-f1")(found) == pytest.approx(100 * (0.8 + 0.5) / 2)


def test_macro_f1_counts_a_label_that_was_answered_and_is_never_right():
    labels = ("a", "b", "c")
    found = [
        Prediction(text, label, labels=labels) for text, label in zip("acb?", "aabb", strict=True)
    ]
    # a: precision 1, recall 1/2; b likewise; c: 0; an answer that is no label is none.
    assert metric("macro-f1")(found) == pytest.approx(100 * (2 / 3 + 2 / 3) / 3)


def test_macro_f1_of_answers_without_a_list_is_over_those_that_are_right():
    found = rows(("a", "a"), ("c", "a"), ("b", "b"))
    # a: precision 1, recall 1/2; b: 1; c was answered, and nobody says that it is a label.
    assert metric("macro-f1")(found) == pytest.approx(100 * (2 / 3 + 1) / 2)


def test_contains_counts_whole_words():
    found = rows(("It is New York.", "new york"), ("category", "cat"), ("a cat", "Cat"))
    assert metric("contains")(found) == pytest.approx(200 / 3)


def test_words_of_other_scripts_are_words():
    found = rows(("答案是北京", "北京"), ("हिन्दी की किताब", "किताब"), ("किताबें", "किताब"))
    assert metric("contains")(found) == pytest.approx(200 / 3)
    pytest.importorskip("torchmetrics")
    assert metric("f1")(rows(("北京市", "北京"))) == pytest.approx(80.0)


def test_f1_is_of_tokens_without_articles():
    pytest.importorskip("torchmetrics")
    found = rows(("the cat sat", "a cat sat down"), ("dog", "cat"))
    assert metric("f1")(found) == pytest.approx(100 * 0.8 / 2)


def test_rouge_l_is_the_longest_common_subsequence():
    pytest.importorskip("rouge_score")
    found = rows(("the cat sat on mats", "the cat sat down"), ("a", "a"), ("b", "c"))
    assert metric("rouge-l")(found) == pytest.approx(100 * (2 * 0.6 * 0.75 / 1.35 + 1) / 3)


def test_a_function_of_ones_own_is_given_answers_and_labels(tmp_path, monkeypatch):
    (tmp_path / "my_metrics.py").write_text(
        "def first(answers, labels):\n"
        "    return 100 * sum(a[0] == b[0] for a, b in zip(answers, labels)) / len(labels)\n"
        "def words(answers, labels):\n    return 'many'\n"
        "def none(answers, labels):\n    return float('nan')\n"
        "def fails(answers, labels):\n    return 1 / 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = rows(("good", "great"), ("bad", "great"))
    assert metric("my_metrics:first")(found) == 50
    with pytest.raises(NloraError, match="gave 'many', which is no number"):
        metric("my_metrics:words")(found)
    with pytest.raises(NloraError, match="gave nan, which is no number"):
        metric("my_metrics:none")(found)
    with pytest.raises(NloraError, match="my_metrics:fails': ZeroDivisionError: division by zero"):
        metric("my_metrics:fails")(found)
    for name in ("my_metrics:second", "no_such_module:first", ":first"):
        with pytest.raises(NloraError, match=name):
            metric(name)


def test_a_function_of_a_script_is_found_there_and_asked_for_elsewhere(monkeypatch):
    right = lambda answers, labels: 100.0  # noqa: E731
    monkeypatch.setattr(sys.modules["__main__"], "all_right", right, raising=False)
    assert metric("__main__:all_right")(rows(("x", "y"))) == 100
    with pytest.raises(NloraError, match="was defined in the script that used it: give the file"):
        metric("__main__:none_right")


def test_a_function_of_ones_own_is_tried_on_right_answers(tmp_path, monkeypatch):
    (tmp_path / "tried_metrics.py").write_text(
        "def share(answers, labels):\n"
        "    return sum(a == b for a, b in zip(answers, labels)) / len(labels)\n"
        "def per_cent(answers, labels):\n    return 100 * share(answers, labels)\n"
        "def fails(answers, labels):\n    return answers[0].score\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def tried(function):
        name = f"tried_metrics:{function}" if function != "exact" else function
        task = Task("a", metric=name)
        told = []
        try_out(metric(name), task, [Example(task, "x", "y")] * 3, told.append)
        return told

    assert tried("per_cent") == tried("exact") == []
    [line] = tried("share")
    assert "gives 1 for answers that are right; 100 is expected" in line
    with pytest.raises(NloraError, match="tried_metrics:fails': AttributeError"):
        tried("fails")


@pytest.mark.parametrize("text", ["raise RuntimeError('no\\nluck')", "def half(:"])
def test_a_module_in_the_working_directory_that_fails_is_one_line(text, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failing_metric.py").write_text(text)
    with pytest.raises(NloraError, match=r"RuntimeError: no luck|SyntaxError: ") as caught:
        metric("failing_metric:half")
    assert "\n" not in str(caught.value)


def test_an_unknown_metric_is_one_line_with_the_nearest():
    with pytest.raises(NloraError, match="unknown metric 'rougel'; did you mean 'rouge-l'"):
        metric("rougel")


@pytest.mark.parametrize("name", ["macro-f1", "f1", "rouge-l"])
def test_a_library_that_is_missing_is_named_with_its_extra(name, monkeypatch):
    def missing(module):
        raise ImportError(module)

    assert name in METRICS
    monkeypatch.setattr("nlora.evaluation.metrics.importlib.import_module", missing)
    with pytest.raises(NloraError, match=rf"'{name}' needs \w+: pip install 'nlora\[metrics\]'"):
        metric(name)


def test_what_is_known_of_each_label():
    found = by_label(
        rows(("A.", "a"), ("b", "a"), ("b", "b"), ("x", "b"), ("b", "a")), ("a", "b", "c")
    )
    assert found["a"] == {
        "precision": 100,
        "recall": pytest.approx(100 / 3),
        "support": 3,
        "answered": {"a": 1, "b": 2},
        "none": 0,
    }
    assert found["b"]["precision"] == pytest.approx(100 / 3)
    assert (found["b"]["recall"], found["b"]["none"]) == (50, 1)
    assert found["c"] == {
        "precision": None,
        "recall": None,
        "support": 0,
        "answered": {},
        "none": 0,
    }


def test_shares_of_labels_that_were_right_more_than_once():
    found = by_label(rows(("a", "a"), ("a", "a"), ("a", "b")), ("a", "b"))
    assert found["a"]["precision"] == pytest.approx(200 / 3)
    assert (found["a"]["recall"], found["b"]["recall"]) == (100, 0)


def test_labels_that_differ_in_punctuation_are_counted_apart():
    found = by_label(rows(("c++", "C++"), ("C", "C++"), ("c", "C")), ("C", "C++"))
    assert found["C++"]["answered"] == {"C": 1, "C++": 1}
    assert found["C"]["answered"] == {"C": 1}


def test_verbatim_keeps_signs_and_points_apart():
    found = rows((" 3 ", "3"), ("3", "-3"), ("15", "1.5"), ("A", "a"), ("b", " b"))
    assert metric("verbatim")(found) == 40


def test_a_choice_counts_whatever_its_reasons():
    found = rows(("A\nBecause x", "A\nBecause y"), ("Answer: B", "B"), ("C", "B"), ("", "A"))
    assert metric("choice")([*found, *rows(("A) x", "A. y"))]) == 60


def test_rouge_l_of_stems():
    pytest.importorskip("rouge_score")
    found = rows(("cats running", "cat run"))
    assert metric("rouge-l-stem")(found) == 100
    assert metric("rouge-l")(found) == 0


@pytest.mark.parametrize("name", ["rouge-l", "rouge-l-stem"])
def test_rouge_l_of_other_scripts(name):
    pytest.importorskip("rouge_score")
    assert metric(name)(rows(("кот сел", "кот, сел."), ("猫坐下", "猫坐。"))) == pytest.approx(90)
    assert metric(name)(rows(("हिन्दी", "हिन्दी"), ("दूध", "हिन्दी"))) == 50


@pytest.mark.parametrize("stem", [False, True])
def test_english_words_are_those_of_rouge_score(stem):
    pytest.importorskip("rouge_score")
    from rouge_score.tokenizers import DefaultTokenizer

    text = 'Cats\' running_shoes cost $3.50 (or 4)\n\tper DAY - "relational" ones, ads, e.g. mine!'
    assert Words(stem).tokenize(text) == DefaultTokenizer(stem).tokenize(text)


def test_edit_similarity_is_of_code_with_its_literals():
    pytest.importorskip("rapidfuzz")
    found = rows(("x = <NUM_LIT:2>", "x = 2"), ("f('<STR_LIT>')", "f('')"), ("abcd", "abxx"))
    # "abcd" and "abxx" have four edits (two deletions, two insertions) in eight characters.
    assert metric("edit-similarity")(found) == pytest.approx((100 + 100 + 50) / 3)
    assert metric("edit-similarity")(rows(("x = <NUM_LIT>", "x = 0"))) == 100


@pytest.mark.parametrize("name", ["rouge-l-stem", "edit-similarity"])
def test_a_missing_library_is_one_line(name, monkeypatch):
    monkeypatch.setitem(NEEDS, name, "no_such_library")
    with pytest.raises(NloraError, match=r"needs no_such_library: pip install 'nlora\[metrics\]'"):
        metric(name)
