import time

import pytest

from nlora.data.check import check
from nlora.data.comparing import normalise
from nlora.errors import NloraError
from nlora.evaluation.normalise import normalise as evaluation_normalise


def rows(*texts: str, label: str = "good") -> list[dict[str, str]]:
    return [{"label": label, "sentence": text} for text in texts]


def test_a_row_tells_what_a_reader_of_results_should_know(write_dataset):
    write_dataset("TC/News", dev=None)
    data = write_dataset(
        "SC/Shop",
        train=rows("A fine kettle.", "It leaks."),
        test=rows("a  fine kettle", "New.", "Newer.") + rows("Broken.", label="bad"),
        dev=rows("Newer.", "New.", "a  fine kettle") + rows("Broken.", label="bad"),
    )
    report = check(data)
    assert report.problems == ()
    news, shop = report.datasets
    assert (news.name, news.group, news.dev, news.dev_is_test) == ("news", "TC", 0, False)
    assert (shop.labels, shop.train, shop.dev, shop.test) == (2, 2, 4, 4)
    assert shop.majority == 0.75
    assert shop.test_in_train == 1
    assert shop.dev_is_test


def test_every_problem_is_reported_and_the_rest_is_read(write_dataset):
    write_dataset("TC/News")
    write_dataset("Odd/Odd", test=None)
    write_dataset("SC/Other", labels=["good", "good"], dev="[\n{]")
    data = write_dataset(
        "SC/Shop", train=[*rows("One."), {"label": "god", "sentence": "x"}, {"label": "bad"}]
    )
    report = check(data)
    by_name = {row.name: row for row in report.datasets}
    assert (by_name["shop"].train, by_name["shop"].test) == (1, 1)
    assert (by_name["odd"].train, by_name["odd"].test, by_name["odd"].majority) == (2, 0, None)
    assert (by_name["other"].labels, by_name["other"].train, by_name["other"].dev) == (0, 2, 0)
    expected = [
        ("Odd/Odd", "no instruction is known for group 'Odd'"),
        ("Odd/Odd/test.json", "no such file"),
        ("SC/Other/labels.json", "stands there twice"),
        ("SC/Other/dev.json, line 2", "malformed JSON"),
        ("SC/Shop/train.json, line 6, example 2", "did you mean 'good'"),
        ("SC/Shop/train.json, line 10, example 3", "no 'sentence'"),
    ]
    assert len(report.problems) == len(expected)
    for problem, (where, what) in zip(report.problems, expected, strict=True):
        assert where in problem
        assert what in problem


def test_a_name_that_two_groups_use_is_a_problem(write_dataset):
    write_dataset("TC/shop")
    report = check(write_dataset("SC/Shop"))
    assert [row.group for row in report.datasets] == ["SC", "TC"]
    assert "several folders" in report.problems[0]


def test_thousands_of_bad_rows_are_reported_at_once(write_dataset):
    data = write_dataset(train=[{"label": "x", "sentence": f"{i}"} for i in range(5000)])
    started = time.process_time()
    report = check(data)
    assert time.process_time() - started < 2
    assert len(report.problems) == 5001
    assert "line 19998, example 5000" in report.problems[4999]


def test_a_folder_without_data_sets_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NloraError, match="data"):
            check(folder)


@pytest.mark.parametrize("text", ["  A  Fine\tKettle! ", "it's", "ÄÖ - ß", "…", ""])
def test_texts_are_compared_as_in_evaluation(text):
    assert normalise(text) == evaluation_normalise(text)


def test_labels_are_counted_and_rows_without_one_told(write_dataset):
    data = write_dataset(
        "NLI/MNLI",
        labels=["yes", "no", "never"],
        dev=None,
        train=rows("A.", "B.", label="no") + rows("C.", label="yes") + rows("D.", label="-"),
        test=rows("E.", label="-") + rows("F.", label="no"),
    )
    report = check(data)
    [mnli] = report.datasets
    assert report.problems == ()
    assert mnli.counts == {"no": 2, "yes": 1, "never": 0}
    assert (mnli.train, mnli.test, mnli.majority) == (3, 1, 1.0)
    assert [note.rpartition("/")[2] for note in mnli.notes] == [
        "train.json: 1 rows with label '-', which means none, left out",
        "test.json: 1 rows with label '-', which means none, left out",
    ]


def test_free_text_has_no_majority(tmp_path):
    lines = "text,label\n" + "".join(f"q{i},a{i}\n" for i in range(200))
    (tmp_path / "free.csv").write_text(lines)
    [free] = check(str(tmp_path / "free.csv")).datasets
    assert (free.counts, free.majority, free.test) == ({}, None, 40)


def test_a_file_is_read_whatever_it_is_called(tmp_path):
    for name in ("reviews (1).csv", "-- #2 – März, alle!.csv"):
        (tmp_path / name).write_text("text,label\n" + "a,x\nb,y\nc,x\nd,y\n")
        report = check(tmp_path / name)
        assert report.problems == ()
    assert report.datasets[0].name == "2 März alle"
