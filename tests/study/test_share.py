"""What cells of a grid share is trained once, where it is the same."""

import yaml

from nlora.continual.agreement import document
from nlora.plan.config import RunConfig
from nlora.plan.resolve import resolve
from nlora.store.directory import ModelDirectory
from nlora.study.compare import compare
from nlora.study.share import adopt, shared
from tests.runs import FAST, write_stream
from tests.study.test_grid import grid


def keys(llama, tmp_path, method, stream=None, seed=0, evaluate="next", **settings):
    config = RunConfig(
        model=str(llama),
        method=method,
        stream=str(stream or tmp_path / "stream.yaml"),
        seed=seed,
        evaluate=evaluate,
        settings=settings,
    )
    return shared(resolve(config))


def test_the_first_stage_is_shared_where_it_is_the_same(llama, tmp_path):
    write_stream(tmp_path)
    first = keys(llama, tmp_path, "inc-lora").first_stage
    assert first is not None
    same = {
        "seq-lora": {},
        "o-lora": {"orthogonality_weight": 7},
        "ns": {},
        "n-lora": {"l1": 0},
        "inc-lora": {"penalty": "l1", "l1": 0},
    }
    for method, settings in same.items():
        assert keys(llama, tmp_path, method, **settings).first_stage == first, method
    other = {
        "n-lora": {},
        "o-lora": {"norm_weight": 0.1},
        "seq-lora": {"routing": "input"},
        "inc-lora": {"rank": 4},
    }
    for method, settings in other.items():
        assert keys(llama, tmp_path, method, **settings).first_stage not in (None, first), method
    assert keys(llama, tmp_path, "inc-lora", seed=1).first_stage != first
    for method in ("replay", "mtl", "prog-prompt", "per-task"):
        assert keys(llama, tmp_path, method).first_stage is None
    assert keys(llama, tmp_path, "seq-lora", frozen_layers=1).first_stage == first
    asked = keys(llama, tmp_path, "seq-lora", replay="self").first_stage
    assert asked not in (None, first)
    assert keys(llama, tmp_path, "inc-lora", replay="self", rehearsal="soft").first_stage == asked
    assert keys(llama, tmp_path, "seq-lora", loss="among-labels").first_stage not in (first, asked)
    penalised = keys(llama, tmp_path, "n-lora").first_stage
    assert keys(llama, tmp_path, "o-lora+n-lora").first_stage == penalised
    assert keys(llama, tmp_path, "sa").first_stage != penalised


def test_what_is_only_tested_and_how_weights_are_rounded_decides_what_is_shared(llama, tmp_path):
    stream = write_stream(tmp_path, "colour", "animal")
    alone = keys(llama, tmp_path, "inc-lora", evaluate="all")
    tasks = yaml.safe_load(stream.read_text())
    del tasks[1]["train"]
    stream.write_text(yaml.safe_dump(tasks))
    watched = keys(llama, tmp_path, "inc-lora", evaluate="all")
    assert alone.zero_shot != watched.zero_shot
    assert alone.first_stage != watched.first_stage
    rounded = keys(llama, tmp_path, "inc-lora", evaluate="all", quantization="4bit")
    assert rounded.zero_shot != watched.zero_shot


def test_a_subclass_does_not_share_what_it_may_change(llama, tmp_path):
    write_stream(tmp_path)
    (plugin := tmp_path / "mine.py").write_text(
        "from nlora.methods.inc_lora import IncLora\n"
        "class Mine(IncLora):\n    name = 'mine'\n    summary = 'mine'\n"
    )
    config = RunConfig(
        model=str(llama), method="mine", stream=str(tmp_path / "stream.yaml"), plugin=str(plugin)
    )
    assert shared(resolve(config)).first_stage is None


def test_a_method_with_a_measure_of_its_own_shares_with_itself_alone(llama, tmp_path):
    write_stream(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from nlora.methods.inc_lora import IncLora\n"
        "class Mine(IncLora):\n    name = 'mine'\n    summary = 'mine'\n"
        "    def metric(self, task):\n        return lambda answers: 0.0\n"
        "    def first_stage(self):\n        return super().first_stage()\n"
    )

    def of(method, seed=0):
        config = RunConfig(
            model=str(llama),
            method=method,
            stream=str(tmp_path / "stream.yaml"),
            plugin=str(tmp_path / "mine.py"),
            seed=seed,
            evaluate="next",
        )
        return shared(resolve(config))

    assert of("mine") == of("mine")
    assert None not in of("mine")
    assert of("mine").zero_shot == of("mine", seed=1).zero_shot
    assert not {*of("mine")} & {*of("inc-lora")}


def test_streams_share_what_they_begin_with(llama, tmp_path):
    one = write_stream(tmp_path)  # colour, animal, fruit
    colour, animal, fruit = yaml.safe_load(one.read_text())
    two, three = tmp_path / "two.yaml", tmp_path / "three.yaml"
    two.write_text(yaml.safe_dump([colour, fruit, animal]))
    three.write_text(yaml.safe_dump([colour, animal]))

    def of(stream, evaluate):
        return keys(llama, tmp_path, "inc-lora", stream, evaluate=evaluate)

    assert of(one, "next").zero_shot == of(two, "next").zero_shot  # the same tasks
    assert of(one, "next").zero_shot != of(three, "next").zero_shot
    assert of(one, "next").first_stage == of(three, "next").first_stage
    assert of(one, "next").first_stage != of(two, "next").first_stage  # another task is next
    assert of(one, "seen").first_stage == of(two, "seen").first_stage
    assert of(one, "seen").zero_shot is None


def test_a_first_stage_is_taken_with_what_was_tested_before_it(llama, tmp_path):
    """Streams that begin alike share the first stage and not the evaluation before it."""
    one = write_stream(tmp_path)
    tasks = yaml.safe_load(one.read_text())
    two = tmp_path / "two.yaml"
    two.write_text(yaml.safe_dump(tasks[:2]))
    asked = grid(llama, (str(one), str(two)), "inc-lora", settings=FAST)
    whole, short = compare(asked, tmp_path / "out")
    assert None not in (whole["zero_shot"], short["zero_shot"])
    assert short["forward_transfer"] is not None
    asked = grid(llama, (str(two),), "inc-lora,seq-lora", settings=FAST)
    _, other = compare(asked, tmp_path / "out")
    assert other["notes"]["colour"]["copied_from"].startswith("two/inc-lora")


def test_the_untrained_model_is_the_same_for_every_method_and_seed(llama, tmp_path):
    write_stream(tmp_path)
    zero = keys(llama, tmp_path, "inc-lora").zero_shot
    assert keys(llama, tmp_path, "mtl", seed=3).zero_shot == zero
    assert keys(llama, tmp_path, "inc-lora", learning_rate=1.0).zero_shot == zero
    assert keys(llama, tmp_path, "inc-lora", prompt="released").zero_shot != zero
    assert keys(llama, tmp_path, "inc-lora", max_text_tokens=3).zero_shot != zero


def test_a_run_that_failed_before_its_first_stage_is_begun_anew_with_what_is_shared(
    finished, tmp_path
):
    first = finished("inc-lora")
    plan, directory = resolve(first.config), ModelDirectory(tmp_path / "out")
    failed = document(plan) | {"settings": {**plan.settings(), "eval_tokens": 7}}
    with directory.locked():
        directory.write_config(failed)  # as a run leaves it that ran out of memory
    adopt(plan, directory.path, None, first.out)
    assert directory.config()["settings"]["eval_tokens"] == plan.run.eval_tokens
    assert [record.name for record in directory.stages()] == ["colour"]
