"""`model.json`, `stage.json`, `results.json` and ledgers: nothing but a NloraError."""

import json
from contextlib import suppress
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlora.errors import NloraError
from nlora.page.build import page
from nlora.plan.config import stored_config
from nlora.plan.resolve import choose
from nlora.report.formats import ENDINGS, render
from nlora.report.tables import tables
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.manifests import Manifest
from nlora.store.records import SEAL, seal
from tests.fuzz.edits import EACH, as_json, damaged, edited
from tests.report.rows import explained, failed, geometry, row
from tests.store.test_documents import RESULTS

DOCUMENT = {
    **{"format": 1, "model": "m", "method": "n-lora", "stream": "s.yaml", "data": None, "seed": 0},
    **{"max_train": None, "max_eval": 5, "evaluate": "seen", "plugin": None, "tasks": ["a", "b"]},
    **{"settings": {"rank": 8, "l1": 1e-3, "precision": "fp32", "carrier": "lora"}},
    **{"base": {"title": "m", "revision": None}, "versions": {"torch": "2"}},
}
TEST = {"task": "a", "text": "t", "label": "l"}
LEDGER = [
    row(seed=0, geometry=geometry(1.0, 2.0, 3.0, 0.5), count=9),
    row("n-lora", seed=0, geometry=geometry(1.0, 2.0, 3.0, 0.5), count=9, tuning={"trials": [1]}),
    row("lwf", explained=explained(), count=9),
    row("sparse", notes={"a": {"sparse": {"matrices": {}, "collision_rates": [0.5]}}}, count=9),
    failed("ewc"),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Two stages and their results."""
    made = ModelDirectory(tmp_path_factory.mktemp("fuzz") / "out")
    with made.locked():
        made.write_config(DOCUMENT)
        for index, name, on in ((1, "a", None), (2, "b", "001-a")):
            task = {"name": name, "labels": ["x"]}
            manifest = Manifest(on=on, adds=[f"00{index}-{name}"])
            record = StageRecord(index=index, name=name, manifest=manifest, tasks=[task])
            record.accuracy, record.fingerprints = {name: 50.0}, {name: "00"}
            record.notes, record.budget = {"l1": {"lambda": None}}, {"max_train": 4}

            def write(folder):
                (folder / "test.jsonl").write_text(json.dumps(TEST) + "\n")

            made.commit(record, write)
        made.write_results(RESULTS)
    return made


@pytest.fixture
def restored(directory):
    """The directory, which is as it was afterwards."""
    kept = {path: path.read_bytes() for path in directory.path.rglob("*") if path.is_file()}
    yield directory
    for path, data in kept.items():
        path.write_bytes(data)


def read(directory):
    """All that is read of a directory before a model is loaded."""
    for call in (
        directory.exists,
        lambda: choose(stored_config(directory)),
        lambda: [record.folder for record in directory.stages()],
        directory.zero_shot,
        directory.update_paths,
        directory.tests,
        directory.precision,
        directory.results,
    ):
        with suppress(NloraError):
            call()


@EACH
@given(edited(DOCUMENT))
def test_documents_of_other_values(restored, document):
    values = {k: v for k, v in document.items() if k != SEAL}
    (restored.path / "model.json").write_bytes(as_json(values))
    read(restored)


@EACH
@given(st.data())
def test_records_of_other_values_with_their_own_hash(restored, data):
    path = restored.path / "stages" / "002-b" / "stage.json"
    record = data.draw(edited(json.loads(path.read_text())))
    sealed = {**record, SEAL: seal(json.loads(as_json(record)))}
    before = path.read_bytes()
    path.write_bytes(as_json(sealed))
    read(restored)
    path.write_bytes(before)


@EACH
@given(edited(RESULTS))
def test_results_of_other_values(restored, results):
    (restored.path / "results.json").write_bytes(as_json(results))
    read(restored)


FILES = ("model.json", "results.json", "stages/002-b/stage.json", "stages/001-a/test.jsonl")


@EACH
@given(st.data())
def test_damaged_files(restored, data):
    path = restored.path / data.draw(st.sampled_from(FILES))
    before = path.read_bytes()
    path.write_bytes(data.draw(damaged(before)))
    read(restored)
    path.write_bytes(before)


@EACH
@given(edited(LEDGER), st.sampled_from(list(ENDINGS)))
def test_ledgers_of_other_values(tmp_path, rows, form):
    lines = rows if isinstance(rows, list) else [rows]
    make(tmp_path, b"".join(as_json(line) + b"\n" for line in lines), form)


@EACH
@given(damaged(b"".join(as_json(line) + b"\n" for line in LEDGER)), st.sampled_from(list(ENDINGS)))
def test_damaged_ledgers(tmp_path, data, form):
    make(tmp_path, data, form)


def make(folder, data, form):
    path = folder / "ledger.jsonl"
    path.write_bytes(data)
    with suppress(NloraError):
        for table in tables([path]):
            render([table], form)
    with suppress(NloraError), patch("nlora.page.build._vega", lambda: ""):
        page([path])
