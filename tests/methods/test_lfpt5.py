import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from nlora.adapters.prompt import Prompt
from nlora.continual.learning import learn as learn_task
from nlora.continual.learning import run
from nlora.data.batches import Collator
from nlora.data.task import Example, Task, TaskData
from nlora.methods import lfpt5
from nlora.methods.context import Stage
from nlora.methods.registry import method
from nlora.plan.config import RunConfig
from nlora.plan.resolve import choose
from nlora.plan.settings import RunSettings
from nlora.training.loop import take_examples
from tests import runs, tiny
from tests.adapters.helpers import train
from tests.loop import context
from tests.methods.helpers import TASKS, learn, losses, same_bits, stages, update

FIRST = tiny.task("colour", 6)
SECOND = tiny.task("size", 4)
SMALL = {"prompt_length": 5}
WEIGHTS = {"kl_weight": 0.3, "lm_weight": 0.6}


def prompt_of(shape, built):
    return Prompt(tiny.model(shape), **built.adapter_options())


def at(shape, adapter, number, data, seed=3, tokens=50):
    """The context of a stage."""
    return context(shape, adapter, Stage(number, data.name, (data,), seed=seed), tokens=tokens)


def taken(built, ctx):
    """The stage's examples, in the context as the loop puts them there."""
    take_examples(built, ctx, RunSettings())
    return ctx.examples


def says(monkeypatch, texts):
    """Let the model write these texts, over and over; what it was asked for is returned."""
    asked = []

    def sampled(ctx, task, longest, count):
        asked.append((task.name, count))
        return [texts[i % len(texts)] for i in range(count)]

    monkeypatch.setattr(lfpt5, "sampled_texts", sampled)
    return asked


def second_stage(shape, monkeypatch, **settings):
    """Method, context and the old prompt in a second stage, with three pseudo-samples."""
    built = method("lfpt5").build({**SMALL, **WEIGHTS, "pseudo_samples": 1, **settings})
    adapter = prompt_of(shape, built)
    torch.manual_seed(1)
    first, second = (at(shape, adapter, k, data) for k, data in ((1, FIRST), (2, SECOND)))
    built.begin(first)
    taken(built, first)
    train(adapter, seed=1)
    built.end(first)
    says(monkeypatch, ["one Answer: red", "two Answer: green", "three Answer: blue or grey"])
    built.begin(second)
    taken(built, second)
    old = adapter.trainable()[0].detach().clone()
    train(adapter, seed=2, size=2.0)
    adapter.model.eval()
    return built, second, old


def log_p(model, prompt, ids, answer):
    """log p of every token at the answer's positions, (T, V), with the prompt after the text."""
    table = model.get_input_embeddings()
    read = torch.cat([table(torch.tensor(ids)), prompt])
    if model.config.is_encoder_decoder:
        start = [model.config.decoder_start_token_id, *answer[:-1]]
        logits = model(inputs_embeds=read[None], decoder_input_ids=torch.tensor([start])).logits
        return logits[0].log_softmax(-1)
    read = torch.cat([read, table(torch.tensor(answer))])
    logits = model(inputs_embeds=read[None]).logits[0]
    return logits[-len(answer) - 1 : -1].log_softmax(-1)


def batch_of(ctx, index):
    return Collator(0, ctx.encoder.encoder_decoder)([ctx.encoded[i] for i in index])


@pytest.mark.parametrize("shape", ["llama", "t5"])
@torch.no_grad()
def test_the_loss_is_made_of_answering_writing_and_the_kl_to_the_old_prompt(shape, monkeypatch):
    built, ctx, old = second_stage(shape, monkeypatch)
    examples = ctx.examples
    assert len(examples) == len(SECOND.train) + 3
    new = ctx.adapter.trainable()[0].detach()
    index = [1, 5, 0, 6]  # two of the task, two pseudo-samples
    terms = built.loss(ctx, batch_of(ctx, index))

    model, encoder = ctx.model.model, ctx.encoder
    task = writing = divergence = 0.0
    for i in index:
        example = examples[i]
        ids, answer = encoder(example).prompt, encoder(example).answer
        now = log_p(model, new, ids, answer)
        task += float(-now[range(len(answer)), answer].sum())
        text = Example(
            Task(
                "any",
                f'Write an example of the task "{example.task.name}": text, "Answer:" and answer.',
            ),
            "",
            f"{example.text} Answer: {example.label}",
        )
        ids_w, text_w = encoder(text).prompt, encoder(text).answer
        told = log_p(model, new, ids_w, text_w)[range(len(text_w)), text_w]
        writing += len(answer) * float(-told.mean())
        if i >= len(SECOND.train):
            before = log_p(model, old, ids, answer)
            divergence += float((before.exp() * (before - now)).sum())
    answers = [len(encoder(e).answer) for e in examples]
    share = sum(answers[-3:]) / sum(answers)
    assert terms["task"].item() == pytest.approx(0.7 * task / 50, rel=1e-4)
    assert terms["writing"].item() == pytest.approx(0.7 * 0.6 * writing / 50, rel=1e-4)
    assert terms["distillation"].item() == pytest.approx(0.3 * divergence / (50 * share), rel=1e-3)
    assert divergence > 1e-2


