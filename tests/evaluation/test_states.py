import pytest
import torch

from nlora.data.encode import Encoder
from nlora.data.prompts import Prompter
from nlora.evaluation.states import answer_states
from tests.tiny import ENCODER_DECODER, SHAPES, model, task, tokenizer


@pytest.mark.parametrize("shape", SHAPES)
def test_the_output_layer_says_the_first_token_from_the_state(shape):
    seq2seq = shape in ENCODER_DECODER
    net, encoder = model(shape).eval(), Encoder(tokenizer(seq2seq), Prompter(), seq2seq)
    examples = task().test
    found = answer_states(net, encoder, examples, batch_tokens=400)
    head = net.get_output_embeddings()
    for state, (ids, _) in zip(found, encoder.prompts(examples), strict=True):
        inputs = {"input_ids": torch.tensor([ids])}
        if seq2seq:
            inputs["decoder_input_ids"] = torch.tensor([[0]])
        with torch.no_grad():
            said = net(**inputs).logits[0, -1]
            torch.testing.assert_close(head(state), said, atol=1e-4, rtol=1e-4)
