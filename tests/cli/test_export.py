"""`nlora export`: a new folder or one line."""


def test_a_folder_is_written_once(nlora, refused, finished, tmp_path):
    out = finished("inc-lora").out
    bf16 = ("export", out, tmp_path / "plain", "--dtype", "bfloat16")
    assert "--max-lost allows it" in refused(*bf16, "--max-lost", "0.01")
    done = nlora(*bf16)
    assert done.exit_code == 0, done.stderr
    assert {p.name for p in (tmp_path / "plain").iterdir()} >= {
        *(
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "prompts.json",
            "export.json",
            "README.md",
        ),
    }
    assert len({p.stat().st_mode for p in (tmp_path / "plain").iterdir()}) == 1
    assert "is there already" in refused("export", out, tmp_path / "plain")
    assert "holds no model" in refused("export", tmp_path / "none", tmp_path / "new")
    assert "int8" in refused("export", out, tmp_path / "new", "--dtype", "int8")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_adapters_in_place_of_a_model(nlora, refused, finished, tmp_path):
    out = finished("inc-lora").out
    done = nlora("export", out, tmp_path / "one", "--adapter", "--rank", "4")
    assert done.exit_code == 0, done.stderr
    assert "rank 4, of 2 updates, with an error of" in done.stderr
    assert "is there already" in refused("export", out, tmp_path / "one", "--adapter")
    new = ("export", out, tmp_path / "new")
    assert "--adapter writes one adapter" in refused(*new, "--adapters")
    assert "give one" in refused(*new, "--adapter", "--adapters")
    assert "--rank is for" in refused(*new, "--rank", "4")
    assert "not for adapters" in refused(*new, "--adapter", "--dtype", "float32")
    assert "holds no model" in refused("export", tmp_path / "none", tmp_path / "new", "--adapter")
