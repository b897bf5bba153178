import pytest
import torch
from benchmarks.tiny_families import tiny_config
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    LlamaForCausalLM,
    LogitsProcessorList,
)

from nlora.adapters.layouts import Appended, Concatenated, Selected
from nlora.adapters.prompt import Prompt, PromptedModel
from nlora.data.batches import Collator
from nlora.data.encode import Encoded
from nlora.errors import NloraError
from nlora.fast.logits import answer_logits
from tests import tiny
from tests.adapters.helpers import batch, logits, seen, train

LENGTH = 3
SHAPES = ("llama", "gpt2", "neox", "t5")
LAYOUTS = {
    "concatenated": lambda: Concatenated(LENGTH),
    "appended": lambda: Appended(LENGTH),
    "selected": lambda: Selected(pool=6, length=LENGTH, top_k=2, query="hidden"),
}

every_layout = pytest.mark.parametrize("layout", LAYOUTS)


def learned(shape: str, stages: int, folder=None, layout="concatenated"):
    adapter, folders = Prompt(tiny.model(shape), LAYOUTS[layout]()), []
    for stage in range(1, stages + 1):
        torch.manual_seed(stage)
        adapter.begin()
        train(adapter, seed=stage)
        if folder is not None:
            folders.append(folder / str(stage))
            adapter.save(folders[-1])
    return adapter, folders


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_a_method_may_choose_which_prompts_are_read(shape):
    adapter, _ = learned(shape, 3)
    everything = logits(adapter.model, shape)
    with seen(adapter) as calls, adapter.reading([0, 2]):
        chosen = logits(adapter.model, shape)
    one, _, three = (update["prompt"] for update in adapter.model.updates)
    assert torch.equal(calls[0][0][0, : 2 * LENGTH], torch.cat([one, three]))
    assert not torch.equal(chosen, everything)
    with adapter.reading([]):  # no prompt at all is the model itself
        expected = logits(tiny.model(shape), shape)
        torch.testing.assert_close(logits(adapter.model, shape), expected, rtol=0, atol=1e-5)
    with pytest.raises(RuntimeError), adapter.reading([0]):
        raise RuntimeError
    assert torch.equal(logits(adapter.model, shape), everything)


@every_layout
@pytest.mark.parametrize("shape", SHAPES)
def test_padding_and_the_rest_of_the_batch_change_no_logits(shape, layout):
    adapter, _ = learned(shape, 2, layout=layout)
    rows = [Encoded([11, 12], [21, 1], False), Encoded(list(range(30, 60)), [41, 42, 1], False)]
    collate = Collator(0, shape in tiny.ENCODER_DECODER)
    together, _ = answer_logits(adapter.model.eval(), collate(rows))
    alone = [answer_logits(adapter.model, collate([row])).logits for row in rows]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)


