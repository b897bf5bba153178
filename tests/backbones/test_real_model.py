"""The fetched model is the one that its name promises. Nothing is downloaded here."""

import pytest

from nlora.backbones.catalog import catalog, find


@pytest.mark.real_model
def test_the_real_model_reads_and_answers():
    row = next(row for row in catalog() if row.name == "smollm2-135m")
    if not row.fetched:
        pytest.skip("smollm2-135m is not in the cache (`nlora models fetch smollm2-135m`)")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = find("smollm2-135m")
    tokenizer = AutoTokenizer.from_pretrained(found.target)
    model = AutoModelForCausalLM.from_pretrained(found.target, dtype=torch.float32)
    batch = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        best = model(**batch).logits[0, -1].argmax().item()
    assert tokenizer.decode([best]) == " Paris"
    assert tokenizer.tokenize("\n\n12") == ["ĊĊ", "1", "2"]
    attention = model.model.layers[0].self_attn
    assert attention.v_proj.in_features != attention.v_proj.out_features  # grouped queries
