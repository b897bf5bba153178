import json

import pytest
import yaml

from nlora.errors import NloraError
from tests.published import published
from tests.runs import THOROUGH, tree, write_task

QUICK = ("--set", "precision=fp32", "--set", "max_new_tokens=2", "--set", "batch_size=8")


@pytest.fixture
def new(llama, tmp_path):
    """Options that begin a new directory."""
    return (tmp_path / "out", "--model", llama, "--method", "seq-lora", *QUICK)


def test_a_task_is_a_yaml_entry_a_jsonl_file_or_a_data_set(nlora, new, benchmark, tmp_path):
    out = tmp_path / "out"
    entry = write_task(tmp_path, "colour")
    (tmp_path / "colour.yaml").write_text(yaml.safe_dump(entry))
    first = nlora("learn", *new, "--task", tmp_path / "colour.yaml")
    assert first.exit_code == 0, first.stderr
    assert "after colour" in first.stdout

    write_task(tmp_path, "animal")
    files = ("--task", tmp_path / "animal-train.jsonl", "--test", tmp_path / "animal-test.jsonl")
    second = nlora("learn", out, *files)
    assert second.exit_code == 0, second.stderr

    third = nlora("learn", out, "--task", "mail", "--data", benchmark, "--json")
    found = json.loads(third.stdout)
    assert found["stages"] == ["colour", "animal-train", "mail"]
    assert None not in found["accuracy_matrix"][2]

    before = tree(out)
    again = nlora("learn", out, "--task", "mail", "--data", benchmark, "--json")
    assert json.loads(again.stdout) == found
    assert "nothing to do" in again.stderr
    assert tree(out) == before


def test_the_same_command_again_does_nothing_and_a_changed_one_is_refused(
    nlora, refused, new, benchmark, tmp_path
):
    command = ("learn", *new, "--task", "mail", "--data", benchmark)
    assert nlora(*command).exit_code == 0
    before = tree(tmp_path / "out")
    assert "nothing to do" in nlora(*command).stderr
    assert "(seed 0, not 1)" in refused(*command, "--seed", "1")
    line = refused(
        *("learn", tmp_path / "out", "--task", "shop", "--data", benchmark, "--set", "rank=2")
    )
    assert "(rank 8, not 2)" in line
    named = (tmp_path / "out", "--model", new[2], "--method", "seq-lora")  # as its stages are
    assert nlora("learn", *named, "--task", "shop", "--data", benchmark, "--dry-run").exit_code == 0
    other = ("learn", tmp_path / "out", "--task", "shop", "--data", benchmark, "--method")
    assert "holds method 'seq-lora', not 'ewc'" in refused(*other, "ewc")
    assert "holds method 'seq-lora', not 'sq-lora'" in refused(*other, "sq-lora")
    assert tree(tmp_path / "out") == before


def test_a_task_has_a_budget_of_its_own(nlora, new, benchmark, tmp_path):
    out = tmp_path / "out"
    first = nlora("learn", *new, "--task", "mail", "--data", benchmark, "--max-train", "4")
    assert "4 of 8 training rows, 4 of 4 test rows are used" in first.stderr
    given = ("--set", "epochs=3", "--set", "learning_rate=2e-3")
    second = nlora("learn", out, "--task", "shop", "--data", benchmark, *given)
    assert second.exit_code == 0, second.stderr
    assert "8 of 8 training rows" in second.stderr
    assert "--max-train 4 of the first stage is not inherited" in second.stderr
    stage = json.loads((out / "stages/002-shop/stage.json").read_text())
    assert (stage["examples"], stage["steps"]) == (8, 3)
    assert (stage["budget"]["epochs"], stage["budget"]["learning_rate"]) == (3, 2e-3)
    again = nlora("learn", out, "--task", "shop", "--data", benchmark)
    assert "(8 of 8 training rows, 4 of 4 test rows), nothing to do" in again.stderr


def test_a_dry_run_shows_the_next_stage_and_writes_nothing(
    nlora, refused, new, benchmark, tmp_path
):
    out = tmp_path / "out"
    mail = ("--task", "mail", "--data", benchmark)
    first = json.loads(nlora("learn", *new, *mail, "--dry-run", "--json").stdout)
    assert first["stages"] == [["mail", 1]]
    assert not out.exists()
    assert nlora("learn", *new, *mail).exit_code == 0
    before = tree(out)
    assert "nothing to do" in nlora("learn", out, *mail, "--dry-run").stderr
    shop = ("learn", out, "--task", "shop", "--data", benchmark, "--dry-run")
    shown = nlora(*shop, "--set", "epochs=3")
    assert shown.exit_code == 0, shown.stderr
    assert "stage 2" in shown.stdout
    assert "those of mail are compared with the answers before" in " ".join(shown.stdout.split())
    assert "8 of 8 training rows" in shown.stderr
    assert "prompt of shop" in shown.stdout
    assert "prompt of mail" not in shown.stdout
    assert "adapted: q_proj, v_proj" in shown.stdout
    found = json.loads(nlora(*shop, "--set", "epochs=3", "--json").stdout)
    assert found["stages"] == [["shop", 3]]
    assert found["settings"]["epochs"] == 3
    assert "(rank 8, not 2)" in refused(*shop, "--set", "rank=2")
    assert tree(out) == before


