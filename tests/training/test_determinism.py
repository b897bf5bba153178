"""Deterministic kernels while a run asks for them, and only then."""

import pytest
import torch

from nlora.continual.learning import run
from nlora.continual.model import ContinualModel
from nlora.errors import NloraError
from nlora.training.determinism import deterministic
from tests.runs import config, write_stream


@pytest.mark.parametrize("wanted", [True, False])
def test_a_run_has_them_if_it_asks_and_leaves_no_trace(wanted, llama, tmp_path, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    seen = []
    evaluate = ContinualModel.evaluate

    def watch(self, tasks):
        seen.append(torch.are_deterministic_algorithms_enabled())
        return evaluate(self, tasks)

    monkeypatch.setattr(ContinualModel, "evaluate", watch)
    stream = write_stream(tmp_path, "colour")
    run(config(llama, stream, {"deterministic": wanted}, evaluate="all"), tmp_path / "out")
    assert seen == [wanted, wanted]
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_without_one_is_one_clear_line():
    place, values = torch.tensor([1, 1]), torch.tensor([2.0, 3.0])
    with (
        pytest.raises(NloraError, match=r"^setting deterministic: put_.*deterministic") as caught,
        deterministic(True),
    ):
        torch.zeros(3).put_(place, values)
    assert "\n" not in str(caught.value)
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(RuntimeError, match="something else"), deterministic(True):
        raise RuntimeError("something else")
