"""Which examples a task was learned from, where a model's folder does not hold them."""

import shutil

from nlora.continual.copying import copy
from nlora.continual.learning import learn
from nlora.continual.taking_out import take_out
from nlora.data.files import task_from_files
from nlora.explain.examples import examples_of
from nlora.store.directory import ModelDirectory
from nlora.store.records import sealed
from tests.calling import call
from tests.runs import FAST, Listener, config, write_stream, write_task


def test_a_stream_that_was_asked_for_and_is_wrong_is_refused(finished, tmp_path):
    out = finished("seq-lora").out
    gone = call("explain", out, "--stream", tmp_path / "gone.yaml")
    assert gone.exit_code == 2
    assert "gone.yaml" in gone.output
    other = call("explain", out, "--stream", write_stream(tmp_path, "fruit"))
    assert other.exit_code == 2
    assert "none of the tasks that were learned here: colour, animal; it has fruit" in other.output


def test_training_examples_are_read_again_where_they_were_read_while_they_are_the_same(
    finished, tmp_path
):
    place = finished("seq-lora").stream.parent
    for name in ("colour", "animal"):
        shutil.copy(place / f"{name}-test.jsonl", tmp_path)
        shutil.copy(place / f"{name}-train.jsonl", tmp_path)
    out = shutil.copytree(finished("seq-lora").out, tmp_path / "out")
    directory = ModelDirectory(out)
    records, watch = directory.stages(), Listener()
    assert [d.name for d in examples_of(directory, None, None, watch)] == ["colour", "animal"]
    assert watch.messages == []
    for record in records:  # as if it had been read here
        [(name, source)] = record.sources.items()
        moved = {s: str(tmp_path / f"{name}-{s}.jsonl") for s in ("train", "test")}
        record.sources = {name: {**source, **moved}}
        (directory.stage_path(record) / "stage.json").write_text(sealed(record))
    (tmp_path / "colour-train.jsonl").unlink()
    with (tmp_path / "animal-train.jsonl").open("a") as file:
        file.write('{"text": "new", "label": "d"}\n')
    assert examples_of(directory, None, None, watch) == []
    gone, changed = watch.messages
    assert "'colour': its training texts are left out, since they cannot be read again" in gone
    assert "colour-train.jsonl" in gone
    assert changed.startswith("'animal': these are not the examples that it was learned from")
    copy(out, tmp_path / "copy")  # has no paths
    assert examples_of(ModelDirectory(tmp_path / "copy"), None, None, watch) == []
    assert "does not say where all its training examples are" in watch.messages[-1]
    assert str(tmp_path) not in (tmp_path / "copy/stages/001-colour/stage.json").read_text()


def test_what_any_stage_of_a_task_was_trained_on_is_no_dev_example(llama, tmp_path):
    def read(folder, train):
        (tmp_path / folder).mkdir(exist_ok=True)
        write_task(tmp_path / folder, "colour", train=train)
        files = (tmp_path / folder / f"colour-{split}.jsonl" for split in ("train", "test"))
        return task_from_files("colour", *files)

    out, limited = tmp_path / "out", config(llama, None, FAST, max_train=6)
    learn(out, read("first", 12), limited)
    learn(out, read("second", 24), limited)  # the same rows, and more
    first, second = examples_of(ModelDirectory(out), None, None, Listener())
    trained = {e.text for e in (*first.train, *second.train)}
    assert len(trained) > 6
    assert {e.text for e in second.dev} == {e.text for e in read("second", 24).train} - trained
    read("first", 15)  # now nobody knows which rows the first stage was trained on
    [second] = examples_of(ModelDirectory(out), None, None, Listener())
    assert second.dev == ()


def test_what_was_taken_out_is_no_example_of_the_task_that_is_learned_anew(finished, tmp_path):
    out = shutil.copytree(finished("inc-lora").out, tmp_path / "out")
    assert len(examples_of(ModelDirectory(out), None, None, Listener())) == 2
    take_out(out, "colour")
    assert [d.name for d in examples_of(ModelDirectory(out), None, None, Listener())] == ["animal"]