def test_another_method_than_the_directorys_is_named_before_its_settings(
    nlora, refused, llama, benchmark, tmp_path
):
    mail = ("--task", "mail", "--data", benchmark, "--model", llama)
    begun = nlora("learn", tmp_path / "out", *mail, "--method", "ewc", "--set", "adapter=lora")
    assert begun.exit_code == 0, begun.stderr
    shop = ("learn", tmp_path / "out", "--task", "shop", "--data", benchmark)
    line = refused(*shop, "--method", "n-lora")  # which has no setting 'adapter'
    assert "holds method 'ewc', not 'n-lora'" in line


def test_afterwards_the_original_run_is_refused(nlora, refused, llama, benchmark, tmp_path):
    out = tmp_path / "out"
    run = (
        *("run", "--stream", "mail", "--data", benchmark, "--model", llama),
        *("--method", "seq-lora", "--out", out, *QUICK),
    )
    assert nlora(*run).exit_code == 0
    assert nlora("learn", out, "--task", "shop", "--data", benchmark).exit_code == 0
    before = tree(out)
    assert "different configuration" in refused(*run)
    assert tree(out) == before


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (["mail,shop"], "takes one task"),
        (["maill"], "unknown task 'maill'; did you mean 'mail'? (a file of rows is named with its"),
        (
            ["reviews.cvs", "--labels", "auto"],
            "unknown task 'reviews.cvs'; did you mean 'reviews.csv'",
        ),
        (["tickets", "--labels", "auto"], "unknown task 'tickets'; `nlora streams` lists"),
        (["missing.yaml"], "no such file"),
        (["mail", "--test", "missing.jsonl"], "has tests of its own"),
        (["mine.yaml", "--test", "missing.jsonl"], "has tests of its own"),
        (["missing.jsonl"], "no such file"),
        (["missing.jsonl", "--test", "missing.jsonl"], "no such file"),
    ],
    ids=str,
)
def test_a_bad_task_is_one_line_and_begins_nothing(
    refused, new, benchmark, tmp_path, monkeypatch, task, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.csv").write_text("text,label\na,b\n")
    line = refused("learn", *new, "--data", benchmark, "--task", *task)
    assert said in line
    assert not (tmp_path / "out").exists()


def test_a_file_of_rows_is_known_by_its_content_whatever_its_ending(nlora, new, tmp_path):
    write_task(tmp_path, "colour")
    path = (tmp_path / "colour-train.jsonl").rename(tmp_path / "colours.dump")
    done = nlora("learn", *new, "--task", path, "--labels", "auto", "--dry-run", "--json")
    assert [t["name"] for t in json.loads(done.stdout)["tasks"]] == ["colours"], done.stderr


def test_a_new_directory_needs_a_model(refused, benchmark, tmp_path):
    command = ("learn", tmp_path / "new", "--task", "mail", "--data", benchmark)
    line = refused(*command)
    assert "new holds no model; a new one needs --model, or --from-adapter" in line
    assert not (tmp_path / "new").exists()
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / "model.json").write_text("{}")
    line = refused("learn", tmp_path / "dsek", "--task", "mail", "--data", benchmark)
    assert (
        f"dsek holds no model (did you mean {tmp_path / 'desk'}?); a new one needs --model" in line
    )


def test_who_does_not_choose_a_method_gets_the_one_that_forgets_least(
    nlora, llama, benchmark, tmp_path
):
    command = ("learn", tmp_path / "out", "--data", benchmark, "--model", llama, *QUICK)
    first = nlora(*command, "--task", "mail")
    assert first.exit_code == 0, first.stderr
    assert "without --method: inc-lora with routing=input" in first.stderr
    found = json.loads((tmp_path / "out/model.json").read_text())
    assert (found["method"], found["settings"]["routing"]) == ("inc-lora", "input")
    again = nlora(*command, "--task", "mail")
    assert "nothing to do" in again.stderr
    assert "without --method" not in again.stderr
    other = ("learn", tmp_path / "other", "--data", benchmark, "--model", llama, *QUICK)
    assert nlora(*other, "--task", "mail", "--set", "routing=none").exit_code == 0
    stored = json.loads((tmp_path / "other/model.json").read_text())
    assert stored["settings"]["routing"] == "none"


