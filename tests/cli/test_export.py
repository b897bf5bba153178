"""`nlora export`: a new folder or one line."""


def test_a_folder_is_written_once(nlora, refused, finished, tmp_path):
    out = finished("inc-lora").out
    bf16 = ("export", out, tmp_path / "plain", "--dtype", "bfloat16")
    assert "--max-lost allows it" in refused(*bf16, "--max-lost", "0.01")
    done = nlora(*bf16)
    assert done.exit_code == 0, done.stderr
    assert {p.name for p in (tmp_path / "plain").iterdir()} >= {
        *("config.json", "model.safetensors", "tokenizer.json", "prompts.json", "export.json"),
    }
    assert len({p.stat().st_mode for p in (tmp_path / "plain").iterdir()}) == 1
    assert "is there already" in refused("export", out, tmp_path / "plain")
    assert "holds no model" in refused("export", tmp_path / "none", tmp_path / "new")
    assert "int8" in refused("export", out, tmp_path / "new", "--dtype", "int8")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
