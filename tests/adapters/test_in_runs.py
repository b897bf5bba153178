"""What adapters can do in whole runs, broken off and resumed, by methods that are defined here.

The file is its own plug-in.
"""

import os

import pytest
import torch
from safetensors.torch import load_file

from nlora.methods.base import Method
from tests.methods.helpers import TASKS, answers, learn, losses, same_bits, stages

BROKEN = "NLORA_TEST_BREAK_AT"
"""The stage whose end fails."""


class Breaking(Method):
    def end(self, ctx):
        if os.environ.get(BROKEN) == str(ctx.stage.index):
            raise RuntimeError("broken off")


class ScaledPast(Breaking):
    name = "scaled-past"
    summary = "scalars on earlier updates (SD-LoRA)"
    scales_earlier = True


class FrozenA(Breaking):
    name = "frozen-a"
    summary = "A is drawn and stays (LoRA-FA)"
    frozen = ("A",)


class Started(Breaking):
    name = "started"
    summary = "the settings' start"


class StartedOnce(Breaking):
    name = "started-once"
    summary = "the settings' start, one update"
    continues = True


class Tuned(Breaking):
    name = "tuned"
    summary = "any of PEFT's tuners"

    @property
    def adapter(self):
        return "peft"


RUNS = {
    "scaled-past": {},
    "frozen-a": {},
    "started": {"start": "pissa"},
    "started-once": {"start": "olora"},
    "tuned": {"peft_type": "LOHA", "peft_options": {"r": 2}},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_was_broken_off_ends_as_an_unbroken_one(name, llama, tmp_path, monkeypatch):
    settings = {
        "plugin": __file__,
        "learning_rate": 3e-2,
        "max_new_tokens": 2,
        "dropout": 0.0,
        **RUNS[name],
    }
    learn(llama, tmp_path / "whole", name, **settings)
    monkeypatch.setenv(BROKEN, "3")
    with pytest.raises(RuntimeError, match="broken off"):
        learn(llama, tmp_path / "broken", name, **settings)
    assert len(stages(tmp_path / "broken")) == 2
    monkeypatch.delenv(BROKEN)
    learn(llama, tmp_path / "broken", name, **settings)
    folders = sorted((tmp_path / "whole" / "stages").glob("*/update"))
    assert len(folders) == len(TASKS)
    if name == "scaled-past":  # two tensors files per update, which `same_bits` does not expect
        for folder in folders:
            for file in folder.glob("*.safetensors"):
                ours, theirs = load_file(file), load_file(_other(file, tmp_path))
                assert all(torch.equal(ours[n], theirs[n]) for n in ours)
        scales = load_file(folders[2] / "scales.safetensors")["scales"]
        assert len(scales) == 2
        assert all(s not in (0.0, 1.0) for s in scales.tolist())
        assert losses(tmp_path / "whole", 3) == losses(tmp_path / "broken", 3)
        assert answers(tmp_path / "whole", 3, "shape") == answers(tmp_path / "broken", 3, "shape")
    else:
        assert same_bits(tmp_path / "whole", tmp_path / "broken")
    if name == "frozen-a":
        counts = {record.trainable_parameters for record in stages(tmp_path / "whole")}
        assert counts == {2 * 8 * 32}  # B alone, of two matrices


def _other(file, folder):
    return folder / "broken" / file.relative_to(folder / "whole")
