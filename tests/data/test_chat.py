"""Chats as token ids: what a model reads, what counts, and what is cut."""

import pytest

from nlora.data.encode import Encoder
from nlora.data.messages import asked, dump
from nlora.data.prompts import Prompter
from nlora.data.task import Example, Task, TaskData
from nlora.data.writable import check_readable
from nlora.errors import NloraError
from tests import tiny

TASK = Task("chats", chat=True)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
FORGETFUL = CHATML.replace("m.content", "'…' if m.role == 'assistant' else m.content")
"""Writes earlier answers otherwise than they were given, as templates of thinking models do."""


def chatty(template=CHATML, ends_with_eos=False):
    """Bytes as tokens, with the tokens of ChatML, which are not those that end a text."""
    own = tiny.tokenizer(ends_with_eos)
    own.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    own.chat_template = template
    return own


def encoder(own, encoder_decoder=False, **options):
    return Encoder(own, Prompter(tokenizer=own), encoder_decoder, **options)


def turns(*contents, system=None):
    """Question and answer by turns, up to the last question, as an example's text."""
    found = [{"role": "system", "content": system}] if system else []
    for i, content in enumerate(contents):
        found.append({"role": ("user", "assistant")[i % 2], "content": content})
    return dump(found)


def counted(encode, ids):
    """Prompt and answer as text, and the parts of it that count."""
    counts = ids.counts or [True] * len(ids.answer)
    parts, last = [""], True
    for id, counts_too in zip(ids.answer, counts, strict=True):
        if counts_too and not last:
            parts.append("")
        if counts_too:
            parts[-1] += encode.tokenizer.decode([id])
        last = counts_too
    return encode.tokenizer.decode(ids.prompt + ids.answer), parts


def test_all_answers_of_a_chat_count_each_with_its_end_and_nothing_else():
    encode = encoder(chatty())
    ids = encode(Example(TASK, turns("a cat?", "a hat", "a dog?", system="Rhyme."), "a frog"))
    assert counted(encode, ids) == (
        "<|im_start|>system\nRhyme.<|im_end|>\n<|im_start|>user\na cat?<|im_end|>\n"
        "<|im_start|>assistant\na hat<|im_end|>\n<|im_start|>user\na dog?<|im_end|>\n"
        "<|im_start|>assistant\na frog<|im_end|>",
        ["a hat<|im_end|>", "a frog<|im_end|>"],
    )
    assert encode.tokenizer.decode(ids.prompt).endswith("<|im_start|>assistant\n")


PUBLISHED = {
    "llama-2": "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' "
    "+ m.content + ' [/INST]' }}{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}"
    "{% endfor %}",
    "mistral": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' "
    "+ m.content + ' [/INST]' }}{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}",
    "gemma": "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "<|im_start|>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}",
    "thinking": "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ '<think>\n\n</think>\n\n' if loop.last and m.role == 'assistant' }}{{ m.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
}
"""Shapes of templates that are in use."""


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("llama-2", [" a hat </s>", " a frog </s>"]),
        ("mistral", ["a hat</s>", "a frog</s>"]),
        ("gemma", ["a hat<|im_end|>", "a frog<|im_end|>"]),
        ("thinking", ["a hat<|im_end|>", "a frog<|im_end|>"]),
    ],
)
def test_answers_count_as_published_templates_write_them(name, answers):
    own = chatty(PUBLISHED[name])
    own.add_special_tokens({"bos_token": "<s>"})
    encode = encoder(own)
    ids = encode(Example(TASK, turns("a cat?", "a hat", "a dog?"), "a frog"))
    assert counted(encode, ids)[1] == answers


ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
    + PUBLISHED["llama-2"].replace("bos_token + ", "")
)
PAIRS = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif messages[loop.index0 - 1].role == 'user' %} {{ m.content }} {{ eos_token }}{% endif %}"
    "{% endfor %}"
)
"""Leaves out an answer that follows another."""


@pytest.mark.parametrize("template", [ALTERNATES, PAIRS])
def test_two_answers_in_a_row_are_one_line_where_the_template_does_not_take_them(template):
    plain, answer = asked(TASK, turns("a cat?", "a hat", "a dog?")), {"role": "assistant"}
    again = [*plain[:2], answer | {"content": "a bat"}, plain[2]]
    encode = encoder(chatty(template))
    assert encode(Example(TASK, dump(plain), "a frog")).answer
    for text in (dump(again), dump(plain[:2])):  # the answer to be given is one, too
        with pytest.raises(NloraError, match="takes no two answers in a row; join them") as caught:
            encode(Example(TASK, text, "a frog"))
        assert "a cat?" in str(caught.value)
    ids = encoder(chatty())(Example(TASK, dump(again), "a frog"))
    assert "a hat" in counted(encoder(chatty()), ids)[0]
    assert "a bat" in counted(encoder(chatty()), ids)[0]


