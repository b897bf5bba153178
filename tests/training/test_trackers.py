"""Trackers, with a stand-in for MLflow: one run for each stage, under the names of the others."""

import sys
from types import ModuleType, SimpleNamespace

from transformers.integrations import integration_utils

from nlora.continual.learning import run
from tests.runs import FAST, config, read_jsonl, write_stream


class _MLflow(ModuleType):
    """What the Trainer's callback asks of MLflow; `runs` are names, metrics, whether ended."""

    __version__ = "3.0.0"

    def __init__(self):
        super().__init__("mlflow")
        self.runs = []
        sizes = {"MAX_PARAM_VAL_LENGTH": 250, "MAX_PARAMS_TAGS_PER_BATCH": 100}
        self.utils = SimpleNamespace(validation=SimpleNamespace(**sizes))

    def active_run(self):
        going = [run for run in self.runs if not run.ended]
        return SimpleNamespace(info=SimpleNamespace(run_id="1")) if going else None

    def start_run(self, run_name, nested):
        self.runs.append(SimpleNamespace(name=run_name, metrics={}, ended=False))

    def log_metrics(self, metrics, step, synchronous):
        assert not self.runs[-1].ended
        for name, value in metrics.items():
            self.runs[-1].metrics.setdefault(name, []).append(value)

    def end_run(self, status="FINISHED"):
        self.runs[-1].ended = True

    def is_tracking_uri_set(self):
        return True

    get_tracking_uri = log_params = lambda self, *a, **k: None


def test_mlflow_has_a_run_for_each_stage_with_its_steps_and_what_was_measured_after_it(
    llama, tmp_path, monkeypatch
):
    mlflow = _MLflow()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setattr(integration_utils, "is_mlflow_available", lambda: True)
    stream = write_stream(tmp_path, "colour", "animal")
    run(config(llama, stream, {**FAST, "report_to": "mlflow"}), tmp_path / "out")
    assert [(one.name, one.ended) for one in mlflow.runs] == [
        ("inc-lora 001-colour", True),
        ("inc-lora 002-animal", True),
    ]
    for one in mlflow.runs:
        kept = read_jsonl(tmp_path / "out" / "stages" / one.name.split()[1] / "losses.jsonl")
        assert one.metrics["train/loss/task"] == [row["task"] for row in kept]
        assert "train/loss" not in one.metrics  # it would be a file where a folder must be
        assert len(one.metrics["eval/average_accuracy"]) == 1
    assert "eval/accuracy/colour" in mlflow.runs[1].metrics
