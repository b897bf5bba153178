"""A model with an embedding for each position reads no further, and it is said before training."""

import pytest
import torch
from benchmarks.tiny_families import tiny_config
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from nlora.backbones.load import load
from nlora.backbones.structure import learned_positions
from nlora.continual.building import make_adapter
from nlora.continual.learning import run
from nlora.continual.preview import preview
from nlora.data.task import Example, Task, TaskData
from nlora.errors import NloraError
from nlora.plan.resolve import resolve
from tests import tiny
from tests.runs import FAST, Listener, config


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A model with 64 positions, in a folder."""
    folder = tmp_path_factory.mktemp("short")
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "vocab_size": 259}
    sizes = GPT2Config(**ids, n_embd=8, n_layer=1, n_head=1, n_positions=64)
    GPT2LMHeadModel(sizes).save_pretrained(folder)
    tiny.tokenizer(False).save_pretrained(folder)
    return folder


def stream(answer):
    task = Task("sum", "Say")
    rows = tuple(Example(task, "x" * 100, label) for label in ("y", answer, "y", answer))
    return [TaskData(task, rows, rows[:2])]


def test_prompts_leave_room_for_the_answer(short, tmp_path):
    listener = Listener()
    run(config(short, None), tmp_path / "out", listener, stream=stream("no"))
    told = "prompts have 60 tokens at most, not 512 (max_length): the model has 64 positions"
    assert sum(told in line for line in listener.messages) == 1


@pytest.mark.parametrize(
    ("answer", "settings", "said"),
    [
        ("n" * 20, {}, "an answer of 22 tokens is too long .* 64 positions .* set max_length=42"),
        ("n" * 99, {}, "an answer of 101 tokens is too long .* for prompt and answer$"),
        ("no", {"max_new_tokens": 64}, "leaves none for a prompt; set a smaller max_new_tokens"),
    ],
)
def test_what_has_no_room_is_one_line_before_training(short, tmp_path, answer, settings, said):
    with pytest.raises(NloraError, match=said):
        run(config(short, None, FAST | settings), tmp_path / "out", stream=stream(answer))


@pytest.mark.parametrize(
    ("method", "settings", "room"),
    [
        ("prog-prompt", {"prompt_length": 4}, 60 - 8),  # of both stages
        ("lfpt5", {"prompt_length": 4}, 60 - 4),
        ("l2p", {"prompt_length": 3, "top_k": 2, "pool": 4}, 60 - 6),
    ],
)
def test_soft_prompts_take_positions_too(short, method, settings, room):
    first = stream("no")[0]
    task = Task("other", "Say")
    rows = tuple(Example(task, e.text, e.label) for e in first.train)
    both = [first, TaskData(task, rows, rows[:2])]
    plan = resolve(config(short, None, FAST | settings, method=method), both)
    note = next(line for line in preview(plan).notes if "max_length" in line)
    assert f"prompts have {room} tokens at most" in note
    assert f"for prompt, {60 - room} vectors of soft prompts and answer" in note
    backbone = load(plan.base, torch.float32)
    adapter = make_adapter(plan, backbone)
    for _ in plan.stages():
        adapter.begin(continued=plan.method.continues)
    longest = torch.full((1, room + plan.run.max_new_tokens), 5)
    adapter.model(longest, torch.ones_like(longest))
    beyond = torch.full((1, room + plan.run.max_new_tokens + 1), 5)
    with pytest.raises(IndexError):  # one more has no position
        adapter.model(beyond, torch.ones_like(beyond))


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_only_learned_positions_end(shape):
    assert learned_positions(tiny.model(shape)) == (768 if shape == "gpt2" else None)


@pytest.mark.parametrize("family", ["openai-gpt", "gptj", "codegen", "ctrl", "xglm"])
def test_a_model_reads_as_many_tokens_as_it_has_positions(family):
    made = tiny_config(family)
    name = "max_position_embeddings" if family == "xglm" else "n_positions"
    made.update({name: 24})
    net = AutoModelForCausalLM.from_config(made)
    end = learned_positions(net)
    net(input_ids=torch.full((1, end or 40), 5))
    assert end == (None if family == "xglm" else 24)  # XGLM's table grows
    if end is not None:
        with pytest.raises((IndexError, RuntimeError)):
            net(input_ids=torch.full((1, end + 1), 5))