def test_what_is_rehearsed_beside_is_no_pseudo_sample(monkeypatch):
    built, ctx, _ = second_stage("llama", monkeypatch)
    alone = built.loss(ctx, batch_of(ctx, [5, 6]))["distillation"]
    more = [replace(row, index=len(ctx.examples) + k) for k, row in enumerate(ctx.encoded[:2])]
    ctx.examples = [*ctx.examples, *ctx.examples[:2]]
    answers = [sum(len(row.answer) for row in rows) for rows in (ctx.encoded, more)]
    ctx.encoded = [*ctx.encoded, *more]
    found = built.loss(ctx, batch_of(ctx, [5, 6, 7, 8]))["distillation"]
    longer = 1 + answers[1] / answers[0]  # an epoch has more tokens, of which as many are theirs
    assert found.item() == pytest.approx(alone.item() * longer, rel=1e-4)
    built.end(ctx)
    assert len(built.state.pseudo_samples) == 3


@pytest.mark.parametrize("shape", ["llama", "t5"])
@torch.no_grad()
def test_micro_batches_add_up_to_the_batch(shape, monkeypatch):
    built, ctx, _ = second_stage(shape, monkeypatch)

    def terms(index):
        return built.loss(ctx, batch_of(ctx, index))

    parts = [terms([5, 1]), terms([0]), terms([6, 2])]
    for name, value in terms([1, 5, 0, 6, 2]).items():
        together = sum(part[name] for part in parts)
        torch.testing.assert_close(together, value, rtol=1e-4, atol=1e-6)


def test_over_an_epoch_the_kl_is_the_mean_over_the_pseudo_samples_answer_tokens(monkeypatch):
    built, ctx, old = second_stage("llama", monkeypatch)
    new, encoder, examples = ctx.adapter.trainable()[0].detach(), ctx.encoder, ctx.examples
    rows = range(len(examples))
    ctx.tokens = sum(len(encoder(e).answer) for e in examples)
    term = built.loss(ctx, batch_of(ctx, rows))["distillation"]
    per_token = []
    with torch.no_grad():
        for example in examples[-3:]:
            ids, answer = encoder(example).prompt, encoder(example).answer
            before, now = (log_p(ctx.model.model, p, ids, answer) for p in (old, new))
            per_token += (before.exp() * (before - now)).sum(-1).tolist()
    assert term.item() == pytest.approx(0.3 * sum(per_token) / len(per_token), rel=1e-3)


def test_the_old_prompt_teaches_and_is_not_taught(monkeypatch):
    built, ctx, _ = second_stage("t5", monkeypatch)
    prompt = ctx.adapter.trainable()[0]
    terms = built.loss(ctx, batch_of(ctx, [5]))
    terms["distillation"].backward()
    assert prompt.grad.abs().max() > 0
    assert all(p.grad is None for p in ctx.model.model.parameters())


def test_the_old_prompt_teaches_without_dropout(monkeypatch):
    built, ctx, _ = second_stage("t5", monkeypatch)
    model, batch = ctx.model.train(), batch_of(ctx, [5])
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    now = torch.zeros(len(ctx.encoded[5].answer), 259)
    one, other = (built._divergence(ctx, batch, torch.tensor([True]), now) for _ in range(2))
    assert one.item() == other.item() > 0
    assert model.training


def test_the_prompt_starts_at_the_tasks_name_its_labels_and_frequent_tokens():
    built = method("lfpt5").build({"prompt_length": 6})
    task = Task("ab", "Which?", ("c", "de"))
    texts = ("zzzz", "zzyy", "yyyx")
    data = TaskData(task, tuple(Example(task, text, "c") for text in texts), ())
    ctx = at("llama", prompt_of("llama", built), 1, data)
    built.begin(ctx)
    table = ctx.model.model.get_input_embeddings().weight

    def vector(text):
        return table[ctx.encoder.tokenizer(text).input_ids].mean(0)

    expected = torch.stack([vector(word) for word in ("ab", "c", "de", "z", "y", "x")])
    torch.testing.assert_close(ctx.adapter.trainable()[0].detach(), expected)


