"""A chat template that does not end, takes all memory or raises is one line, and soon."""

import os
import time

import pytest

from nlora.data import bounded, chat
from nlora.data.chat import ChatForm
from nlora.errors import NloraError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")

LOOP = "{% for i in range(99999) %}"
ENDLESS = {
    "loops": LOOP * 4 + "{% endfor %}" * 4,
    "a power": "{{ 9 ** (9 ** 9) }}",
    "a loop over an answer": "{% if messages[-1].role == 'assistant' %}"
    + LOOP * 4
    + "{% endfor %}" * 4
    + "{% endif %}{{ messages[0].content }}",
}
GREEDY = {
    "a product": "{{ 'a' * 10 ** 11 }}",
    "a width": "{{ 'a' | center(10 ** 11) }}",
    "a format": "{{ '%100000000000d' % 1 }}",
    "doubling": "{% set ns = namespace(a='ab') %}"
    + LOOP
    + "{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
}
RAISING = {
    "itself": "{{ raise_exception('no') }}",
    "an unknown name": "{{ messages[7].content.x }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "syntax": "{% for %}",
    "deep": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "zero": "{{ 1 / 0 }}",
}


class Templated:
    """All that a tokenizer is asked for here."""

    eos_token, eos_token_id = "</s>", 1

    def __init__(self, template):
        # Imported here, and not in the process of a trial, which has a second.
        from transformers.utils.chat_template_utils import render_jinja_template

        self.render = render_jinja_template
        self.added_tokens_decoder = {}
        self.chat_template = template

    def apply_chat_template(self, turns, tokenize, **options):
        [[text], _] = self.render([turns], chat_template=self.chat_template, **options)
        return text


def refusal(form):
    with pytest.raises(NloraError) as error:
        form.prompt([{"role": "user", "content": "hello"}])
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def soon(monkeypatch):
    """A second and 200 MB are enough of a test."""
    monkeypatch.setattr(chat, "endless", lambda call: bounded.endless(call, 1, 200 * 2**20))


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_template_that_never_ends_is_refused_and_tried_once(soon, kind):
    form = ChatForm(Templated(ENDLESS[kind]))
    assert "takes more than 1 s" in refusal(form)
    before = time.monotonic()
    assert "takes more than 1 s" in refusal(form)
    assert form.gap == ""
    assert time.monotonic() - before < 0.5


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="only Linux limits memory")
@pytest.mark.parametrize("kind", GREEDY)
def test_a_template_that_takes_all_memory_is_refused(soon, kind):
    assert "takes more than 200 MB" in refusal(ChatForm(Templated(GREEDY[kind])))


@pytest.mark.parametrize("kind", RAISING)
def test_a_template_that_raises_says_what(soon, kind):
    assert "the model's chat template refuses it: " in refusal(ChatForm(Templated(RAISING[kind])))


def test_what_ends_is_not_heard_of_whatever_it_does_to_its_process(tmp_path):
    written = tmp_path / "file"

    def call():
        written.write_text("here")
        raise SystemExit(7)

    assert bounded.endless(call) is None
    assert written.read_text() == "here"
