from itertools import pairwise

import pytest
import torch
from torch.nn.functional import cross_entropy

from nlora.adapters.prompt import Prompt
from nlora.continual.learning import learn as learn_task
from nlora.continual.learning import run
from nlora.data.batches import Collator
from nlora.data.encode import Encoded
from nlora.errors import NloraError
from nlora.fast.logits import answer_logits
from nlora.methods.registry import method
from nlora.plan.config import RunConfig
from nlora.plan.resolve import choose
from tests import runs, tiny
from tests.adapters.helpers import train
from tests.loop import context, stage
from tests.methods.helpers import TASKS, learn, losses, same_bits, stages, update
from tests.runs import manifests

ROWS = [
    Encoded([11, 12, 13, 14, 15], [21, 22, 23, 1], False),
    Encoded([31, 32], [1], False),
    Encoded([41, 42, 43], [51, 1], False),
]
SMALL = {"pool": 4, "prompt_length": 2, "top_k": 2}


def begun(shape, **settings):
    l2p = method("l2p").build({**SMALL, **settings})
    adapter = Prompt(tiny.model(shape), **l2p.adapter_options())
    torch.manual_seed(1)
    adapter.begin()
    train(adapter, seed=1)
    adapter.model.eval()
    return l2p, context(shape, adapter, stage(), tokens=7)


def collate(shape, rows):
    return Collator(0, shape in tiny.ENCODER_DECODER)(rows)


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_the_key_match_is_the_cosine_distance_to_the_selected_keys(shape):
    l2p, ctx = begun(shape, key_weight=0.7, query="embedding")
    model = ctx.model
    terms = l2p.loss(ctx, collate(shape, ROWS))
    keys = model.updates[0]["key"].detach()
    vocabulary = model.model.get_input_embeddings().weight
    expected = 0.0
    for row in ROWS:
        query = vocabulary[row.prompt].mean(0)
        cosines = [float(query @ key / (query.norm() * key.norm())) for key in keys]
        first, second, *_ = sorted(cosines, reverse=True)
        expected += len(row.answer) / 7 * ((1 - first) + (1 - second))
    assert terms["key match"].item() == pytest.approx(0.7 * expected, rel=1e-4)
    logits, targets = answer_logits(model, collate(shape, ROWS))
    task = cross_entropy(logits, targets)
    torch.testing.assert_close(terms["task"], task, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_the_task_moves_prompts_alone_and_the_key_match_keys_alone(shape):
    l2p, ctx = begun(shape)
    model = ctx.model
    prompt, key = model.updates[0]["prompt"], model.updates[0]["key"]
    terms = l2p.loss(ctx, collate(shape, ROWS))
    terms["task"].backward(retain_graph=True)
    assert key.grad is None
    assert prompt.grad.abs().max() > 0
    prompt.grad = None
    terms["key match"].backward()
    assert prompt.grad is None
    assert key.grad.abs().max() > 0
    assert all(p.grad is None for p in model.model.parameters())


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_micro_batches_add_up_to_the_batch(shape):
    l2p, ctx = begun(shape)
    whole = l2p.loss(ctx, collate(shape, ROWS))
    parts = [l2p.loss(ctx, collate(shape, rows)) for rows in (ROWS[:1], ROWS[1:])]
    for name, value in whole.items():
        together = sum(part[name] for part in parts)
        torch.testing.assert_close(together, value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", ["llama", "t5"])
def test_one_pool_goes_on_from_task_to_task(model, request, tmp_path):
    learn(request.getfixturevalue(model), tmp_path, "l2p", **SMALL, learning_rate=0.1)
    records = stages(tmp_path)
    assert manifests(tmp_path) == [[record.folder] for record in records]
    pools = [update(tmp_path, number) for number in (1, 2, 3)]
    for pool, record in zip(pools, records, strict=True):
        assert {name: list(t.shape) for name, t in pool.items()} == {
            "prompt": [4, 2, 32],
            "key": [4, 32],
        }
        assert record.trainable_parameters == 4 * 2 * 32 + 4 * 32
    for earlier, later in pairwise(pools):
        same = [torch.equal(earlier["key"][i], later["key"][i]) for i in range(4)]
        # keys that nothing selected stay where they were, bit for bit
        assert True in same
        assert False in same
    for number in (1, 2, 3):
        matches = [step["key match"] for step in losses(tmp_path, number)]
        assert all(0 < match < 0.5 * 2 * 2 for match in matches)


def test_it_is_never_told_a_task_and_needs_no_old_data():
    kind = method("l2p").build({})
    assert not kind.needs_task_id
    assert not kind.needs_old_data


@pytest.mark.parametrize("model", ["llama", "t5"])
def test_a_model_that_went_on_from_files_is_the_one_that_never_stopped(model, request, tmp_path):
    folder, stream = request.getfixturevalue(model), [tiny.task(name) for name in TASKS]
    config = runs.config(folder, None, {**runs.FAST, **SMALL}, method="l2p")
    run(config, tmp_path / "whole", stream=stream)
    for task in stream:
        learn_task(tmp_path / "parts", task, config)
    assert same_bits(tmp_path / "whole", tmp_path / "parts")


def test_its_papers_optimiser_and_published_settings_are_the_defaults():
    resolved = choose(RunConfig(model="any", method="l2p"))
    assert resolved.run.learning_rate == 0.03
    s = resolved.method.settings
    assert (s.pool, s.prompt_length, s.top_k, s.key_weight) == (10, 5, 3, 0.5)


def test_more_prompts_than_the_pool_has_cannot_be_selected():
    with pytest.raises(NloraError, match="'top_k': the pool has 2 prompts to select from, not 3"):
        method("l2p").build({"pool": 2})
