"""What lfpt5's prompt writes of earlier tasks, and what of it is rehearsed."""

import logging
from collections import Counter

import pytest
import torch

from nlora.data.task import Example, Task, TaskData
from nlora.methods import lfpt5
from nlora.methods.registry import method
from tests import tiny
from tests.loop import encoder
from tests.methods.helpers import TASKS, learn, stages
from tests.methods.test_lfpt5 import FIRST, SECOND, SMALL, at, prompt_of, says


def test_an_example_is_written_as_the_model_reads_it():
    cutting = encoder("llama")
    cutting.max_text_tokens = 6
    data = TaskData(Task("colour", "Which?", ("red",)), (), ())
    example = lfpt5.written(cutting, Example(data.task, "a much too long text", "red"))
    assert example.label == "a much Answer: red"
    prompt, cut = cutting.prompt_ids(example.task, example.text)
    assert not cut
    assert '"colour"' in cutting.tokenizer.decode(prompt)


@pytest.mark.parametrize(
    ("text", "label", "expected"),
    [
        ("Some text Answer: red", "red", "Some text"),
        ("two\nlines\nAnswer:  Blue or GREY. ", "blue or grey", "two\nlines"),
        ("Question: x Answer: y Answer: green", "green", "Question: x Answer: y"),
        ("Some text Answer: yellow", None, None),
        ("Some text Answer: red or green", None, None),
        ("Some text", None, None),
        ("red", None, None),
        (" Answer: red", None, None),
        ("", None, None),
    ],
)
def test_a_pseudo_sample_has_a_text_and_a_valid_label(text, label, expected):
    found = lfpt5.read(FIRST.task, text)
    assert found == (None if label is None else Example(FIRST.task, expected, label))


def test_free_text_answers_are_all_valid_but_not_empty_ones():
    free = Task("free")
    assert lfpt5.read(free, "text Answer: any at all") == Example(free, "text", "any at all")
    assert lfpt5.read(free, "text Answer: ") is None


def rehearsed(monkeypatch, texts, *learned, **settings):
    """The pseudo-samples of a stage after these tasks, and how often the model was asked."""
    built = method("lfpt5").build({**SMALL, **settings})
    built.state.learned = [{"task": data.task.to_json(), "longest": 9} for data in learned]
    asked = says(monkeypatch, texts)
    ctx = at("llama", prompt_of("llama", built), len(learned) + 1, SECOND)
    built.begin(ctx)
    return built.mixed_in(ctx).examples, asked


def test_so_many_per_class_of_each_earlier_task_are_kept_and_none_twice(monkeypatch):
    texts = [f"text {i} Answer: {label}" for i in range(4) for label in ("red", "green")]
    texts = [*texts[:2], texts[0], *texts, "last Answer: blue or grey", "bad Answer: no"]
    other = tiny.task("shape")
    found, asked = rehearsed(monkeypatch, texts, FIRST, other)
    assert len(found) == len(set(found))
    counts = Counter((e.task.name, e.label) for e in found)
    expected = {"red": 2, "green": 2, "blue or grey": 1}
    assert counts == {(t, label): n for t in ("colour", "shape") for label, n in expected.items()}
    assert [e.text for e in found if e.task == FIRST.task and e.label == "red"] == [
        "text 0",
        "text 1",
    ]
    # 4 candidates for each of the 6 that were wanted
    assert asked == [("colour", 24), ("shape", 24)]


def test_enough_is_enough(monkeypatch):
    texts = [f"text {i} Answer: {label}" for i in range(32) for label in FIRST.task.labels]
    found, asked = rehearsed(monkeypatch, texts, FIRST, candidates=100)
    assert len(found) == 6
    assert asked == [("colour", 32)]
    found, asked = rehearsed(monkeypatch, texts, FIRST, pseudo_samples=0)
    assert (list(found), asked) == ([], [])


def test_where_nothing_valid_is_written_a_warning_says_so_and_training_goes_on(
    llama, tmp_path, monkeypatch, caplog
):
    says(monkeypatch, ["nothing of use"])
    with caplog.at_level(logging.WARNING, logger="nlora"):
        learn(llama, tmp_path, "lfpt5", TASKS[:2], **SMALL, learning_rate=0.1)
    assert "stage 'size': only 0 of 6 pseudo-samples of task 'colour'" in caplog.text
    assert [record.examples for record in stages(tmp_path)] == [12, 12]


def test_texts_are_sampled_as_published(monkeypatch):
    built = method("lfpt5").build(SMALL)
    for shape in ("llama", "t5"):
        ctx = at(shape, prompt_of(shape, built), 2, SECOND)
        ctx.adapter.begin()
        asked = {}
        original = ctx.model.generate

        def generate(original=original, asked=asked, **how):
            asked.update(how)
            return original(**how)

        monkeypatch.setattr(ctx.model, "generate", generate)
        texts = lfpt5.sampled_texts(ctx, FIRST.task, 7, 8)
        assert len(set(texts)) > 1
        assert not any("Write an example" in text for text in texts)
        assert all(len(ctx.encoder.tokenizer(text).input_ids) <= 3 * 7 + 1 for text in texts)
        expected = {"do_sample": True, "top_k": 64, "repetition_penalty": 2.5, "max_new_tokens": 7}
        assert expected.items() <= asked.items()


def test_the_stages_seed_decides_what_is_written_and_nothing_else_changes(monkeypatch):
    def written(seed):
        built = method("lfpt5").build({**SMALL, "pseudo_samples": 3})
        free = Task("free")
        built.state.learned = [{"task": free.to_json(), "longest": 9}]
        ctx = at("llama", prompt_of("llama", built), 2, SECOND, seed)
        torch.manual_seed(0)
        ctx.adapter.begin()
        monkeypatch.setattr(lfpt5, "read", lambda task, text: Example(task, text, "x"))
        before = torch.random.get_rng_state()
        built.begin(ctx)
        found = built.mixed_in(ctx).examples
        assert torch.equal(torch.random.get_rng_state(), before)
        return found

    assert len(written(5)) == 3
    assert written(5) == written(5)
    assert written(5) != written(6)
