"""`nlora verify` says that a directory is whole, or all that is wrong with it."""

import shutil


def test_whole_and_damaged(nlora, refused, finished, tmp_path):
    model = shutil.copytree(finished("inc-lora").out, tmp_path / "m")
    shown = nlora("verify", model, "--sample", "2")
    assert shown.exit_code == 0, shown.stderr
    assert "2 stages load, and answers are as recorded" in shown.stdout
    assert "2 stages were not loaded" in nlora("verify", model, "--sample", "0").stdout
    (model / "stages" / "001-colour" / "test.jsonl").write_text("")
    assert "test.jsonl was changed or damaged" in refused("verify", model)
    assert "holds no model" in refused("verify", tmp_path / "none")
    assert "--sample" in refused("verify", model, "--sample", "-1")
