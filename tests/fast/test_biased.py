import pytest
import torch

from nlora.fast import biased
from nlora.fast.biased import attend_biased


def plainly(query, key, value, mask, bias, stays, p):
    scores = query @ key.transpose(2, 3) * 0.5 + bias
    weights = (scores if mask is None else scores + mask).softmax(-1)
    return (weights * stays / (1 - p)) @ value


def inputs(masked):
    torch.manual_seed(0)
    query, key, value = (torch.randn(5, 2, n, 3, dtype=torch.float64) for n in (4, 6, 6))
    bias = torch.randn(1, 2, 4, 6, dtype=torch.float64)
    mask = torch.zeros(5, 1, 4, 6, dtype=torch.float64)
    mask[1, :, :, 4:] = torch.finfo(torch.float64).min
    leaves = [t.requires_grad_() for t in (query, key, value, bias)]
    return leaves, mask if masked else None


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("most", [1, 100, 10**6], ids=["row by row", "two rows", "all rows"])
def test_weights_are_dropped_alike_in_value_and_gradients(masked, most, monkeypatch):
    """Against autograd through the plain formula, with the same entries dropped."""
    (query, key, value, bias), mask = inputs(masked)
    stays = torch.rand(5, 2, 4, 6) >= 0.25
    taken = []

    def known(scores, p):
        start = sum(taken)
        taken.append(len(scores))
        return stays[start : start + len(scores)]

    monkeypatch.setattr(biased, "kept", known)
    monkeypatch.setattr(biased, "MOST_SCORES", most)
    out = attend_biased(query, key, value, mask, bias, 0.5, 0.25)
    expected = plainly(query, key, value, mask, bias, stays, 0.25)
    torch.testing.assert_close(out, expected)
    above = torch.randn_like(out)
    ours = torch.autograd.grad(out, (query, key, value, bias), above)
    theirs = torch.autograd.grad(expected, (query, key, value, bias), above)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_a_byte_and_a_number_per_weight_are_kept_for_the_backward_pass():
    (query, key, value, bias), mask = inputs(True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        attend_biased(query, key, value, mask, bias, 1.0, 0.25)
    sizes = [t.element_size() for t in saved if t.shape == (5, 2, 4, 6)]
    assert sorted(sizes) == [1, 8]
