"""Chat templates made of pieces of Jinja: nothing but a NloraError, and an end."""

import os
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlora.data import bounded, chat
from nlora.data.chat import ChatForm
from nlora.errors import NloraError
from tests.data.test_templates import Templated
from tests.fuzz.edits import EACH

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")

PIECES = (
    *("{% for m in messages %}", "{% endfor %}", "{{ m.role }}", "{{ m.content }}", "{{ m }}"),
    *("{% if m.role == 'user' %}", "{% else %}", "{% endif %}", "{{ messages[0].content }}"),
    *("{% if add_generation_prompt %}", "{{ raise_exception('no') }}", "{{ bos_token + 1 }}"),
    *("{{ messages[9] }}", "{{ 'a' * 10 ** 11 }}", "{{ 1 / 0 }}", "{{ range(99999) | list }}"),
    *("{% set x = x + 1 %}", "{{ messages | tojson }}", "{{ ''.__class__.__mro__ }}", "{{", "%}"),
    *("{% macro f() %}", "{{ f() }}", "{% endmacro %}", "{% generation %}", "{% include 'x' %}"),
    *("{{ messages | map(attribute='content') | join }}", "{{ '%d' % 'x' }}", "\x00", "\ud800"),
    *("{{ strftime_now('%Y') }}", "{{ cycler(1, 2) }}", "{{ lipsum(9) }}", "{#", "#}", "{% raw %}"),
)
TURNS = (
    [{"role": "user", "content": "hello"}],
    [{"role": "system", "content": "be kind"}, {"role": "user", "content": "{{ hello }}"}],
    [{"role": r, "content": f"{r} 1"} for r in ("user", "assistant", "user", "assistant", "user")],
)


@pytest.fixture(scope="module", autouse=True)
def soon():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(chat, "endless", lambda call: bounded.endless(call, 2, 200 * 2**20))
        yield


@EACH
@given(
    st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=8).map("".join),
    st.sampled_from(TURNS),
)
def test_templates(template, turns):
    form = ChatForm(Templated(template))
    for call in (
        lambda: form.prompt(turns),
        lambda: (form.gap, form.tail, form.end),
        lambda: form.spans(turns),
    ):
        with suppress(NloraError):
            call()
