import torch

from tests.methods.helpers import TASKS, learn, stages, update
from tests.runs import manifests
from tests.tiny import model


def test_every_parameter_is_trained_and_the_next_task_goes_on_from_there(llama, tmp_path):
    learn(llama, tmp_path, "seq-ft", TASKS[:2], learning_rate=[1e-3, 0.0])
    base = model("llama", layers=1)
    base.lm_head.weight.data.mul_(30)  # as the fixture's
    first, second = update(tmp_path, 1), update(tmp_path, 2)
    before = dict(base.named_parameters())
    assert first.keys() == before.keys()
    assert not any(torch.equal(first[name], before[name]) for name in first)
    # nothing moved in the second stage, so it began where the first ended
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert manifests(tmp_path) == [["001-colour"], ["002-size"]]
    assert stages(tmp_path)[0].trainable_parameters == sum(p.numel() for p in before.values())
