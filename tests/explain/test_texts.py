"""The texts that a task's question is asked about."""

import json

import pytest

from nlora.errors import NloraError
from nlora.explain.texts import neutral_texts


def test_a_file_of_neutral_texts_is_read_by_its_kind(tmp_path):
    texts = [f"text {i}, of more" for i in range(4)]
    lines = tmp_path / "texts.txt"
    lines.write_text("\n\n".join(texts) + "\n")
    rows = tmp_path / "texts.jsonl"
    rows.write_text("".join(json.dumps({"text": text, "label": "x"}) + "\n" for text in texts))
    table = tmp_path / "texts.csv"
    table.write_text("text\n" + "".join(f'"{text}"\n' for text in texts))
    for path in (lines, rows, table):
        assert sorted(neutral_texts(path, 4)) == texts
        with pytest.raises(NloraError, match="4 different texts and 5 are asked for"):
            neutral_texts(path, 5)
