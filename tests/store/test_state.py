"""What a method remembers, as files, bit for bit; and the files of earlier versions."""

import json
from dataclasses import dataclass, field, is_dataclass
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from nlora.errors import NloraError
from nlora.methods.base import State
from nlora.methods.ewc import EwcState
from nlora.methods.lfpt5 import Lfpt5State
from nlora.methods.parts.lora import RouterState
from nlora.methods.replay import ReplayState
from nlora.methods.state import Rehearsal
from nlora.store.state import read_state, write_state


@dataclass
class Part:
    one: Tensor | None = None
    named: dict[str, Tensor] = field(default_factory=dict)
    number: int = 0


@dataclass
class Kept(State):
    one: Tensor | None = None
    several: list[Tensor] = field(default_factory=list)
    named: dict[str, Tensor] = field(default_factory=dict)
    value: Any = None
    rows: list[Any] = field(default_factory=lambda: ["there from the start"])
    part: Part = field(default_factory=Part)
    other: Part = field(default_factory=Part)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if is_dataclass(one):
        return type(one) is type(other) and same(vars(one), vars(other))
    if isinstance(one, dict):
        pairs = zip(one.values(), other.values(), strict=True)
        return list(one) == list(other) and all(same(a, b) for a, b in pairs)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other and type(one) is type(other)


FULL = Kept(
    one=torch.tensor([1 / 3, float("inf")], dtype=torch.float64),
    several=[torch.full((1,), i, dtype=torch.bfloat16) for i in range(12)],
    named={"z.w#1": torch.arange(6).view(2, 3).T, "a": torch.zeros(0), "m": torch.tensor(True)},
    value={"nested": [1, 2.5, None, "ü\u2028"], "no": {}},
    rows=[],
    part=Part(torch.ones(2), {"one": torch.zeros(1)}),
)


@pytest.mark.parametrize(
    "state",
    [
        FULL,
        Kept(),
        Kept(other=Part(number=3)),
        Kept(value=0),
        Kept(rows=[1]),
        Kept(several=[torch.ones(2)]),
        Kept(rehearsal=Rehearsal(["a text"], probabilities={"task": torch.rand(1, 2)})),
    ],
)
def test_a_state_is_read_back_bit_for_bit_and_in_its_order(state, tmp_path):
    write_state(tmp_path, state)
    found = read_state(tmp_path, Kept) if any(tmp_path.iterdir()) else Kept()
    assert same(found, state)


def test_a_state_that_says_nothing_new_takes_no_file(tmp_path):
    write_state(tmp_path, Kept())
    write_state(tmp_path, State())
    assert list(tmp_path.iterdir()) == []


def test_what_is_rehearsed_leaves_no_trace_where_nothing_is(tmp_path):
    write_state(tmp_path, Kept(value=1))
    assert "rehearsal" not in json.loads((tmp_path / "state.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("value", [{1: "a"}, (1, 2), {2}, [[torch.ones(1)]], float("nan")])
def test_what_would_not_be_read_back_is_refused_in_one_line(value, tmp_path):
    with pytest.raises(NloraError, match="field 'value' of Kept is no tensor") as caught:
        write_state(tmp_path, Kept(value=value))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_state_of_another_method_is_one_clear_line(tmp_path):
    write_state(tmp_path, Kept(value=1))
    with pytest.raises(
        NloraError, match="does not keep: named, one, other, part, rows, several, value"
    ):
        read_state(tmp_path, EwcState)


def test_a_field_that_is_new_since_has_its_default(tmp_path):
    (tmp_path / "state.json").write_text('{"constant": 2.5}')
    assert read_state(tmp_path, EwcState) == EwcState(constant=2.5)


def test_files_of_earlier_versions_are_read(tmp_path):
    fisher, anchor = torch.rand(3), torch.rand(3)
    constant = torch.tensor(0.1, dtype=torch.float64)
    tensors = {"fisher.a.b": fisher, "anchor.a.b": anchor, "constant": constant}
    save_file(tensors, tmp_path / "ewc.safetensors")
    means, scatter = torch.rand(2, 4).double(), torch.rand(4, 4).double()
    router = {"means": means, "scatter": scatter, "texts": torch.tensor(7)}
    save_file(router, tmp_path / "router.safetensors")
    found = read_state(tmp_path, EwcState)
    ewc = {"fisher": {"a.b": fisher}, "anchor": {"a.b": anchor}, "constant": 0.1}
    expected = EwcState(RouterState(list(means), [1, 2], scatter, 7), **ewc)
    assert same(found, expected)
    write_state(tmp_path, found)  # as the next stage does
    assert same(read_state(tmp_path, EwcState), expected)


def test_buffers_and_pseudo_samples_of_earlier_versions_are_read(tmp_path):
    task = {"name": "one", "instruction": "Which?", "labels": ["a"], "group": "", "dataset": ""}
    kept = [{"task": task, "text": "x", "label": "a"}]
    (tmp_path / "buffer.json").write_text(json.dumps(kept))
    assert read_state(tmp_path, ReplayState) == ReplayState(kept=kept)
    (tmp_path / "buffer.json").unlink()
    written = {"learned": [{"task": task, "longest": 9}], "pseudo_samples": [{"text": "y"}]}
    (tmp_path / "lfpt5.json").write_text(json.dumps(written))
    assert read_state(tmp_path, Lfpt5State) == Lfpt5State(**written)
