"""What the documentation shows works as shown."""

import json
import re
from pathlib import Path

import yaml

from nlora.training.run import run
from tests.runs import config, read_jsonl, write_stream
from tests.tiny import save

ROOT = Path(__file__).parents[1]


def blocks(name: str, language: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_method_of_the_documentation_trains(tmp_path):
    (plugin := tmp_path / "keep_close.py").write_text(blocks("docs/methods.md", "python")[0])
    asked = config(
        save("llama", tmp_path / "model"),
        write_stream(tmp_path, "colour"),
        method="keep-close",
        plugin=str(plugin),
    )
    run(asked, tmp_path / "out")
    losses = read_jsonl(tmp_path / "out" / "stages" / "001-colour" / "losses.jsonl")
    assert all(step["small"] > 0 for step in losses)


def test_the_stream_of_the_readme_is_one(tmp_path):
    from nlora.data.files import read_stream

    (tmp_path / "stream.yaml").write_text(blocks("README.md", "yaml")[0])
    for entry in yaml.safe_load(blocks("README.md", "yaml")[0]):
        label = entry.get("labels", ["a sentence"])[0]
        for split in ("train", "test"):
            csv = entry[split].endswith(".csv")
            rows = f"text,label\nhello,{label}\n"
            if not csv:
                rows = json.dumps({"text": "hello", "label": label})
            (tmp_path / entry[split]).write_text(rows)
    assert [data.name for data in read_stream(tmp_path / "stream.yaml")] == ["tickets", "cities"]


def test_the_comparison_of_the_documentation_is_one(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "nlora.study.compare.compare", lambda grid, out, workers: asked.append(grid)
    )
    exec(blocks("docs/compare.md", "python")[0], {"__name__": "__main__"})
    (grid,) = asked
    assert len(list(grid.pairs())) * len(grid.seeds) == 4
    assert list(grid.tasks) == ["demo"]


def test_every_file_that_the_documentation_links_to_exists():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
