import json

import pytest
import torch

from nlora.continual.learning import learn, run
from nlora.continual.model import ContinualModel
from nlora.data.files import read_stream
from nlora.errors import NloraError
from nlora.methods.registry import method
from tests.methods.helpers import first_stages, same_bits, stages, update
from tests.runs import LEARNING, config, write_stream


@pytest.fixture(scope="module")
def learned(llama, tmp_path_factory):
    """`learned(method, …)`: two tasks that answer the same texts otherwise, so the first drifts."""
    folder = tmp_path_factory.mktemp("avr")
    stream = read_stream(write_stream(folder, "colour", "fruit", train=24))

    def get(name, at=None, **settings):
        out = at or folder / f"{name}-{len(list(folder.iterdir()))}"
        run(
            config(llama, None, {**LEARNING, "epochs": 4, **settings}, method=name),
            out,
            None,
            stream,
        )
        return out

    return get


@pytest.fixture(scope="module")
def plain(learned):
    """`seq-lora` on the same tasks."""
    return learned("seq-lora")


def test_where_nothing_drifts_it_is_seq_lora(learned, plain):
    out = learned("avr", drift=1e9)
    assert same_bits(out, plain)
    assert stages(out)[1].notes["walked_back"] == 0


@pytest.mark.parametrize("max_steps", [1, 3])
def test_each_step_goes_a_tenth_of_the_way_back(learned, plain, max_steps):
    out = learned("avr", drift=1.0, max_steps=max_steps)
    assert stages(out)[1].notes["walked_back"] == max_steps
    before, trained, found = update(plain, 1), update(plain, 2), update(out, 2)
    for name, old in before.items():
        expected = old + 0.9**max_steps * (trained[name] - old)
        assert torch.allclose(found[name], expected, atol=1e-6)


def test_it_stops_as_soon_as_nothing_drifts(learned, plain):
    out = learned("avr", drift=1.05, step=0.5, max_steps=30)
    steps = stages(out)[1].notes["walked_back"]
    assert 0 < steps < 30
    kept = [json.loads((path / "state/state.json").read_text()) for path in folders(out)]
    assert kept[0]["best"].keys() == {"colour"}
    assert kept[1]["best"].keys() == {"colour", "fruit"}
    assert kept[1]["best"]["colour"] <= kept[0]["best"]["colour"]
    ctx = ContinualModel.open(plain).context()  # as the task was learned, before any step back
    rows = [row for row in kept[1]["kept"] if row["task"]["name"] == "fruit"]
    trained = dict(method("avr").build({})._perplexities(ctx, rows))
    assert kept[1]["best"]["fruit"] == pytest.approx(trained["fruit"], rel=1e-4)
    assert len(kept[1]["kept"]) == 2 * 24


def folders(out):
    return sorted((out / "stages").iterdir())


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(learned, tmp_path):
    out = learned("avr", drift=1.0, max_steps=3)
    again = first_stages(out, 1, tmp_path / "again")
    learned("avr", again, drift=1.0, max_steps=3)
    assert same_bits(out, again)


def test_a_task_that_is_learned_again_is_checked_by_all_its_rows_and_not_by_itself(llama, tmp_path):
    (tmp_path / "more").mkdir()
    first = read_stream(write_stream(tmp_path, "colour", train=24))
    [again] = read_stream(write_stream(tmp_path / "more", "colour", train=24, start=50))
    out = tmp_path / "out"
    run(config(llama, None, {**LEARNING, "drift": 1.0}, method="avr"), out, None, first)
    learn(out, again)
    assert stages(out)[1].notes["walked_back"] == 0  # there is no earlier task
    kept = json.loads((folders(out)[1] / "state/state.json").read_text())
    assert len(kept["kept"]) == 48
    ctx = ContinualModel.open(out).context()
    now = dict(method("avr").build({})._perplexities(ctx, kept["kept"]))
    assert kept["best"] == pytest.approx(now, rel=1e-4)


def test_what_cannot_be_is_one_line():
    with pytest.raises(NloraError, match="drift"):
        method("avr").build({"drift": 0.5})
    assert method("avr").build({}).needs_old_data
