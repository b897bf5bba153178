"""A finished run with its updates shrunk: the same model, scaled and nothing else."""

import pytest
import torch
from benchmarks.rescaling import Finished, main, scaled, sizes
from safetensors.torch import load_file

from nlora.store.directory import ModelDirectory
from nlora.training.run import run
from tests.runs import LEARNING, config, read_jsonl, tree, write_stream

RANK, S = 2, 32.0 / 2


@pytest.fixture(scope="module")
def learned(llama, tmp_path_factory):
    """Two runs on the same two tasks."""
    folder = tmp_path_factory.mktemp("runs")
    stream = write_stream(folder, "colour", "animal", train=24)
    for method, own in (("inc-lora", {}), ("n-lora", {"l1": 0.5})):
        settings = {**LEARNING, "rank": RANK, **own}
        run(config(llama, stream, settings, method=method), folder / method)
    return folder


def deltas(updates, scale=1.0):
    """ΔW of each update by matrix, written out in float64."""
    found = []
    for update in updates:
        tensors = load_file(update / "adapter_model.safetensors")
        found.append(
            {
                name: scale * S * tensors[name.replace("_A", "_B")].double() @ A.double()
                for name, A in tensors.items()
                if "lora_A" in name
            }
        )
    return found


def test_every_update_is_multiplied_and_measured(learned, tmp_path):
    updates = ModelDirectory(learned / "inc-lora").update_paths()
    copies = scaled(updates, [0.5, 0.25], tmp_path)
    first, second = deltas(updates)
    for found, expected, scale in zip(deltas(copies), (first, second), (0.5, 0.25), strict=True):
        for name, delta in expected.items():
            torch.testing.assert_close(found[name], scale * delta, rtol=1e-6, atol=0)
    each, together = sizes(copies)
    for size, expected, scale in zip(each, (first, second), (0.5, 0.25), strict=True):
        wanted = scale * sum(float(d.square().sum()) for d in expected.values()) ** 0.5
        assert size == pytest.approx(wanted)
    both = [0.5 * first[name] + 0.25 * second[name] for name in first]
    assert together == pytest.approx(sum(float(d.square().sum()) for d in both) ** 0.5)


def test_the_model_that_answers_has_the_base_weights_plus_the_scaled_updates(learned, tmp_path):
    finished = Finished(learned / "inc-lora")
    carrier = finished.learner.carrier
    base = {n: layer.get_base_layer().weight.clone() for n, layer in carrier.layers.items()}
    with carrier.standing(scaled(finished.updates, [0.3, 0.3], tmp_path)):
        first, second = deltas(finished.updates, 0.3)
        for name, layer in carrier.layers.items():
            key = f"base_model.model.{name}.lora_A.weight"
            factors = carrier.factors()[name]
            found = layer.get_base_layer().weight + factors.delta()
            expected = base[name].double() + first[key] + second[key]
            torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


def test_a_row_per_scale_and_beside_another_run_at_its_sizes(learned, tmp_path):
    before = tree(learned)
    out = tmp_path / "rows.jsonl"
    told = [str(learned / "inc-lora"), "--scales", "1,0.5", "--beside", str(learned / "n-lora")]
    main([*told, "--out", str(out)])
    main([str(learned / "inc-lora"), "--scales", "0", "--out", str(out)])
    whole, half, other, matched, nothing = read_jsonl(out)
    assert [whole["label"], half["label"], other["label"]] == ["1", "0.5", "1"]
    for name, row in (("inc-lora", whole), ("n-lora", other)):
        assert (
            row["accuracy"]
            == row["recorded"]
            == ModelDirectory(learned / name).stages()[-1].accuracy
        )
    assert half["frobenius"] == pytest.approx([size / 2 for size in whole["frobenius"]])
    assert half["frobenius_of_sum"] == pytest.approx(whole["frobenius_of_sum"] / 2)
    assert other["frobenius"][0] < 0.9 * whole["frobenius"][0]
    assert matched["frobenius"] == pytest.approx(other["frobenius"])
    assert matched["method"] == "inc-lora"
    assert nothing["frobenius_of_sum"] == 0
    assert whole["accuracy"]["animal"] > 60 > nothing["accuracy"]["animal"]
    assert tree(learned) == before


def test_what_has_no_one_model_of_adapters_is_refused_in_one_line(llama, tmp_path, capsys):
    stream = write_stream(tmp_path, "colour")
    run(config(llama, stream, method="de-lora"), tmp_path / "de")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "de")])
    assert "de-lora does not make one model" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(tmp_path / "nowhere")])
    assert "does not exist" in capsys.readouterr().err
