from contextlib import contextmanager

import pytest
import torch
from torch.nn.functional import pad
from transformers import LogitsProcessorList

from nlora.carriers.prompt import Prompt
from nlora.data.batches import Collator
from nlora.data.encode import Encoded
from nlora.models.logits import answer_logits
from tests import tiny
from tests.carriers.helpers import batch, logits, train

LENGTH = 3
SHAPES = ("llama", "gpt2", "neox", "t5")


def learned(shape: str, stages: int, folder=None):
    carrier, folders = Prompt(tiny.model(shape), LENGTH), []
    for stage in range(1, stages + 1):
        torch.manual_seed(stage)
        carrier.begin()
        train(carrier, seed=stage)
        if folder is not None:
            folders.append(folder / str(stage))
            carrier.save(folders[-1])
    return carrier, folders


@contextmanager
def seen(carrier):
    """What reaches the model inside: its embeddings and its mask, one pair per call."""
    calls = []

    def hook(module, args, kwargs):
        calls.append((kwargs["inputs_embeds"].detach(), kwargs["attention_mask"]))

    handle = carrier.model.model.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


@pytest.mark.parametrize("shape", SHAPES)
def test_prompts_stand_before_the_text_the_newest_first(shape):
    carrier, _ = learned(shape, 3)
    rows = batch(shape)
    with seen(carrier) as calls:
        logits(carrier.model, shape)
    embeds, mask = calls[0]
    one, two, three = carrier.model.prompts
    text = carrier.model.model.get_input_embeddings()(rows["input_ids"])
    for row in range(len(text)):
        assert torch.equal(embeds[row], torch.cat([three, two, one, text[row]]))
    assert torch.equal(mask, pad(rows["attention_mask"], (3 * LENGTH, 0), value=1))


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_a_method_may_choose_which_prompts_are_read(shape):
    carrier, _ = learned(shape, 3)
    everything = logits(carrier.model, shape)
    with seen(carrier) as calls, carrier.reading([0, 2]):
        chosen = logits(carrier.model, shape)
    assert torch.equal(
        calls[0][0][0, : 2 * LENGTH],
        torch.cat([carrier.model.prompts[0], carrier.model.prompts[2]]),
    )
    assert not torch.equal(chosen, everything)
    with carrier.reading([]):  # no prompt at all is the model itself
        expected = logits(tiny.model(shape), shape)
        torch.testing.assert_close(logits(carrier.model, shape), expected, rtol=0, atol=1e-5)
    with pytest.raises(RuntimeError), carrier.reading([0]):
        raise RuntimeError
    assert torch.equal(logits(carrier.model, shape), everything)


@pytest.mark.parametrize("shape", SHAPES)
def test_padding_changes_no_logits(shape):
    carrier, _ = learned(shape, 2)
    rows = [Encoded([11, 12], [21, 1], False), Encoded(list(range(30, 60)), [41, 42, 1], False)]
    collate = Collator(0, shape in tiny.ENCODER_DECODER)
    together, _ = answer_logits(carrier.model.eval(), collate(rows))
    alone = [answer_logits(carrier.model, collate([row])).logits for row in rows]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_generation_reads_the_prompts_and_ignores_padding(shape):
    def generate(prompts):
        scores = []

        def record(ids, score):
            scores.append(score)
            return score

        out = carrier.model.generate(
            **collate.prompts(prompts),
            max_new_tokens=5,
            min_new_tokens=5,
            do_sample=False,
            pad_token_id=0,
            logits_processor=LogitsProcessorList([record]),
        )
        # (B, 5, vocabulary) without the end token, which min_new_tokens rules out
        return out, torch.stack(scores, dim=1)[..., 2:]

    decoder_only = shape not in tiny.ENCODER_DECODER
    carrier, _ = learned(shape, 2)
    carrier.model.eval()
    collate = Collator(0, not decoder_only)
    prompts = [[11, 12], list(range(30, 50))]
    out, scores = generate(prompts)
    if decoder_only:  # the text stands before what is new, as with any model
        assert torch.equal(out[:, :20], collate.prompts(prompts)["input_ids"])
    for prompt, ids, found in zip(prompts, out, scores, strict=True):
        new = ids[-5:]
        alone, _ = generate([prompt])
        assert torch.equal(alone[0, -5:], new)
        # training computes the same from the same prompts
        with torch.no_grad():
            taught = answer_logits(carrier.model, collate([Encoded(prompt, new.tolist(), False)]))
        torch.testing.assert_close(found, taught.logits[:, 2:], rtol=0, atol=1e-5)
    with carrier.reading([]):
        assert (generate(prompts)[1][:, 0] - scores[:, 0]).abs().max() > 1e-3


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_a_loaded_model_is_bit_for_bit_the_one_that_was_trained(shape, tmp_path):
    live, folders = learned(shape, 3, tmp_path)
    loaded = Prompt(tiny.model(shape), LENGTH)
    loaded.load(folders)
    assert torch.equal(logits(loaded.model, shape), logits(live.model, shape))
    for carrier in (live, loaded):
        torch.manual_seed(9)
        carrier.begin()
    assert torch.equal(loaded.model.prompts[-1], live.model.prompts[-1])
    assert loaded.model.reading == live.model.reading == [3, 2, 1, 0]


@pytest.mark.parametrize("shape", ["llama", "t5"])
@pytest.mark.parametrize("continued", [False, True], ids=["fresh", "continued"])
def test_previous_is_the_model_from_before_the_stage(shape, continued):
    carrier, _ = learned(shape, 2)
    before = logits(carrier.model, shape)
    carrier.begin(continued=continued, keep_previous=True)
    assert carrier.replaces == continued
    train(carrier, seed=3)
    after = logits(carrier.model, shape)
    assert not torch.equal(after, before)
    with carrier.previous():
        assert torch.equal(logits(carrier.model, shape), before)
    assert torch.equal(logits(carrier.model, shape), after)


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_only_the_newest_prompt_is_trained(shape):
    carrier, _ = learned(shape, 2)
    carrier.begin()
    newest = carrier.model.prompts[-1]
    assert carrier.trainable() == [newest]
    assert [p for p in carrier.model.parameters() if p.requires_grad] == [newest]
    loss = answer_logits(carrier.model, batch(shape)).logits.square().mean()
    loss.backward()
    assert newest.grad.abs().max() > 0
    vocabulary = carrier.model.model.get_input_embeddings().weight
    for row in newest.detach():  # it started at the embedding of some token
        assert (vocabulary == row).all(dim=1).any()
