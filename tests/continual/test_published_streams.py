"""A run on a stream of another paper: free text, each task measured by its own metric."""

import pytest

from nlora.continual.learning import run
from nlora.data.convert import convert
from nlora.store.directory import ModelDirectory
from tests.data.test_convert import folder, trace_files
from tests.runs import config


def test_each_task_of_trace_is_measured_by_its_own_metric(llama, tmp_path):
    convert("trace", folder(tmp_path / "files", trace_files()), tmp_path / "data")
    names = "fomc,scienceqa,20minuten"
    asked = config(llama, None, data=str(tmp_path / "data")).model_copy(update={"stream": names})
    results = run(asked, tmp_path / "out")
    assert results["tasks"] == names.split(",")
    *_, last = ModelDirectory(tmp_path / "out").stages()
    assert [task["metric"] for task in last.tasks] == ["sari"]
    # An answer of four tokens is no reference, but some of what should go from the source is gone.
    assert 0 < last.accuracy["20minuten"] < 100
    assert results["accuracy_matrix"][-1] == pytest.approx(list(last.accuracy.values()))