def test_a_template_that_does_not_open_the_answer_is_told():
    ignores = CHATML.partition("{% if add_generation_prompt")[0]
    data = TaskData(TASK, train=(Example(TASK, turns("a cat?"), "a hat"),), test=())
    for template, expected in ((ignores, 1), (CHATML, 0), *((t, 0) for t in PUBLISHED.values())):
        own = chatty(template)
        own.add_special_tokens({"bos_token": "<s>"})
        told = []
        check_readable(encoder(own), [data], 50, told.append)
        assert len(told) == expected
        if expected:
            assert "given, without '<|im_start|>assistant\\n', which it writes" in told[0]


def test_without_a_template_there_is_a_plain_form():
    encode = encoder(tiny.tokenizer(False))
    ids = encode(Example(TASK, turns("a cat?", "a hat", "a dog?", system="Rhyme."), "a frog"))
    assert counted(encode, ids) == (
        "Rhyme.\nUser: a cat?\nAssistant: a hat</s>\nUser: a dog?\nAssistant: a frog</s>",
        [" a hat</s>", " a frog</s>"],
    )


@pytest.mark.parametrize("text", [turns("é?", "ж 字", "b?"), turns("b?", "x" * 40, "c?")])
def test_what_is_learned_of_a_turn_is_what_is_asked_and_answered(text):
    """Letters of several bytes, too: the tokens of each answer are those it would have alone."""
    encode = encoder(chatty())
    whole = encode(Example(TASK, text, "y"))
    [_, said, _] = asked(TASK, text)
    first = encode(Example(TASK, dump(asked(TASK, text)[:1]), said["content"]))
    assert whole.prompt == first.prompt
    assert whole.answer[: len(first.answer)] == first.answer
    assert whole.counts[: len(first.answer) + 1] == [True] * len(first.answer) + [False]


def test_a_turn_of_weight_0_does_not_count():
    encode = encoder(chatty())
    text = turns("a cat?", "a hat", "a dog?").replace('"a hat"', '"a hat", "weight": 0')
    assert counted(encode, encode(Example(TASK, text, "a frog")))[1] == ["a frog<|im_end|>"]


@pytest.mark.parametrize("kind", ["encoder-decoder", "forgetful"])
def test_where_one_pass_cannot_learn_all_answers_each_is_an_example(kind):
    both = kind == "encoder-decoder"
    encode = encoder(tiny.tokenizer(True) if both else chatty(FORGETFUL), both)
    example = Example(TASK, turns("a?", "b", "c?", "d", "e?"), "f")
    found = encode.chats.separate([example, Example(Task("plain"), "x", "y")])
    assert [e.label for e in found] == ["b", "d", "f", "y"]
    for e in found[:3]:
        ids = encode(e)
        assert ids.counts is None
        assert encode.text(ids.answer[:-1]).strip() == e.label
    assert encode(found[2]).prompt == encode(example).prompt
    assert encoder(chatty()).chats.separate([example]) == [example]


def test_a_long_chat_loses_its_oldest_turns_and_then_the_end_of_the_question():
    encode = encoder(chatty(), max_length=110)
    long = turns("a" * 40, "b" * 40, "c?", "d", "e?", system="Rhyme.")
    ids = encode(Example(TASK, long, "f"))
    text, parts = counted(encode, ids)
    assert ids.truncated
    assert text.startswith("<|im_start|>system\nRhyme.<|im_end|>\n<|im_start|>user\nc?<|im_end|>")
    assert parts == ["d<|im_end|>", "f<|im_end|>"]
    ids = encode(Example(TASK, turns("x" * 400, system="Rhyme."), "f"))
    assert ids.truncated
    assert len(ids.prompt) == 110
    assert "xxx<|im_end|>" in encode.tokenizer.decode(ids.prompt)
    alone = encoder(chatty(), max_text_tokens=10)(Example(TASK, turns("x" * 400), "f"))
    assert encode.tokenizer.decode(alone.prompt).count("x") == 10
    with pytest.raises(NloraError, match="task 'chats': what must stand in a chat takes"):
        encode(Example(TASK, turns("a?", system="x" * 200), "f"))


def test_a_system_turn_that_the_template_refuses_stands_in_the_question():
    encode = encoder(chatty(NO_SYSTEM + CHATML))
    ids = encode(Example(TASK, turns("a?", "b", "c?", system="Rhyme."), "d"))
    text, parts = counted(encode, ids)
    assert text.startswith("<|im_start|>user\nRhyme.\n\na?<|im_end|>")
    assert parts == ["b<|im_end|>", "d<|im_end|>"]


