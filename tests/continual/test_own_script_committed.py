"""What was trained in a script of one's own is a stage like any other."""

import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from nlora.api.own_script import ContinualLora
from nlora.continual.answering import predict
from nlora.continual.guard import SetAside
from nlora.continual.history import history
from nlora.continual.holding import discard
from nlora.continual.learning import learn, run
from nlora.continual.model import ContinualModel
from nlora.continual.taking_back import rollback
from nlora.continual.verifying import verify
from nlora.data.files import read_stream
from nlora.errors import NloraError
from nlora.store.directory import ModelDirectory
from tests import tiny
from tests.continual.own_script import learned, started
from tests.runs import LEARNING, config, tree, write_stream

IDS = torch.arange(3, 60)[None]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return read_stream(write_stream(tmp_path_factory.mktemp("tasks"), train=24))


@pytest.fixture(scope="module")
def routed(llama, tasks, tmp_path_factory):
    """A directory that a router chooses the adapter in."""
    out = tmp_path_factory.mktemp("routed") / "out"
    run(
        config(llama, None, {**LEARNING, "routing": "input", "prompt": "released"}),
        out,
        stream=tasks[:1],
    )
    return out


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def test_earlier_adapters_and_the_new_update_are_stages_that_everything_reads(
    llama, adapters, tasks, tmp_path
):
    lora, out = started(llama, adapters), tmp_path / "out"
    trained = logits(lora.model)
    found = lora.commit(out, tasks[0])
    assert found["stages"] == ["task-1", "task-2", "colour"]
    assert found["tasks"] == ["colour"]
    assert found.average_accuracy is not None
    assert "after colour" in str(found)  # the table of `learn`
    model = ContinualModel.open(out)
    torch.testing.assert_close(logits(model.adapter.model), trained, rtol=1e-4, atol=1e-4)
    assert [row["name"] for row in history(ModelDirectory(out))["stages"]] == [
        "task-1",
        "task-2",
        "colour",
    ]
    assert [task["turned"] for task in verify(out)["tasks"]] == [0]
    assert predict(out, ["xxx 1"], "colour")[0].answer in ("a", "b", "c")
    assert learn(out, tasks[1])["stages"] == ["task-1", "task-2", "colour", "animal"]


def test_month_after_month_in_one_script(llama, tasks, tmp_path):
    lora = started(llama)
    lora.commit(tmp_path / "out", name="before anybody tested")
    after_one = logits(lora.model)
    with torch.no_grad():
        for factors in lora.adapter.factors().values():
            assert not factors.B.any()  # a fresh one
            factors.B.normal_()
    assert not torch.equal(logits(lora.model), after_one)
    found = lora.commit(tmp_path / "out", tasks[0])
    assert found["stages"] == ["before anybody tested", "colour"]
    model = ContinualModel.open(tmp_path / "out")
    with model.after(1):
        torch.testing.assert_close(logits(model.adapter.model), after_one, rtol=1e-4, atol=1e-4)


def test_what_was_saved_is_committed_from_another_process(llama, adapters, tasks, tmp_path):
    lora = started(llama, adapters)
    lora.model.save_pretrained(tmp_path / "saved")
    trained = logits(lora.model)
    other = ContinualLora(AutoModelForCausalLM.from_pretrained(llama), adapters)
    other.load(tmp_path / "saved")
    torch.testing.assert_close(logits(other.model), trained, rtol=1e-4, atol=1e-4)
    other.commit(tmp_path / "out", tasks[0])
    model = ContinualModel.open(tmp_path / "out").adapter.model
    torch.testing.assert_close(logits(model), trained, rtol=1e-4, atol=1e-4)


def test_a_penalty_that_was_never_in_force_is_told(llama, tmp_path, caplog):
    started(llama).commit(tmp_path / "silent", name="colour")
    assert "no step was counted, so the penalty was never in force" in caplog.text
    caplog.clear()
    started(llama, penalty="none").commit(tmp_path / "plain", name="colour")
    term = started(llama)
    term.loss().backward()  # a term of a loss of one's own
    term.commit(tmp_path / "term", name="colour")
    assert "never in force" not in caplog.text
    term.commit(tmp_path / "term", name="animal")
    assert "never in force" in caplog.text


def test_a_router_takes_the_task_up(llama, routed, tasks, tmp_path):
    out = shutil.copytree(routed, tmp_path / "out")
    lora = started(llama, out)
    assert lora.choice.run.prompt == "released"  # `rows` are asked as the tests are
    with pytest.raises(NloraError, match="router learns from training texts"):
        lora.commit(out, name="unknown")
    lora.commit(out, tasks[1])
    record = ModelDirectory(out).stages()[-1]
    assert ContinualModel.open(out).method.state.by_text.stages == [1, 2]
    assert sum(record.notes["routing"]["tests"]["animal"].values()) == 6
    assert learn(out, tasks[2])["stages"] == ["colour", "animal", "fruit"]


