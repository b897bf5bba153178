"""A made-up benchmark in the published layout, with the tasks of the standard orders."""

import json

import pytest

FOLDERS = {"dbpedia": "TC", "amazon": "SC", "yahoo": "TC", "agnews": "TC"}


@pytest.fixture(scope="session")
def standard(tmp_path_factory):
    """A data folder with the four tasks of orders 1 to 3: the label follows from the first word."""
    place = tmp_path_factory.mktemp("benchmark")
    for name, kind in FOLDERS.items():
        path = place / kind / name
        path.mkdir(parents=True)
        labels = [f"{name[0]}{letter}" for letter in "xyz"]
        (path / "labels.json").write_text(json.dumps(labels))
        for split, count in (("train", 12), ("test", 6)):
            rows = [
                {"sentence": f"{'pqr'[i % 3] * 3} {split} {i}", "label": labels[i % 3]}
                for i in range(count)
            ]
            (path / f"{split}.json").write_text(json.dumps(rows))
    return place
