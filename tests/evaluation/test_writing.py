"""Texts are written as the model's own `generate` writes them, prompt by prompt."""

import pytest
import torch

from nlora.data.encode import Encoder
from nlora.data.prompts import Prompter
from nlora.evaluation.expected import ANYTHING
from nlora.evaluation.greedy import _by_generate
from nlora.evaluation.writing import Writing, write
from tests.tiny import ENCODER_DECODER, model, tokenizer

PROMPTS = ["one", "two and three", "four"]


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_what_a_model_is_published_with_decides_nothing(shape):
    net, two = model(shape).eval(), shape in ENCODER_DECODER
    encoder = Encoder(tokenizer(two), Prompter(), two)
    ids = encoder.tokenize(PROMPTS)
    hoped = [ANYTHING] * len(ids)

    def all_of_it():
        greedy = write(net, encoder, ids, Writing(6), 4096)
        drawn = write(net, encoder, ids, Writing(6, 2.0, seed=1), 4096)
        return greedy, drawn, list(_by_generate(net, encoder, ids, hoped, 4096, 6, [1]))

    plain = all_of_it()
    net.generation_config.update(
        repetition_penalty=5.0, no_repeat_ngram_size=1, top_p=0.01, min_new_tokens=6, num_beams=2
    )
    assert all_of_it() == plain


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_a_batch_of_texts_is_what_each_prompt_gives_alone(shape):
    net, two = model(shape).eval(), shape in ENCODER_DECODER
    encoder = Encoder(tokenizer(two), Prompter(), two)
    ids = encoder.tokenize(PROMPTS)
    found = write(net, encoder, ids, Writing(6), batch_tokens=24)
    for prompt, written in zip(ids, found, strict=True):
        asked = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
        [out] = net.generate(torch.tensor([prompt]), **asked).tolist()
        new = out[1:] if two else out[len(prompt) :]
        assert written.text == encoder.text(new)
        assert (written.prompt_tokens, written.new_tokens) == (len(prompt), len(new))
        assert written.ended == (new[-1] == 1)
    drawn = [write(net, encoder, ids, Writing(6, 2.0, seed=s), 4096) for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert write(net, encoder, ids, Writing(6, 0.5, top_p=1e-9), 4096) == found
    [cut] = write(net, encoder, ids[-1:], Writing(6), 4096, ends=new[:1])  # of the last prompt
    assert (cut.text, cut.new_tokens, cut.ended) == ("", 1, True)