def test_the_guard_sets_it_aside(llama, tasks, tmp_path):
    out = tmp_path / "out"
    [colour] = read_stream(write_stream(tmp_path, "colour", train=24, test=24))
    run(config(llama, None, LEARNING, method="n-lora"), out, stream=[colour])
    lora = started(llama, out)
    with torch.no_grad():
        for factors in lora.adapter.factors().values():
            factors.B.normal_()  # it forgets everything
    before, trained = tree(out / "stages"), learned(lora)
    expected = logits(lora.model)
    with pytest.raises(NloraError, match="give its task"):
        lora.commit(out, name="fruit", max_forgetting=2.0)
    with pytest.raises(SetAside):
        lora.commit(out, tasks[2], max_forgetting=2.0, repair="off")
    with pytest.raises(NloraError, match="'fruit', which is trained and not in force"):
        lora.commit(out, tasks[2])
    assert tree(out / "stages") == before
    assert torch.equal(learned(lora), trained)  # still in hand
    torch.testing.assert_close(logits(lora.model), expected, rtol=1e-3, atol=1e-3)
    discard(out)
    lora.commit(out, tasks[2], max_forgetting=100.0)
    assert [row["name"] for row in history(ModelDirectory(out))["stages"]] == ["colour", "fruit"]
    found = logits(ContinualModel.open(out).adapter.model)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_updates_are_tested_as_they_are_consolidated(llama, adapters, tasks, tmp_path):
    lora = started(llama, adapters, consolidation="largest")
    lora.commit(tmp_path / "out", tasks[0])
    found = ContinualModel.open(tmp_path / "out").adapter
    torch.testing.assert_close(logits(lora.model), logits(found.model), rtol=1e-4, atol=1e-4)
    assert found.consolidation.name == "largest"


REFUSED = {
    "consolidation": (
        lambda routed, **given: {"previous": routed, "consolidation": "largest"},
        "'consolidation' is 'largest', and that of",
    ),
    "weight": (lambda **given: {"weight": "relativ"}, "did you mean 'relative'"),
    "list": (lambda routed, **given: {"previous": [routed, routed]}, "gone on from alone"),
    "rank": (lambda routed, **given: {"previous": routed, "rank": 3}, "'rank' is 3, and that of"),
    "place": (lambda **given: {"previous": "nowhere"}, "nowhere"),
    "setting": (lambda **given: {"ranks": 3}, "did you mean 'rank'"),
    "rate": (lambda **given: {"learning_rate": 1e-4}, "'learning_rate' decides nothing here"),
    "loss": (lambda **given: {"loss": "among-labels"}, "'loss' decides nothing here"),
    "dtype": (lambda **given: {"precision": "bf16"}, "'precision' decides nothing here"),
    "smaller": (lambda adapters, **given: {"previous": adapters, "rank": 2}, "rank 4"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_go_together_is_refused_in_one_line(kind, llama, adapters, routed):
    given, reason = REFUSED[kind]
    settings = given(adapters=adapters, routed=routed)
    with pytest.raises(NloraError, match=reason) as error:
        ContinualLora(AutoModelForCausalLM.from_pretrained(llama), **settings)
    assert "\n" not in str(error.value)


def test_a_model_that_is_adapted_or_of_another_precision_is_refused(llama, routed):
    model = AutoModelForCausalLM.from_pretrained(llama)
    with pytest.raises(NloraError, match=r"dtype=torch\.float32"):
        ContinualLora(AutoModelForCausalLM.from_pretrained(llama, dtype=torch.bfloat16), routed)
    with pytest.raises(NloraError, match="plain model"):
        ContinualLora(get_peft_model(model, LoraConfig()))


def test_it_is_committed_only_where_it_was_trained(llama, adapters, routed, tasks, tmp_path):
    with pytest.raises(NloraError, match="holds other stages"):
        started(llama, adapters).commit(routed, tasks[0])
    out = shutil.copytree(routed, tmp_path / "out")
    lora = started(llama, out)
    with pytest.raises(NloraError, match="commit it there"):
        lora.commit(tmp_path / "other", tasks[1])
    learn(out, tasks[1])
    with pytest.raises(NloraError, match="holds other stages"):
        lora.commit(out, tasks[2])


def test_as_many_other_stages_are_not_those_that_it_was_trained_on(llama, tmp_path):
    out = tmp_path / "out"
    started(llama).commit(out, name="one")
    lora = started(llama, out)
    rollback(out)
    other = started(llama)
    with torch.no_grad():
        next(iter(other.adapter.factors().values())).B.zero_()
    other.commit(out, name="one")
    with pytest.raises(NloraError, match="holds other stages"):
        lora.commit(out, name="two")


def test_a_base_model_that_nlora_could_not_load_is_refused(tasks, tmp_path):
    lora = ContinualLora(tiny.model("llama"))
    with pytest.raises(NloraError, match="model"):
        lora.commit(tmp_path / "out", tasks[0], tokenizer=tiny.tokenizer(ends_with_eos=False))
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_those_of_the_base_model_are_refused(llama, tasks, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(llama)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.add_(0.01)
    lora = ContinualLora(model, rank=4)
    with pytest.raises(NloraError, match=r"layers\.0\.mlp\.down_proj\.weight differs"):
        lora.commit(tmp_path / "out", tasks[0])
    assert not (tmp_path / "out").exists()


def test_an_update_that_diverged_is_refused(llama, tmp_path):
    lora = started(llama)
    with torch.no_grad():
        lora.parameters()[-1][-1] = torch.nan
    with pytest.raises(NloraError, match="holds NaN"):
        lora.commit(tmp_path / "out", name="diverged")
    assert not (tmp_path / "out").exists()


def test_a_model_of_another_size_is_refused(routed):
    other = tiny.model("multi-query")
    with pytest.raises(NloraError, match="its base model is another one"):
        ContinualLora(other, routed)


def test_a_loop_without_a_beginning_is_told(llama):
    lora = started(llama)
    with pytest.raises(NloraError, match="call begin"):
        lora.step(torch.optim.SGD(lora.parameters(), lr=0.1))
    with pytest.raises(NloraError, match="give weight a number"):
        started(llama, weight="relative").loss()
