import re

import torch

from nlora.analysis.adapters import read_adapters
from nlora.analysis.report import analyse
from nlora.analysis.words import explain
from nlora.lowrank.supports import Threshold

from .made import MODULES, PREFIX, tensors, write


def said(tmp_path, *values, **config):
    folders = [write(tmp_path / f"task{i}", v, **config) for i, v in enumerate(values)]
    adapters = read_adapters([str(f) for f in folders])
    return "\n".join(explain(analyse(adapters, [Threshold.parse("0.1rms")])))


def scaled(values, factor):
    return {k: factor * v if "lora_B" in k else v for k, v in values.items()}


def single(row):
    """Updates of one large entry a matrix, on a small ground."""
    found = {}
    for module, (out, size) in MODULES.items():
        A, B = torch.zeros(2, size), torch.zeros(out, 2)
        A[0, 1] = B[row, 0] = 3
        found |= {f"{PREFIX}{module}.lora_A.weight": A, f"{PREFIX}{module}.lora_B.weight": B}
    return found


def test_equal_updates_are_called_aligned_and_their_sum_a_double_count(tmp_path):
    text = said(tmp_path, tensors(), scaled(tensors(), 1.5))
    assert "aligned: task0 and task1 (cosine +1.000" in text
    assert "task0 and task1 change the weights alike" in text
    assert "at 0 % of these positions they pull in opposite directions" in text
    assert "dense: task0" in text


def test_opposite_updates_are_said_to_cancel(tmp_path):
    text = said(tmp_path, tensors(), scaled(tensors(), -1.0))
    assert "opposed: task0 and task1 (cosine -1.000" in text
    assert "task0 and task1 partly cancel each other" in text
    assert "at 100 % of these positions they pull in opposite directions" in text


def test_sparse_updates_that_do_not_meet_are_said_so(tmp_path):
    text = said(tmp_path, single(0), single(2))
    assert "sparse: task0 (GSR 0.1" in text
    assert "Collisions: none at threshold 0.1rms" in text
    assert "orthogonal: task0 and task1 (cosine +0.000" in text
    assert "no update cancels or doubles another." in text


def test_supports_that_seek_each_other_are_pointed_out(tmp_path):
    assert "meet more often than by chance" in said(tmp_path, single(1), single(1))


def test_sizes_that_differ_much_come_with_a_warning(tmp_path):
    text = said(tmp_path, tensors(), scaled(tensors(1), 0.01))
    assert re.search(r"‖ΔW‖_F of task0 is \d+\.\d times that of task1", text)
    assert "compare these two by cosine, GSR and relative thresholds only" in text
    assert "Sizes:" not in said(tmp_path / "like", tensors(), tensors(1))


def test_collisions_are_told_with_both_sizes_place_and_chance(tmp_path):
    text = said(tmp_path, tensors(), tensors(1))
    assert re.search(
        r"task0 and task1 meet most, at \d+ % of all positions \(‖ΔW‖_F [\d.]+, ", text
    )
    assert re.search(r"by chance it would be \d+ %", text)
    assert re.search(r"Most in [qv]_proj", text)
    assert re.search(r"The matrix with most is model\.layers\.\d\.self_attn\.[qv]_proj", text)


def test_an_untrained_adapter_is_named_and_left_out_of_the_rest(tmp_path):
    text = said(tmp_path, scaled(tensors(), 0), tensors(1), tensors(2))
    assert text.startswith("task0 is 0 everywhere: it was not trained.")
    assert "task0 (GSR" not in text
    assert "task0 and" not in text
    assert said(tmp_path, scaled(tensors(), 0)) == "task0 is 0 everywhere: it was not trained."


def test_what_is_left_out_stands_below(tmp_path):
    text = said(tmp_path, tensors(), tensors(1), use_dora=True)
    assert "task1: DoRA: the magnitude vectors are left out" in text


def test_geometry_is_never_sold_as_accuracy(tmp_path):
    for seeds in ((0, 0), (0, 1)):
        text = said(tmp_path, *(tensors(s) for s in seeds))
        assert "how much a task loses shows only when the model is tested on it" in text