@every_layout
@pytest.mark.parametrize("shape", SHAPES)
def test_generation_reads_the_prompts_and_ignores_padding(shape, layout):
    def generate(prompts):
        scores = []

        def record(ids, score):
            scores.append(score)
            return score

        out = adapter.model.generate(
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
    adapter, _ = learned(shape, 2, layout=layout)
    adapter.model.eval()
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
            taught = answer_logits(adapter.model, collate([Encoded(prompt, new.tolist(), False)]))
        torch.testing.assert_close(found, taught.logits[:, 2:], rtol=0, atol=1e-5)
    with adapter.reading([]):
        assert (generate(prompts)[1][:, 0] - scores[:, 0]).abs().max() > 1e-3


@every_layout
@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_a_loaded_model_is_bit_for_bit_the_one_that_was_trained(shape, layout, tmp_path):
    live, folders = learned(shape, 3, tmp_path, layout)
    loaded = Prompt(tiny.model(shape), LAYOUTS[layout]())
    loaded.load(folders)
    assert torch.equal(logits(loaded.model, shape), logits(live.model, shape))
    for adapter in (live, loaded):
        torch.manual_seed(9)
        adapter.begin()
    for one, other in zip(live.trainable(), loaded.trainable(), strict=True):
        assert torch.equal(one, other)
    assert loaded.model.reading == live.model.reading == [3, 2, 1, 0]


@every_layout
@pytest.mark.parametrize("shape", ["llama", "t5"])
@pytest.mark.parametrize("continued", [False, True], ids=["fresh", "continued"])
def test_previous_is_the_model_from_before_the_stage(shape, continued, layout):
    adapter, _ = learned(shape, 2, layout=layout)
    before = logits(adapter.model, shape)
    adapter.begin(continued=continued, keep_previous=True)
    assert adapter.replaces == continued
    train(adapter, seed=3)
    after = logits(adapter.model, shape)
    assert not torch.equal(after, before)
    with adapter.previous():
        assert torch.equal(logits(adapter.model, shape), before)
    assert torch.equal(logits(adapter.model, shape), after)


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_the_model_as_it_stood_after_any_stage_comes_back_from_files(shape, tmp_path):
    stood = [logits(tiny.model(shape), shape)]
    for stages in (1, 2, 3):
        adapter, folders = learned(shape, stages, tmp_path / str(stages))
        stood.append(logits(adapter.model, shape))
    for stages in (2, 0, 3, 1):
        with adapter.after(folders[:stages]):
            torch.testing.assert_close(logits(adapter.model, shape), stood[stages])
    assert torch.equal(logits(adapter.model, shape), stood[3])
    assert adapter.trainable() == [adapter.model.updates[2]["prompt"]]


@every_layout
@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_only_the_newest_update_is_trained(shape, layout):
    adapter, _ = learned(shape, 2, layout=layout)
    adapter.begin()
    newest = list(adapter.model.updates[-1].values())
    assert adapter.trainable() == newest
    assert [p for p in adapter.model.parameters() if p.requires_grad] == newest
    prompt = adapter.model.updates[-1]["prompt"]
    loss = answer_logits(adapter.model, batch(shape)).logits.square().mean()
    loss.backward()
    assert prompt.grad.abs().max() > 0
    vocabulary = adapter.model.model.get_input_embeddings().weight
    for row in prompt.detach().flatten(0, -2):  # it started at the embedding of some token
        assert (vocabulary == row).all(dim=1).any()


def test_a_prompt_may_start_at_words():
    adapter = Prompt(tiny.model("llama"), Appended(3))
    torch.manual_seed(0)
    adapter.begin()
    third = adapter.trainable()[0][2].clone()
    adapter.start_at([[7], [8, 9, 12]])
    vocabulary = adapter.model.model.get_input_embeddings().weight
    prompt = adapter.trainable()[0]
    assert torch.equal(prompt[0], vocabulary[7])
    torch.testing.assert_close(prompt[1], (vocabulary[8] + vocabulary[9] + vocabulary[12]) / 3)
    assert torch.equal(prompt[2], third)
    adapter.start_at([[5]] * 10)  # more than there is room for
    assert torch.equal(prompt, vocabulary[5].expand(3, -1))


def test_a_model_that_cannot_say_where_answers_begin_is_refused_in_one_line():
    class Whole(LlamaForCausalLM):
        def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None):
            raise NotImplementedError

    with pytest.raises(NloraError, match="Whole cannot be given soft prompts") as error:
        PromptedModel(Whole(tiny.model("llama").config), Appended(3))
    assert "\n" not in str(error.value)


def test_a_prompt_starts_at_what_the_model_reads_of_words():
    """Gemma's kind multiplies its embeddings, and so must vectors that stand for them be."""
    net = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(
            "gemma",
            vocab_size=64,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            intermediate_size=32,
        )
    )
    prompt = Prompt(net, layout=Appended(2))
    prompt.begin()
    prompt.start_at([[5], [6, 7]])
    read = net.get_input_embeddings()(torch.tensor([5, 6, 7])).detach()
    wanted = torch.stack([read[0], read[1:].mean(0)])
    torch.testing.assert_close(prompt.update()["prompt"].detach(), wanted)
    assert not torch.allclose(wanted[0], net.get_input_embeddings().weight[5])


@pytest.mark.parametrize("family", ["pegasus", "marian", "mvp", "granite"])
def test_without_prompts_text_is_read_as_the_model_reads_it(family):
    """The first three multiply embeddings that they look up and none that they are given."""
    config = tiny_config(family)
    factors = {"scale_embedding": True, "embedding_multiplier": 3.0}
    config.update({name: value for name, value in factors.items() if hasattr(config, name)})
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    net = kind.from_config(config)
    shape = "t5" if config.is_encoder_decoder else "llama"
    expected = logits(net, shape)
    prompt = Prompt(net, layout=Concatenated(2))
    torch.testing.assert_close(logits(prompt.model, shape), expected, rtol=0, atol=1e-6)
    prompt.begin()
    prompt.start_at([[5], [6]])
    read = prompt.model.vocabulary.factor * net.get_input_embeddings()(torch.tensor([5, 6]))
    torch.testing.assert_close(prompt.update()["prompt"], read)


@pytest.mark.parametrize("family", ["ctrl", "openai-gpt", "zamba"])
def test_a_model_that_generates_from_ids_alone_is_refused_in_one_line(family):
    net = AutoModelForCausalLM.from_config(tiny_config(family))
    with pytest.raises(NloraError, match="soft prompts, since it generates from token ids alone;"):
        Prompt(net, layout=Concatenated(2))
