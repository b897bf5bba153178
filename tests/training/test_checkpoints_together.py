"""Two processes that are killed within a stage go on from its checkpoint, to the same numbers."""

from tests.runs import tree, write_stream
from tests.training.test_processes import arguments
from tests.training.together import start


def test_two_processes_go_on_within_a_stage(llama, tmp_path):
    stream = write_stream(tmp_path, "colour", "animal", train=20)

    def told(out):
        return arguments("n-lora", llama, stream, tmp_path / out, "epochs=3", "checkpoint_every=2")

    start(told("one"), tmp_path)
    start(told("two"), tmp_path, kill=("step", 6))
    ended = start(told("two"), tmp_path)
    assert "goes on after step" in ended[0][1], ended
    beside = ("stage.json", "results.json", "model.json")
    one, two = [
        {name: data for name, data in tree(tmp_path / out).items() if not name.endswith(beside)}
        for out in ("one", "two")
    ]
    assert two == one