def test_a_directory_without_a_stage_says_how_it_was_begun(nlora, new, benchmark, monkeypatch):
    def fails(*asked):
        raise NloraError("no texts")

    command = ("--data", benchmark, "--task", "mail")
    with monkeypatch.context() as broken:
        broken.setattr("nlora.continual.stages.learn_stage", fails)
        assert nlora("learn", *new, *command).exit_code == 2
    assert "no stage is committed yet" in nlora("history", new[0]).stdout
    said = f"{new[0]} holds no stage yet, and was begun with seq-lora on {new[2]}, which is gone on"
    assert said in nlora("learn", new[0], *command, "--dry-run").stderr
    assert said not in nlora("learn", *new, *command).stderr
    assert "no stage is committed yet" not in nlora("history", new[0]).stdout


def test_a_table_is_a_task_with_its_labels_and_a_part_held_out(nlora, new, tmp_path):
    rows = "".join(f"Käse {i}|{'ab'[i % 2]}\n" for i in range(60))
    path = tmp_path / "cheese.csv"
    path.write_bytes(f"Meinung|Wertung\n{rows}nur eine\n".encode("cp1252"))
    options = ("--columns", "text=Meinung,label=wertung", "--encoding", "cp1252")
    task = ("--task", path, "--labels", "auto", *options, "--hold-out", "0.1", "--skip-bad-rows")
    done = nlora("learn", *new, *task)
    assert done.exit_code == 0, done.stderr
    assert "6 of 60 examples (10%) are held out" in done.stderr
    assert "1 of 61 rows left out" in done.stderr
    stage = json.loads((tmp_path / "out/stages/001-cheese/stage.json").read_text())
    assert (stage["tasks"][0]["labels"], stage["tested"]) == (["a", "b"], {"cheese": 6})
    assert stage["notes"]["reading"]["cheese"]["bad_rows"] == 1

    again = nlora("learn", tmp_path / "out", *task)
    assert "nothing to do" in again.stderr
    asked = tmp_path / "asked.csv"
    asked.write_text("id;Meinung\n1;Quark\n")
    said = nlora("predict", tmp_path / "out", asked, "--columns", "text=Meinung")
    assert json.loads(said.stdout)["text"] == "Quark"
    assert json.loads(said.stdout)["answer"] in ("a", "b")


def test_all_that_is_wrong_is_said_at_once(nlora, llama, tmp_path):
    (tmp_path / "bad.csv").write_text("text,label\n,a\nb,c\n,d\n")
    command = ("--task", tmp_path / "bad.csv", "--test", tmp_path / "none.csv")
    done = nlora("learn", tmp_path / "out", *command, "--model", llama, "--method", "n-lor")
    assert done.exit_code == 2
    headline, *faults = done.stderr.splitlines()
    assert headline == "error: 4 things are wrong:"
    said = ("line 2: 'text' is empty", "line 4: 'text'", "no such file", "did you mean 'n-lora'")
    for fault, part in zip(faults, said, strict=True):
        assert part in fault
    assert not (tmp_path / "out").exists()


def test_answers_that_could_be_labels_are_told(nlora, new, tmp_path):
    write_task(tmp_path, "colour")
    done = nlora("learn", *new, "--task", tmp_path / "colour-train.jsonl")
    assert "--labels auto makes the 3 in it labels" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--labels", "a,b"], "has labels of its own"),
        (["--columns", "text=a"], "which is read as it is"),
        (["--columns", "txt=a"], "did you mean 'text'"),
    ],
)
def test_options_for_files_are_not_for_data_sets(refused, new, benchmark, options, said):
    assert said in refused("learn", *new, "--data", benchmark, "--task", "mail", *options)


def test_a_directory_goes_on_from_an_adapter_of_pefts(nlora, llama, tmp_path):
    adapter = published(llama, tmp_path / "reviews")
    entry = write_task(tmp_path, "colour")
    (tmp_path / "colour.yaml").write_text(yaml.safe_dump(entry))
    write_task(tmp_path, "animal")
    given = ("--from-adapter", adapter, "--knows", f"animals={tmp_path / 'animal-test.jsonl'}")
    task = ("--task", tmp_path / "colour.yaml")
    first = nlora("learn", tmp_path / "out", *given, *task, *QUICK, "--json")
    assert first.exit_code == 0, first.stderr
    found = json.loads(first.stdout)
    assert found["tasks"] == ["animals", "colour"]
    assert None not in found["accuracy_matrix"][1]
    stream = tmp_path / "stream.yaml"
    stream.write_text(yaml.safe_dump([entry]))
    dry = nlora("run", *given, "--stream", stream, "--dry-run", "--json")
    shown = json.loads(dry.stdout)
    assert [stage[0] for stage in shown["stages"]] == ["animals", "colour"]
    assert shown["settings"]["rank"] == 4


