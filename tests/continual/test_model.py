"""The model in memory: opened, looked at as it was and without an update, and left as it is."""

import pytest
import torch

from nlora.continual.model import ContinualModel
from nlora.errors import NloraError
from tests.runs import read_jsonl


@pytest.fixture(scope="module")
def opened(finished):
    return ContinualModel.open(finished("inc-lora").out)


def logits(model):
    with torch.no_grad():
        return model.adapter.model.eval()(torch.tensor([[5, 6, 7, 8]])).logits


def delta(model, stage):
    """What one stage's update adds to each matrix."""
    with model.adapter.after([model.directory.update_paths()[stage - 1]]):
        return {name: f.delta().clone() for name, f in model.adapter.factors().items()}


def test_it_answers_as_it_did_after_its_last_stage(opened, finished):
    record = opened.records[-1]
    rows = read_jsonl(opened.directory.stage_path(record) / "predictions.jsonl")
    found = opened.evaluate(opened.stream)
    assert [p.text for answers in found.values() for p in answers] == [r["text"] for r in rows]


def test_it_can_be_looked_at_as_it_was_and_is_itself_again(opened):
    now = logits(opened)
    with opened.after(1):
        first = logits(opened)
    with opened.after(0), opened.adapter.model.disable_adapter():
        base = logits(opened)
    with opened.after(0):
        assert torch.equal(logits(opened), base)
    assert not torch.allclose(first, now)
    assert not torch.allclose(first, base)
    assert torch.equal(logits(opened), now)


def test_an_update_is_taken_out_and_the_others_stay(opened):
    now, second = logits(opened), delta(opened, 2)
    with opened.without(1):
        left = {name: f.delta() for name, f in opened.adapter.factors().items()}
        assert all(torch.equal(left[name], second[name]) for name in second)
        assert opened.adapter.past == []
        assert not torch.allclose(logits(opened), now)
    assert torch.equal(logits(opened), now)


def test_what_is_no_update_by_itself_cannot_be_taken_out(opened, finished):
    with pytest.raises(NloraError, match="no update of stage 7"), opened.without(7):
        pass
    one = ContinualModel.open(finished("seq-lora").out)
    with pytest.raises(NloraError, match="no update of stage 1"), one.without(1):
        pass