def test_a_system_turn_that_the_template_leaves_out_stands_in_the_question():
    silent = CHATML.replace("in messages", "in messages if m.role != 'system'")
    ids = encoder(chatty(silent))(Example(TASK, turns("a?", "b", "c?", system="Rhyme."), "d"))
    text, _ = counted(encoder(chatty(silent)), ids)
    assert text.startswith("<|im_start|>user\nRhyme.\n\na?<|im_end|>")


def test_a_template_that_leaves_out_a_question_is_one_line():
    last = encoder(chatty(CHATML.replace("in messages", "in messages[-1:]")))
    assert last(Example(TASK, turns("who?"), "d")).prompt
    with pytest.raises(NloraError, match=r"it leaves out what the user says: 'who\?'"):
        last(Example(TASK, turns("who?", "b", "where?"), "d"))


def test_a_chat_that_the_template_refuses_is_one_line_before_training():
    encode = encoder(chatty("{{ raise_exception('turns must\nalternate') }}"))
    examples = (Example(TASK, turns("who is there?"), "d"),)
    with pytest.raises(NloraError) as error:
        check_readable(encode, [TaskData(TASK, examples, examples)], 50)
    assert str(error.value) == (
        "task 'chats', the chat that begins with 'who is there?': the model's chat template "
        "refuses it: turns must alternate"
    )


def test_a_template_that_refuses_prompts_of_texts_is_one_line_before_training():
    own = chatty("{{ raise_exception('never') }}")
    text = TaskData(Task("text"), (Example(Task("text"), "x", "y"),), ())
    with pytest.raises(NloraError, match="the model's chat template refuses it: never"):
        check_readable(Encoder(own, Prompter(chat=True, tokenizer=own), False), [text], 50)


def test_with_chat_the_turns_end_of_the_template_ends_the_answer_to_a_text():
    own = chatty()
    encode = Encoder(own, Prompter(chat=True, tokenizer=own), False)
    ids = encode(Example(Task("text"), "x", "y"))
    assert own.decode(ids.answer) == "y<|im_end|>"
    assert encode.end() == own.convert_tokens_to_ids("<|im_end|>")
    assert encoder(own).end() == own.eos_token_id
    wordy = tiny.tokenizer(False)  # ends turns with several tokens
    wordy.chat_template = CHATML
    assert encoder(wordy).end(chat=True) == wordy.eos_token_id


def test_ids_of_chats_depend_on_the_template(tmp_path, monkeypatch):
    monkeypatch.setenv("NLORA_CACHE", str(tmp_path))
    examples = [Example(TASK, turns(f"{i}?"), "d") for i in range(100)]
    for start in ("<|im_start|>", "<|im_end|>"):
        encode = encoder(chatty(CHATML.replace("<|im_start|>", start)))
        [first, *_] = encode.all(examples)
        assert encode.tokenizer.decode(first.prompt).startswith(start)


SEPARATED = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
"""As DialoGPT's: the token that ends an answer also stands between the turns."""
BLANK = CHATML.replace("<|im_start|>assistant\n{% endif", "<|im_start|>assistant{% endif")
"""Opens the answer without the blank that it writes before one."""


def test_a_question_keeps_the_token_that_ends_it_where_turns_end_so():
    own = chatty(SEPARATED, ends_with_eos=True)
    ids = encoder(own)(Example(TASK, turns("hello", "hi", "how?"), "fine"))
    end = own.eos_token
    assert own.decode(ids.prompt + ids.answer) == f"hello{end}hi{end}how?{end}fine{end}"


def test_with_chat_an_answer_to_a_text_begins_with_the_blank_that_the_template_writes():
    own = chatty(BLANK)
    encode = Encoder(own, Prompter(chat=True, tokenizer=own), False)
    label = encode(Example(Task("text"), "x", "y"))
    talk = encoder(own)(Example(TASK, turns("x"), "y"))
    assert label.answer == talk.answer
    assert own.decode(label.answer) == "\ny<|im_end|>"


def test_a_template_may_say_what_marks_an_answer():
    told = "{% if messages[0].role != 'system' %}Give an answer.<|im_end|>\n{% endif %}"
    encode = encoder(chatty(told + CHATML))
    assert encode.end(chat=True) == encode.tokenizer.convert_tokens_to_ids("<|im_end|>")
    ids = encode(Example(TASK, turns("a?"), "b"))
    assert encode.tokenizer.decode(ids.answer) == "b<|im_end|>"
