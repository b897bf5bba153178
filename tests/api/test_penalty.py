"""A penalty in a loss of one's own has the value and the gradient of the dense computation."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

import nlora
from nlora import NloraError
from tests.tiny import model

DENSE = {
    "l1": lambda A, B, s: (s * B @ A).abs().sum(),
    "l1-a": lambda A, B, s: A.abs().sum(),
    "l1-b": lambda A, B, s: B.abs().sum(),
    "l1-ab": lambda A, B, s: A.abs().sum() + B.abs().sum(),
    "released": lambda A, B, s: (A @ B).abs().sum(),
    "frobenius": lambda A, B, s: (s * B @ A).square().sum(),
    "column-row": lambda A, B, s: s * (A.abs().sum(1) * B.abs().sum(0)).sum(),
}


@pytest.fixture(scope="module")
def adapted():
    """A tiny Llama with a LoRA adapter of PEFT whose factors are random."""
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "v_proj"])
    found = get_peft_model(model("llama"), config)
    torch.manual_seed(0)
    for name, parameter in found.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    return found


def factors(adapted):
    trained = dict(adapted.named_parameters())
    pairs = [
        (p, trained[n.replace("lora_A", "lora_B")]) for n, p in trained.items() if "lora_A" in n
    ]
    return [(A, B, 2.0) for A, B in pairs]


@pytest.mark.parametrize("kind", DENSE)
def test_each_kind_equals_its_dense_form(adapted, kind):
    pairs = factors(adapted)
    exact = [(A.double().detach(), B.double().detach(), s) for A, B, s in pairs]
    for A, B, _ in exact:
        A.requires_grad_(), B.requires_grad_()
    dense = sum(DENSE[kind](*one) for one in exact)
    (0.5 * dense).backward()
    adapted.zero_grad()
    value = nlora.penalty(adapted, kind)
    (0.5 * value).backward()
    assert value.item() == pytest.approx(dense.item(), rel=1e-5)
    for (A, B, _), (C, D, _) in zip(pairs, exact, strict=True):
        torch.testing.assert_close(A.grad, zero_or(C).float(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(B.grad, zero_or(D).float(), rtol=1e-4, atol=1e-4)
    assert nlora.penalty(pairs, kind).item() == value.item()


def zero_or(parameter):
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def test_the_mean_is_over_entries_and_a_penalty_may_be_a_function(adapted):
    pairs = factors(adapted)
    entries = sum(A.shape[1] * B.shape[0] for A, B, _ in pairs)
    whole = nlora.penalty(adapted)
    assert nlora.penalty(adapted, mean=True).item() == pytest.approx(whole.item() / entries)

    def of_a(factors):
        return sum(f.A.sum() for f in factors), [
            (torch.ones_like(f.A), torch.zeros_like(f.B)) for f in factors
        ]

    adapted.zero_grad()
    nlora.penalty(adapted, of_a).backward()
    assert all(bool((A.grad == 1).all()) for A, _, _ in pairs)


def test_what_has_no_such_adapter_is_refused(adapted):
    with pytest.raises(NloraError, match="unknown penalty 'l2'"):
        nlora.penalty(adapted, "l2")
    with pytest.raises(NloraError, match=r"no LoRA adapter 'other' \(adapters of PEFT: default\)"):
        nlora.penalty(adapted, adapter="other")
    with pytest.raises(NloraError, match="adapters of PEFT: none"):
        nlora.penalty(model("llama"))