def test_an_adapter_in_the_place_of_a_model_is_told_what_it_is_for(refused, llama, tmp_path):
    adapter = published(llama, tmp_path / "reviews")
    write_task(tmp_path, "animal")
    task = ("--task", tmp_path / "animal-train.jsonl", "--test", tmp_path / "animal-test.jsonl")
    new = ("--method", "inc-lora", "--model", adapter)
    assert "--from-adapter" in refused("learn", tmp_path / "out", *task, *new)
    assert "--from-adapter" in refused("learn", adapter, *task)
    lone = ("--knows", "a=b.jsonl", "--model", llama, "--method", "inc-lora")
    assert "give --from-adapter" in refused("learn", tmp_path / "out", *task, *lone)


def test_a_file_is_more_of_a_task_that_was_learned(nlora, refused, new, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "colour.yaml").write_text(yaml.safe_dump(write_task(tmp_path, "colour")))
    assert nlora("learn", *new, "--task", tmp_path / "colour.yaml").exit_code == 0
    (tmp_path / "feb.csv").write_text("text,label\n" + "xxx,a\nyyy,new\n" * 10)
    more = ("--task", tmp_path / "feb.csv", "--name", "colour")
    done = nlora("learn", out, *more, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["stages"] == ["colour", "colour (2)"]
    assert "'colour' has a new label: new" in done.stderr
    assert "--labels auto" not in done.stderr  # it has labels
    line = refused("learn", out, "--task", tmp_path / "colour.yaml", "--name", "hue")
    assert "has a name of its own" in line


def test_tasks_that_are_only_tested_are_kept_with_the_model(
    nlora, refused, new, benchmark, tmp_path
):
    write_task(tmp_path, "general")
    watched = ("--watch", f"facts={tmp_path / 'general-test.jsonl'}", "--watch", "shop")
    task = ("--task", "mail", "--data", benchmark)
    first = nlora("learn", *new, *task, *watched, "--json")
    assert first.exit_code == 0, first.stderr
    assert json.loads(first.stdout)["only_tested"].keys() == {"facts", "shop"}
    for wrong, said in (
        ("missing.jsonl", "no such file"),
        ("mail,shop", "takes one task"),
        ("a=shop", "has a name of its own"),
        ("shopp", "did you mean 'shop'"),
    ):
        assert said in refused("learn", tmp_path / "new", *new[1:], *task, "--watch", wrong)


def test_what_would_cost_too_much_is_shown_and_decided_afterwards(nlora, refused, llama, tmp_path):
    out = tmp_path / "out"
    for name in ("colour", "fruit"):
        entry = write_task(tmp_path, name, train=24, test=24)
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(entry))
    for kind in ("train", "test"):  # what a terminal would obey is shown instead
        path = tmp_path / f"colour-{kind}.jsonl"
        path.write_text(path.read_text().replace("xxx ", "xxx\\u001b[31m "))
    settings = [f"--set={name}={value}" for name, value in THOROUGH.items()]
    new = ("--model", llama, "--method", "inc-lora", *settings)
    assert nlora("learn", out, "--task", tmp_path / "colour.yaml", *new).exit_code == 0
    before = tree(out)
    task = ("learn", out, "--task", tmp_path / "fruit.yaml")
    assert "did you mean 'auto'" in refused(*task, "--repair", "outo")
    assert "--max-forgetting takes points" in refused(*task, "--max-forgetting", "200")
    found = nlora(*task)
    assert found.exit_code == 3, found.stderr
    for part in ("What 'fruit' would cost", "turned wrong", r"xxx\x1b[31m", "Best: ", "epochs=4"):
        assert part in found.stdout
    assert "\x1b" not in found.stdout
    again = nlora(*task, "--json")
    assert again.exit_code == 3
    shown = json.loads(again.stdout)
    assert (shown["in_force"], shown["stage"]) == (False, "fruit")
    assert "not in force" in refused(*task, "--set", "epochs=1")
    assert nlora("discard", out).exit_code == 0
    assert tree(out) == before
    assert nlora("discard", out).exit_code == 0  # and again
    assert "holds no model" in refused("accept", tmp_path / "none")
    done = nlora(*task, "--max-forgetting", "100")
    assert (done.exit_code, "after fruit" in done.stdout) == (0, True)
