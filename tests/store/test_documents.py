"""`model.json` and `results.json`: what is wrong is one line with file and key."""

import json

import pytest

from nlora.errors import NloraError
from nlora.store.directory import ModelDirectory

METRICS = ("average_accuracy", "learning_accuracy", "forgetting", "backward_transfer")
RESULTS = {
    **{"tasks": ["a", "b"], "stages": ["a", "b"], "zero_shot": [1.0, None]},
    **{"accuracy_matrix": [[50.0, None], [40.0, 60.0]], **dict.fromkeys(METRICS, 5.0)},
    **{"forward_transfer": None, "seconds": 2.5, "peak_memory_bytes": 10},
    **{"off_list": {"average": 0.0}, "among_labels": {"average_accuracy": 4}},
}


@pytest.fixture
def directory(tmp_path):
    made = ModelDirectory(tmp_path / "out")
    with made.locked():
        made.write_config({"model": "m", "base": {"title": "größe", "revision": None}})
        made.write_results(RESULTS)
    return made


def edited(directory, name, **values):
    """Change a file; a value of ... takes its key out."""
    path = directory.path / name
    kept = {**json.loads(path.read_text("utf-8")), **values}
    path.write_text(json.dumps({k: v for k, v in kept.items() if v is not ...}), "utf-8")


def refusal(read):
    with pytest.raises(NloraError) as error:
        read()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_document_is_read_back_without_its_hash_and_may_be_laid_out_otherwise(directory):
    expected = {"format": 2, "model": "m", "base": {"title": "größe", "revision": None}}
    assert directory.config() == expected
    edited(directory, "model.json")
    assert directory.config() == expected


@pytest.mark.parametrize("values", [{"model": "n"}, {"sha256": ...}, {"seed": 1}], ids=str)
def test_a_document_that_was_changed_is_not_believed(directory, values):
    edited(directory, "model.json", **values)
    assert "model.json was changed or damaged" in refusal(directory.config)


def test_a_document_from_before_there_were_hashes_is_read_and_gets_one(directory):
    edited(directory, "model.json", format=1, sha256=..., seed=3)
    old = directory.config()
    assert (old["format"], old["seed"]) == (1, 3)
    directory.write_config(old)
    assert directory.config() == {**old, "format": 2}
    edited(directory, "model.json", seed=4)
    assert "changed" in refusal(directory.config)


DOCUMENTS = {
    "a later one": ({"format": 3}, "its 'format' is 3, not 2"),
    "true": ({"format": True}, "its 'format' is True"),
    "words": ({"format": []}, r"its 'format' is []"),
    "settings": ({"settings": [1]}, "'settings': "),
    "tasks": ({"tasks": [1]}, "'tasks.0': "),
    "base": ({"base": "t5"}, "'base': "),
    "revision": ({"base": {"title": "t", "revision": 1}}, "'base.revision': "),
    "model": ({"model": None}, "'model': "),
}


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_document_of_other_types_is_named_with_its_key(directory, kind):
    values, said = DOCUMENTS[kind]
    edited(directory, "model.json", **{"format": 1, "sha256": ..., **values})
    line = refusal(directory.config)
    assert f"{directory.path / 'model.json'}" in line
    assert said in line


NESTED = {"levels": 150, "more than Python has": 100_000}


@pytest.mark.parametrize("kind", NESTED)
def test_a_nested_file_is_one_line(directory, kind):
    path = directory.path / "results.json"
    path.write_text('{"tasks": ' + "[" * NESTED[kind] + "]" * NESTED[kind] + "}")
    assert str(path) in refusal(directory.results)


WRONG = {
    "missing": ({"stages": ...}, "'stages': is missing"),
    "text": ({"average_accuracy": "50"}, "'average_accuracy': "),
    "true": ({"forgetting": True}, "'forgetting': "),
    "nan": ({"forgetting": float("nan")}, "'forgetting': "),
    "huge": ({"seconds": 1e300}, "'seconds': "),
    "row": ({"accuracy_matrix": [[1.0], 2.0]}, "'accuracy_matrix.1': "),
    "inside": ({"off_list": {"average": "no"}}, "'off_list.average': "),
}


@pytest.mark.parametrize("kind", WRONG)
def test_results_of_other_types_are_named_with_their_key(directory, kind):
    values, said = WRONG[kind]
    edited(directory, "results.json", **values)
    line = refusal(directory.results)
    assert line.startswith(f"{directory.path / 'results.json'}: {said}")
