"""A copy is the same model, names nobody's folders, and others go on from it; archives of strangers
are not trusted."""

import io
import json
import shutil
import tarfile

import pytest
import yaml

from nlora.continual.adapters_out import export_adapter
from nlora.continual.answering import predict
from nlora.continual.copying import copy
from nlora.continual.export import export
from nlora.continual.learning import learn, run
from nlora.continual.taking_back import rollback
from nlora.continual.verifying import verify
from nlora.errors import NloraError
from nlora.store.directory import ModelDirectory
from tests.continual.test_taking_back import fruit
from tests.runs import FAST, config, tree, write_task


@pytest.fixture
def there(finished):
    return finished("inc-lora").out


def texts(folder):
    """What a copy holds, file by file, as text."""
    return {name: data.decode("latin-1") for name, data in tree(folder).items()}


@pytest.mark.parametrize("ending", ["", ".tar", ".tar.gz"])
def test_another_person_goes_on_from_it(ending, there, llama, tmp_path):
    before = tree(there)
    moved = shutil.copytree(llama, tmp_path / "elsewhere" / llama.name)
    handed = tmp_path / "new" / f"handed{ending}"
    found = copy(there, handed)
    assert found["stages"] == 2
    assert found["kept"]["test"] == {"colour": 6, "animal": 6}
    assert tree(there) == before
    mine = tmp_path / "mine"
    copy(handed, mine, model=str(moved))
    assert [p.name for p in (tmp_path / "new").iterdir()] == [handed.name]
    assert json.loads((mine / "model.json").read_text())["model"] == str(moved)
    assert predict(mine, ["xxx 1", "yyy 2"], "colour") == predict(
        there, ["xxx 1", "yyy 2"], "colour"
    )
    if not ending:
        return
    assert verify(mine, sample=3)["stages"] == 2
    learn(mine, fruit(tmp_path))
    assert [r.name for r in ModelDirectory(mine).stages()] == ["colour", "animal", "fruit"]


def test_it_names_no_folder_of_this_machine(llama, tmp_path):
    private = tmp_path / "my secret" / "data"
    private.mkdir(parents=True)
    base = shutil.copytree(llama, private / "base")
    entry = private / "stream.yaml"  # without a test file, so that a note names the other
    task = {k: v for k, v in write_task(private, "colour").items() if k != "test"}
    entry.write_text(yaml.safe_dump([task]))
    general = private / "general.jsonl"
    general.write_text('{"text": "a question", "label": "an answer"}\n' * 8)
    pattern = r".*\.self_attn\.(q_proj|v_proj)"
    settings = {**FAST, "replay": str(general), "target_modules": pattern}
    run(config(base, entry, settings), private / "m")
    assert "my secret" in json.dumps(texts(private / "m"))
    copy(private / "m", tmp_path / "copy")
    written = texts(tmp_path / "copy")
    for name, text in written.items():
        assert "my secret" not in text, name
        assert str(tmp_path) not in text, name
    adapter = json.loads(written["stages/001-colour/update/adapter_config.json"])
    assert adapter["base_model_name_or_path"] == "base"
    document = json.loads(written["model.json"])
    assert (document["model"], document["stream"], document["data"]) == ("base", None, None)
    assert document["settings"]["target_modules"] == pattern
    assert document["settings"]["replay"] == "general.jsonl"
    [note] = json.loads(written["stages/001-colour/stage.json"])["notes"]["reading"]["colour"][
        "notes"
    ]
    assert note.startswith("colour-train.jsonl: no test file")


def test_what_is_aside_and_in_work_stays_here(there, tmp_path):
    mine = shutil.copytree(there, tmp_path / "m")
    rollback(mine, "1")
    (mine / "logs").mkdir()
    (mine / "logs" / "private").write_text("secret")
    copy(mine, tmp_path / "copy")
    assert {p.name for p in (tmp_path / "copy").iterdir()} <= {
        *("model.json", "results.json", "stages", ".lock")
    }
    stages = {p.name for p in (tmp_path / "copy" / "stages").iterdir()}
    assert stages == {"000-zero-shot", "001-colour"}


def test_what_cannot_be_copied_is_refused(there, t5, tmp_path):
    with pytest.raises(NloraError, match="is another model than was trained on"):
        copy(there, tmp_path / "a", model=str(t5))
    with pytest.raises(NloraError, match="none does not exist"):
        copy(tmp_path / "none", tmp_path / "a")
    (tmp_path / "text").write_text("?")
    with pytest.raises(NloraError, match="is no archive"):
        copy(tmp_path / "text", tmp_path / "a")
    with pytest.raises(NloraError, match="is there already"):
        copy(there, tmp_path)
    damaged = shutil.copytree(there, tmp_path / "damaged")
    (damaged / "stages" / "002-animal" / "losses.jsonl").write_text("{}")
    with pytest.raises(NloraError, match=r"losses\.jsonl was changed or damaged"):
        copy(damaged, tmp_path / "a.tar")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["damaged", "text"]


@pytest.mark.parametrize("written", [copy, export, export_adapter])
def test_nothing_is_written_among_the_stages_of_the_model(written, there, tmp_path):
    out = shutil.copytree(there, tmp_path / "out")
    with pytest.raises(NloraError, match="choose a place outside of it"):
        written(out, out / "stages" / "003-copy")
    assert tree(out) == tree(there)


def member(name, data=b"", **values):
    found = tarfile.TarInfo(name)
    found.size = len(data)
    for key, value in values.items():
        setattr(found, key, value)
    return found, io.BytesIO(data)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([member("../model.json", b"{}")], "leads out of it"),
        ([member("/etc/model.json", b"{}"), member("m/x")], r"x\.tar/etc/model\.json is not"),
        ([member("m/link", type=tarfile.SYMTYPE, linkname="/etc")], "neither a file nor a folder"),
        ([member("m/device", type=tarfile.CHRTYPE)], "neither a file nor a folder"),
        ([member("model.json", b"{}")], "holds no model directory"),
        ([member("m/model.json", b"{}")], "is not a model directory's"),
        (
            [member("m/model.json", b"{}"), member("n/model.json", b"{}")],
            "holds no model directory",
        ),
    ],
)
def test_an_archive_of_a_stranger_writes_nothing_elsewhere(members, reason, tmp_path):
    place = tmp_path / "in" / "x.tar"
    place.parent.mkdir()
    with tarfile.open(place, "w") as tar:
        for info, data in members:
            tar.addfile(info, data)
    with pytest.raises(NloraError, match=reason):
        copy(place, tmp_path / "in" / "out")
    assert [p.name for p in place.parent.iterdir()] == ["x.tar"]
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_an_archive_that_is_cut_is_one_line(there, tmp_path):
    copy(there, tmp_path / "m.tgz")
    whole = (tmp_path / "m.tgz").read_bytes()
    (tmp_path / "m.tgz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(NloraError, match=r"m\.tgz is damaged"):
        copy(tmp_path / "m.tgz", tmp_path / "out")