FAKE = ("red", "green", "blue or grey", "nothing")


@pytest.fixture
def fluent(monkeypatch):
    """A model that writes valid examples, by the random numbers of its stage."""

    def sampled(ctx, task, longest, count):
        for _ in range(count):
            number, label = torch.randint(1000, (2,)).tolist()
            yield f"invented {number} Answer: {FAKE[label % 4]}"

    monkeypatch.setattr(lfpt5, "sampled_texts", sampled)


@pytest.mark.parametrize("model", ["llama", "t5"])
def test_pseudo_samples_are_of_earlier_tasks_and_join_the_training(
    model, request, fluent, tmp_path
):
    learn(request.getfixturevalue(model), tmp_path, "lfpt5", **SMALL, learning_rate=0.1)
    invented = []
    for number, record in enumerate(stages(tmp_path), start=1):
        assert runs.manifests(tmp_path)[number - 1] == [record.folder]  # one prompt, continued
        assert update(tmp_path, number)["prompt"].shape == (5, 32)
        assert record.trainable_parameters == 5 * 32
        state = json.loads((tmp_path / "stages" / record.folder / "state/state.json").read_text())
        assert [k["task"]["name"] for k in state["learned"]] == list(TASKS[:number])
        samples = state["pseudo_samples"]
        invented.append(Counter(e["task"] for e in samples))
        assert record.examples == 12 + len(samples)
        assert all(e["text"].startswith("invented") for e in samples)
        assert not any("text" in json.dumps(k) for k in state["learned"])  # nothing of the data
        steps = losses(tmp_path, number)
        assert all(step["task"] > 0 and step["writing"] > 0 for step in steps)
        assert (sum(step["distillation"] for step in steps) > 0) == (number > 1)
    assert [set(tasks) for tasks in invented] == [set(), {"colour"}, {"colour", "size"}]


@pytest.mark.parametrize("model", ["llama", "t5"])
def test_a_model_that_went_on_from_files_is_the_one_that_never_stopped(
    model, request, fluent, tmp_path
):
    folder, stream = request.getfixturevalue(model), [tiny.task(name) for name in TASKS]
    settings = {**runs.FAST, **SMALL, "learning_rate": 0.1}
    config = runs.config(folder, None, settings, method="lfpt5")
    run(config, tmp_path / "whole", stream=stream)
    for task in stream:  # nothing but the directory tells it of the earlier ones
        learn_task(tmp_path / "parts", task, config)
    assert same_bits(tmp_path / "whole", tmp_path / "parts")
    learn_task(tmp_path / "parts", tiny.task("colour", 14))
    [*_, last] = sorted((tmp_path / "parts/stages").iterdir())
    state = json.loads((last / "state/state.json").read_text())
    assert "colour" not in {e["task"] for e in state["pseudo_samples"]}  # it is learned itself
    assert sorted(k["task"]["name"] for k in state["learned"]) == sorted(TASKS)


def test_its_papers_optimiser_and_published_settings_are_the_defaults(llama, tmp_path):
    resolved = choose(RunConfig(model="any", method="lfpt5"))
    run_ = resolved.run
    assert (run_.optimizer, run_.learning_rate, run_.weight_decay) == ("adafactor", 0.5, 1e-5)
    s = resolved.method.settings
    assert (s.prompt_length, s.lm_weight, s.kl_weight, s.pseudo_samples) == (300, 0.25, 0.01, 2)
    assert not resolved.method.needs_task_id
    assert not resolved.method.needs_old_data


def test_adafactor_steps_at_the_learning_rate(llama, tmp_path):
    task = tiny.task("colour", 8)  # one step
    start = method("lfpt5").build(SMALL)
    config = runs.config(llama, None, {**runs.FAST, **SMALL}, method="lfpt5")
    run(config, tmp_path, stream=[task])
    ctx = at("llama", prompt_of("llama", start), 1, task)
    start.begin(ctx)
    moved = update(tmp_path, 1)["prompt"] - ctx.adapter.trainable()[0].detach()
    # a first step of Adafactor has RMS 1 times the learning rate; not one that it makes up itself
    assert moved.square().mean().sqrt().item() == pytest.approx(0.5, rel=0.05)
