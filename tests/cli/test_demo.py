import functools
import json

from nlora.data import demo


def test_the_demo_compares_two_methods_and_keeps_both_models(nlora, llama, tmp_path, monkeypatch):
    small = functools.partial(demo.demo_stream, train=8, test=4, dev=2)
    monkeypatch.setattr(demo, "demo_stream", small)
    command = ("demo", "--model", llama, "--out", tmp_path / "demo")
    result = nlora(*command)
    assert result.exit_code == 0, result.exception or result.stderr
    for text in ("seq-lora: accuracy", "n-lora: accuracy", "compared", "the models are in"):
        assert text in result.stdout
    assert sorted(p.name for p in (tmp_path / "demo").iterdir()) == ["n-lora", "seq-lora"]
    found = json.loads(nlora(*command, "--json").stdout)  # nothing is learned twice
    for name in ("seq-lora", "n-lora"):
        stored = json.loads((tmp_path / "demo" / name / "results.json").read_text())
        assert found[name] == stored
        assert len(stored["accuracy_matrix"]) >= 4
