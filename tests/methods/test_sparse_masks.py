import pytest
import torch

from nlora.continual.preview import preview
from nlora.errors import NloraError
from nlora.methods.registry import method
from nlora.plan.resolve import resolve
from nlora.study.share import shared
from tests import runs, tiny
from tests.methods.helpers import TASKS, first_stages, learn, losses, same_bits, stages, update

KINDS = ("identical", "independent", "disjoint")
LEARNING = {"epochs": 6, "learning_rate": 3e-2}


def places(out, stage: int) -> dict[str, set]:
    """The positions that a stage's update may change, by matrix."""
    return {
        name.removesuffix(".indices"): set(map(tuple, tensor.T.tolist()))
        for name, tensor in update(out, stage).items()
        if name.endswith(".indices")
    }


@pytest.fixture(scope="module")
def learned(llama_of_two, tmp_path_factory):
    """Three tasks learned with each kind of masks."""
    folder = tmp_path_factory.mktemp("sparse")
    for kind in KINDS:
        learn(
            llama_of_two,
            folder / kind,
            "sparse-masks",
            masks=kind,
            density=0.2,
            count=16,
            **LEARNING,
        )
    return folder


@pytest.mark.parametrize(("kind", "rate"), zip(KINDS, (0.2, 0.04, 0.0), strict=True))
def test_updates_meet_as_often_as_the_masks_say_and_the_stage_says_how_often(learned, kind, rate):
    found = [places(learned / kind, k) for k in (1, 2, 3)]
    notes = stages(learned / kind)[2].notes["sparse"]
    for name, third in found[2].items():
        measured = [len(third & earlier[name]) / 32**2 for earlier in found[:2]]
        assert notes["matrices"][name]["collision_rates"] == measured
        assert measured == pytest.approx([rate, rate], abs=0.03)
        assert len(third) == int(0.2 * 32**2)
    assert notes["collision_rates"] == pytest.approx([rate, rate], abs=0.02)
    assert notes["frobenius"] > 0


def test_training_lowers_the_loss_through_these_entries_alone(learned):
    for kind in KINDS:
        steps = losses(learned / kind, 1)
        assert steps[-1]["task"] < 0.5 * steps[0]["task"]
        assert stages(learned / kind)[0].trainable_parameters == 4 * int(0.2 * 32**2)


def test_all_kinds_have_the_same_first_stage_which_a_grid_trains_once(learned, llama_of_two):
    for name, tensor in update(learned / "identical", 1).items():
        for kind in KINDS[1:]:
            assert torch.equal(update(learned / kind, 1)[name], tensor)
    stream, keys = [tiny.task(name) for name in TASKS], set()
    for settings in (*({"masks": kind} for kind in KINDS), {"density": 0.1}):
        config = runs.config(llama_of_two, None, {**runs.FAST, **settings}, method="sparse-masks")
        keys.add(shared(resolve(config, stream)).first_stage)
    assert len(keys) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(llama_of_two, learned, kind, tmp_path):
    out = first_stages(learned / kind, 2, tmp_path / "out")
    learn(llama_of_two, out, "sparse-masks", masks=kind, density=0.2, count=16, **LEARNING)
    assert same_bits(out, learned / kind)


def test_tasks_without_room_for_disjoint_masks_are_refused_before_the_first_step(
    llama_of_two, tmp_path
):
    with pytest.raises(NloraError, match=r"3 disjoint masks do not fit .* 1/3"):
        learn(llama_of_two, tmp_path / "out", "sparse-masks", masks="disjoint", density=0.4)
    assert stages(tmp_path / "out") == []


def test_its_budget_is_that_of_lora_and_a_dry_run_counts_it(llama_of_two, tmp_path):
    stream = runs.write_stream(tmp_path, "colour")
    found = {
        name: preview(
            resolve(runs.config(llama_of_two, stream, {**runs.FAST, "rank": 3}, method=name))
        )
        for name in ("sparse-masks", "inc-lora")
    }
    counts = {name: seen.trainable_parameters for name, seen in found.items()}
    assert counts["sparse-masks"] == counts["inc-lora"] == 4 * 3 * 64


@pytest.mark.parametrize("density", [0, -0.1, 1.5, float("nan")])
def test_a_density_that_is_no_share_is_one_clear_line(density):
    with pytest.raises(NloraError, match="setting 'density': "):
        method("sparse-masks").build({"density": density})


def test_it_trains_encoder_decoders_bf16_models_and_with_checkpointing(t5, llama_of_two, tmp_path):
    learn(t5, tmp_path / "t5", "sparse-masks", tasks=TASKS[:2], epochs=2, learning_rate=1e-2)
    learn(
        llama_of_two,
        tmp_path / "bf16",
        "sparse-masks",
        tasks=TASKS[:2],
        precision="bf16",
        **LEARNING,
    )
    for out in (tmp_path / "t5", tmp_path / "bf16"):
        assert losses(out, 2)[-1]["task"] < losses(out, 2)[0]["task"]
    assert 0 < stages(tmp_path / "bf16")[1].notes["history_error"] < 2**-8
    settings = {"tasks": TASKS[:1], "epochs": 2, "learning_rate": 1e-2}
    found = []
    for value in (True, False):
        out = tmp_path / str(value)
        learn(llama_of_two, out, "sparse-masks", gradient_checkpointing=value, **settings)
        found.append([step["task"] for step in losses(out, 1)])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
