"""Exported adapters, loaded by plain PEFT, compute what the trained model does, by its rule."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from nlora.continual.adapters_out import export_adapter, export_adapters
from nlora.continual.agreement import stored_plan
from nlora.continual.cards import one_adapter
from nlora.continual.learning import learn as learn_task
from nlora.continual.model import ContinualModel
from nlora.continual.taking_out import take_out
from nlora.errors import NloraError
from nlora.store.directory import ModelDirectory
from tests import tiny
from tests.methods.helpers import learn
from tests.runs import tree

IDS = torch.tensor([[5, 6, 7, 8]])


def logits(net):
    with torch.no_grad():
        return net.eval()(input_ids=IDS).logits.float()


def loaded(base, folder):
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)


def test_one_adapter_is_equal_to_all_updates(finished, llama, tmp_path):
    out = finished("inc-lora").out
    before = tree(out)
    report = export_adapter(out, tmp_path / "one")
    assert report == {"rank": 16, "updates": 2, "error_per_cent": 0.0}
    assert tree(out) == before
    trained = logits(ContinualModel.open(out).adapter.model)
    torch.testing.assert_close(
        logits(loaded(llama, tmp_path / "one")), trained, rtol=1e-4, atol=1e-4
    )
    assert (trained - logits(AutoModelForCausalLM.from_pretrained(llama))).abs().max() > 1e-2
    assert list(json.loads((tmp_path / "one" / "prompts.json").read_text())) == ["colour", "animal"]
    text = "".join(p.read_text("latin-1") for p in (tmp_path / "one").iterdir())
    assert str(llama) not in text
    card = ModelCard.load(tmp_path / "one" / "README.md")
    assert card.data.library_name == "peft"
    assert "| colour | 20" in card.text
    assert "import AutoModelForCausalLM" in card.text


def test_a_smaller_rank_has_the_error_that_it_says(finished, tmp_path):
    out = finished("inc-lora").out
    export_adapter(out, tmp_path / "exact")
    report = export_adapter(out, tmp_path / "small", rank=3)
    assert report["rank"] == 3
    exact, small = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("exact", "small")
    )
    lost = size = 0.0
    for key in (key for key in exact if ".lora_A." in key):
        other = key.replace("_A.", "_B.")
        whole = exact[other].double() @ exact[key].double()
        lost += (small[other].double() @ small[key].double() - whole).square().sum()
        size += whole.square().sum()
    assert report["error_per_cent"] == pytest.approx(100 * float((lost / size).sqrt()), rel=1e-3)
    assert report["error_per_cent"] > 0.1


@pytest.mark.parametrize("method", ["de-lora", "inc-lora"])
def test_each_task_has_the_model_as_it_stood_and_the_rule_is_written(
    method, llama_of_two, tmp_path, monkeypatch
):
    settings = {"routing": "input"} if method == "inc-lora" else {}
    learn(llama_of_two, tmp_path / "m", method, ("colour", "size"), count=30, **settings)
    report = export_adapters(tmp_path / "m", tmp_path / "each")
    assert [one["task"] for one in report.values()] == ["colour", "size"]
    model = ContinualModel.open(tmp_path / "m")
    for name in report:
        with model.method.at(model.context(), model.stage_of(name)):
            trained = logits(model.adapter.model)
        found = logits(loaded(llama_of_two, tmp_path / "each" / name))
        torch.testing.assert_close(found, trained, rtol=1e-4, atol=1e-4)
    texts = [e.text for data in model.stream for e in data.test]
    examples = [e for data in model.stream for e in data.test]
    routes = [r.stage for r in model.method.routes(model.context(), examples, named=False)]
    with safe_open(tmp_path / "each" / "router.safetensors", "pt") as file:
        weights, offsets = file.get_tensor("weights"), file.get_tensor("offsets")
        names, layers = json.loads(file.metadata()["adapters"]), int(file.metadata()["layers"])
    base = AutoModelForCausalLM.from_pretrained(llama_of_two, num_hidden_layers=layers)
    base.eval().config.output_hidden_states = True
    tokenizer, chosen = AutoTokenizer.from_pretrained(llama_of_two), []
    for text in texts:
        with torch.no_grad():
            states = base(**tokenizer(text, return_tensors="pt")).hidden_states[-1]
        e = states[0].double().mean(0)
        chosen.append(names[int((e @ weights - offsets).argmax())])
    assert chosen == [model.records[stage - 1].name for stage in routes]
    assert len(set(chosen)) == 2
    card = (tmp_path / "each" / "README.md").read_text()
    rank = 8 if method == "de-lora" else 16
    assert f"--max-lora-rank {rank} --lora-modules colour=colour size=size" in card
    assert "`e @ weights - offsets`" in card

    def hostile(records):
        names = ["..", "README.md"]
        tasks = [{**r.tasks[0], "name": n} for r, n in zip(records, names, strict=True)]
        return [r.model_copy(update={"tasks": [t]}) for r, t in zip(records, tasks, strict=True)]

    monkeypatch.setattr("nlora.continual.adapters_out.standing", hostile)
    export_adapters(tmp_path / "m", tmp_path / "stranger" / "each")
    written = {p.name for p in (tmp_path / "stranger").iterdir() if not p.name.startswith(".")}
    assert written == {"each"}


def test_a_card_says_how_the_base_models_folder_is_found(finished, tmp_path):
    directory = ModelDirectory(finished("inc-lora").out)
    plan, report = stored_plan(directory), export_adapter(directory.path, tmp_path / "one")
    card = (tmp_path / "one" / "README.md").read_text()
    assert f'from_pretrained("FOLDER-OF-{plan.base.title}")' in card
    assert f"tokenizer is {plan.base.revision}." in card
    built_in = plan.config.model_copy(update={"model": "tiny-t5"})
    card = one_adapter(replace(plan, config=built_in), directory, report)
    assert (
        "`FOLDER-OF-tiny-t5` stands for the folder of the base model: `nlora models fetch tiny-t5`"
        in card
    )


def test_what_was_taken_out_is_in_no_adapter(finished, tmp_path):
    out = shutil.copytree(finished("inc-lora").out, tmp_path / "m")
    take_out(out, "colour")
    assert export_adapter(out, tmp_path / "one")["updates"] == 1


def test_the_others_are_written_where_the_last_stage_leaves_no_update(llama_of_two, tmp_path):
    out = tmp_path / "m"
    learn(llama_of_two, out, "inc-lora", ("colour", "size"), count=30, routing="input")
    learn_task(out, tiny.task("colour", 12))
    take_out(out, "colour")
    assert not ModelDirectory(out).update_paths()
    assert list(export_adapters(out, tmp_path / "each")) == ["size"]
    assert "vllm serve" in (tmp_path / "each" / "README.md").read_text()


@pytest.mark.parametrize(
    ("kind", "write", "reason"),
    [
        ("seq-ft", export_adapter, "seq-ft trains 'full', which is no LoRA adapter"),
        ("de-lora", export_adapter, "de-lora has a model for each task: adapters=True"),
        ("inc-lora", export_adapters, "inc-lora makes one model for all tasks: adapter=True"),
    ],
)
def test_what_is_no_such_adapter_is_refused(kind, write, reason, finished, tmp_path):
    with pytest.raises(NloraError, match=reason):
        write(finished(kind).out, tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_the_largest_of_all_is_no_adapter_of_low_rank(llama, tmp_path):
    learn(llama, tmp_path / "m", "inc-lora", ("colour",), consolidation="largest")
    with pytest.raises(NloraError, match="as 'largest' are no sum of adapters"):
        export_adapter(tmp_path / "m", tmp_path / "new")
