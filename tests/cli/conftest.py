"""The command line in this process, and a folder in the benchmark's layout."""

import json

import pytest

from tests.calling import call


@pytest.fixture
def nlora(monkeypatch):
    """Calls the command line; the result has exit_code, stdout and stderr."""
    monkeypatch.delenv("NLORA_DATA", raising=False)
    return call


@pytest.fixture
def refused(nlora):
    """Calls the command line and expects exit status 2 and one clear line; returns the line."""

    def line(*arguments):
        result = nlora(*arguments)
        assert result.exit_code == 2, (result.stdout, result.stderr, result.exception)
        lines = result.stderr.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert errors == lines[-1:], result.stderr
        assert "Traceback" not in result.output
        return errors[0]

    return line


@pytest.fixture
def benchmark(tmp_path):
    """A data folder of two small data sets, `mail` and `shop`; their files have a row per line."""
    for folder, labels in (("TC/mail", ["a", "b"]), ("SC/shop", ["good", "bad"])):
        path = tmp_path / "data" / folder
        path.mkdir(parents=True)
        (path / "labels.json").write_text(json.dumps(labels))
        for split, count in (("train", 8), ("test", 4)):
            rows = [{"sentence": f"{split} text {i}", "label": labels[i % 2]} for i in range(count)]
            text = "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
            (path / f"{split}.json").write_text(text)
    return tmp_path / "data"
