import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlora.data.cut import share_out
from nlora.data.encode import Encoder
from nlora.data.prompts import INSTRUCTIONS, Prompter
from nlora.data.task import Example, Task
from nlora.errors import NloraError
from tests.tiny import tokenizer

TASK = Task("news", INSTRUCTIONS["TC"], ("World", "Sports"), group="TC", dataset="agnews")
READING = Task("reading", INSTRUCTIONS["MultiRC"], ("True", "False"), group="MultiRC")


def encoder(encoder_decoder=False, **options):
    return Encoder(tokenizer(encoder_decoder), Prompter(), encoder_decoder, **options)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 200))
def test_the_longest_field_gives_way_and_no_room_is_wasted(lengths, budget):
    kept = share_out(lengths, budget)
    assert all(0 <= k <= n for k, n in zip(kept, lengths, strict=True))
    assert sum(kept) <= budget
    if sum(lengths) <= budget:
        assert kept == lengths
    else:
        cut = [k for k, n in zip(kept, lengths, strict=True) if k < n]
        assert max(kept) - min(cut) <= 1  # only the longest are shorter than they were
        assert budget - sum(kept) < len(lengths)


def test_prompts_are_those_of_the_paper():
    assert Prompter().prompt(TASK, "Text: a goal\n") == (
        "What is the topic of the following paragraph? Choose one from the option.\n"
        "Option: World, Sports \nText: a goal\nAnswer:"
    )


def test_the_released_form_tells_the_data_set():
    prompt = Prompter("released").prompt(TASK, "a goal")
    assert prompt.startswith("Task:TC\nDataset:agnews\nWhat is the topic")


def test_copa_and_free_text_have_no_option_list():
    copa = Task("copa", INSTRUCTIONS["COPA"], ("A", "B"), group="COPA", dataset="COPA")
    assert Prompter().prompt(copa, "Which? A: x B: y") == "Which? A: x B: y\nAnswer:"
    own = Task("mine", None, ("A", "B"))
    assert Prompter().prompt(own, "Which?") == "Option: A, B \nWhich?\nAnswer:"
    free = Task("sum", "Summarise.", None)
    assert Prompter().prompt(free, "long text") == "Summarise.\nlong text\nAnswer:"


@pytest.mark.parametrize("encoder_decoder", [False, True])
def test_a_long_text_loses_the_end_of_its_longest_field_and_nothing_else(encoder_decoder):
    encode = encoder(encoder_decoder, max_length=300)
    text = f"paragraph: {'far too long ' * 60}\nquestion: who won?\ncandidate answer: nobody"
    ids = encode(Example(READING, text, "True"))
    prompt = encode.tokenizer.decode(ids.prompt, skip_special_tokens=True)
    assert ids.truncated
    assert 295 <= len(ids.prompt) <= 300
    assert prompt.startswith(INSTRUCTIONS["MultiRC"] + "\nOption: True, False \nparagraph: far too")
    assert prompt.endswith("\nquestion: who won?\ncandidate answer: nobody\nAnswer:")


def test_max_text_tokens_cuts_the_text_alone():
    encode = encoder(max_text_tokens=10)
    ids = encode(Example(TASK, "x" * 40, "World"))
    prompt = encode.tokenizer.decode(ids.prompt)
    assert ids.truncated
    assert prompt.endswith("Sports \n" + "x" * 10 + "\nAnswer:")
    assert not encode(Example(TASK, "x" * 10, "World")).truncated


def test_an_instruction_that_does_not_fit_is_an_error():
    with pytest.raises(NloraError, match=r"task 'news': instruction and options .* max_length"):
        encoder(max_length=40)(Example(TASK, "text", "World"))


@pytest.mark.parametrize("encoder_decoder", [False, True])
def test_the_answer_ends_with_the_end_token_and_starts_with_a_space_where_it_continues(
    encoder_decoder,
):
    encode = encoder(encoder_decoder)
    ids = encode(Example(TASK, "a goal", "Sports"))
    assert ids.answer[-1] == encode.tokenizer.eos_token_id
    assert encode.tokenizer.eos_token_id not in ids.answer[:-1]
    text = encode.tokenizer.decode(ids.answer[:-1])
    assert text == ("Sports" if encoder_decoder else " Sports")


def test_a_decoder_only_prompt_never_ends_with_the_end_token():
    encode = Encoder(tokenizer(ends_with_eos=True), Prompter(), encoder_decoder=False)
    ids = encode(Example(TASK, "a goal", "Sports"))
    assert encode.tokenizer.decode(ids.prompt).endswith("Answer:")


def test_the_chat_template_wraps_the_prompt_and_the_answer_follows_without_a_space():
    own = tokenizer(False)
    own.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    encode = Encoder(own, Prompter(chat=True, tokenizer=own), encoder_decoder=False)
    ids = encode(Example(TASK, "a goal", "Sports"))
    prompt = own.decode(ids.prompt)
    assert prompt.startswith("<user>What is the topic")
    assert prompt.endswith("a goal\nAnswer:<assistant>")
    assert own.decode(ids.answer[:-1]) == "Sports"
    assert encode.raw(["a goal"]) == [own("a goal").input_ids]  # with the tokenizer's own tokens


def test_many_examples_are_encoded_as_each_alone_and_only_once():
    texts = [f"text: {'word ' * (i * 7 % 60)}\nquestion: {i} or {'x' * i}?" for i in range(30)]
    examples = [Example(task, text, "True") for text in texts for task in (TASK, READING)]
    encode = encoder(max_length=200, max_text_tokens=90)
    together = encode.all(examples)
    assert together == [encoder(max_length=200, max_text_tokens=90)(e) for e in examples]
    assert {e.truncated for e in together} == {True, False}
    together[0].prompt.clear()  # what is known stays as it is
    encode.tokenizer = None
    assert [e.prompt for e in encode.all(examples)][1:] == [e.prompt for e in together][1:]
    assert encode.all(examples[:1])[0].prompt


def test_a_tokenizer_without_an_end_token_is_one_clear_line():
    endless = tokenizer(False)
    endless.eos_token = None
    with pytest.raises(NloraError, match="no end token"):
        Encoder(endless, Prompter(), False)


def test_chat_without_a_template_is_one_clear_line():
    with pytest.raises(NloraError, match="no chat template"):
        Prompter(chat=True, tokenizer=tokenizer(False))


def test_a_text_that_is_cut_is_no_cause_for_a_warning(caplog):
    """Transformers warns of indexing errors when a text is longer than the model reads."""
    encode = encoder(max_length=300)
    encode.tokenizer.model_max_length = 300
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        encode(Example(READING, f"paragraph: {'far too long ' * 60}", "True"))
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.records
