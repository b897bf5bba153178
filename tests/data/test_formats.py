import bz2
import gzip
import io
import json
import lzma
import shutil
from pathlib import Path

import pytest

from nlora.data.files import read_texts, task_from_files
from nlora.data.formats import read_rows, title
from nlora.data.memory import InMemory
from nlora.data.rows import stop
from nlora.errors import NloraError

ROWS = [{"text": 'Ünter, einem\tHut; | "so"', "label": "ja"}, {"text": "b", "label": "1.50"}]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def delimited(delimiter: str) -> str:
    quoted = '"' + ROWS[0]["text"].replace('"', '""') + '"'
    return "".join(
        delimiter.join(cells) + "\n" for cells in (("text", "label"), (quoted, "ja"), ("b", "1.50"))
    )


def zstd(data: bytes) -> bytes:
    return pytest.importorskip("zstandard").ZstdCompressor().compress(data)


TEXTS = {
    "JSON lines": JSONL,
    "a JSON array": json.dumps(ROWS, indent=1),
    "a JSON array in one line": json.dumps(ROWS),
    "an object with a list of rows": json.dumps({"version": 1, "data": ROWS}, indent=1),
    "commas": delimited(","),
    "tabs": delimited("\t"),
    "semicolons": delimited(";"),
    "bars": delimited("|"),
}
PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}


def rows_of(path, **options):
    return read_rows(path, "train", stop, **options).values


def written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def problem(path, **options) -> str:
    with pytest.raises(NloraError) as caught:
        rows_of(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a", "a.txt", "a.csv", "a.json", "a.jsonl", "a.dat"])
@pytest.mark.parametrize("kind", TEXTS)
def test_a_text_is_read_by_what_is_in_it_whatever_its_name(tmp_path, name, kind):
    assert rows_of(written(tmp_path, name, TEXTS[kind])) == ROWS
    assert rows_of(written(tmp_path, name, "\ufeff" + TEXTS[kind])) == ROWS


@pytest.mark.parametrize("kind", ["JSON lines", "semicolons"])
@pytest.mark.parametrize("packer", PACKERS)
def test_compressed_files_are_unpacked_and_cut_ones_refused(tmp_path, kind, packer):
    data = PACKERS[packer](TEXTS[kind].encode())
    assert rows_of(written(tmp_path, f"a.jsonl.{packer}", data)) == ROWS
    assert rows_of(written(tmp_path, "b.csv", data)) == ROWS
    assert rows_of(written(tmp_path, "two.csv", data + PACKERS[packer](b"\n"))) == ROWS
    assert "ends too early" in problem(written(tmp_path, "cut.csv", data[:-5]))
    damaged = data[:20] + bytes(b ^ 0xFF for b in data[20:-2]) + data[-2:]
    assert problem(written(tmp_path, "bad.csv", damaged))


@pytest.mark.parametrize("packer", PACKERS)
def test_a_file_that_unpacks_without_end_is_refused(tmp_path, packer, monkeypatch):
    monkeypatch.setattr("nlora.data.compression.AT_LEAST", 1 << 20)
    path = written(tmp_path, "a.jsonl", PACKERS[packer](b"\n" * (4 << 20)))
    assert "unpacks to more than" in problem(path)


def test_parquet_and_arrow_with_the_names_of_their_labels(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        text=datasets.Value("string"),
        label=datasets.ClassLabel(names=["no", "yes"]),
        vector=datasets.Sequence(datasets.Value("float32")),
        blob=datasets.Value("binary"),
    )
    rows = {"text": ["a", "b"], "label": [1, 0], "vector": [[1.0], [2.0]], "blob": [b"x", b"y"]}
    made = datasets.Dataset.from_dict(rows, features)
    made.to_parquet(tmp_path / "a.parquet")
    made.save_to_disk(tmp_path / "saved")
    [arrow] = (tmp_path / "saved").glob("*.arrow")
    expected = [{"text": "a", "label": "1"}, {"text": "b", "label": "0"}]
    parquet = (tmp_path / "a.parquet").read_bytes()
    for source in (
        tmp_path / "a.parquet",
        arrow,
        tmp_path / "saved",
        written(tmp_path, "any.name", parquet),
        written(tmp_path, "a.parquet.gz", gzip.compress(parquet)),
    ):
        found = read_rows(source, "train", stop)
        assert found.values == expected
        assert found.names == {"label": ("no", "yes")}
        assert found.place(1).endswith("row 2")
    assert "damaged Parquet" in problem(written(tmp_path, "cut.parquet", parquet[:-30]))
    assert "damaged Arrow" in problem(written(tmp_path, "cut.arrow", arrow.read_bytes()[:150]))


def test_an_arrow_file_with_its_index_and_numbers_as_text(tmp_path):
    pa = pytest.importorskip("pyarrow")
    table = pa.table(
        {"text": ["a", None], "stars": [4.5, float("nan")], "ok": [True, None], "n": [1, None]}
    )
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    assert rows_of(written(tmp_path, "a.feather", sink.getvalue())) == [
        {"text": "a", "stars": "4.5", "ok": True, "n": "1"},
        {"text": None, "stars": None, "ok": None, "n": None},
    ]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """`owner/name` with two configurations, as a folder that `datasets` finds without a network."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    from nlora.data import tables

    tables._open.cache_clear()
    folder = tmp_path / "owner" / "name"
    for language in ("en", "de"):
        (folder / language).mkdir(parents=True)
        for split, count in (("train", 6), ("test", 2)):
            rows = [{"text": f"{language} {split} {i}", "label": "ab"[i % 2]} for i in range(count)]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / language / f"{split}.jsonl").write_text(lines)
    configs = "".join(
        f"- config_name: {x}\n  data_files:\n"
        f"  - {{split: train, path: {x}/train.jsonl}}\n  - {{split: test, path: {x}/test.jsonl}}\n"
        for x in ("en", "de")
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    monkeypatch.chdir(tmp_path)
    yield "hf://owner/name"
    tables._open.cache_clear()


def test_a_data_set_of_the_hub_with_configuration_and_split(hub):
    assert title(f"{hub}:en@main#test") == "name"
    assert rows_of(f"{hub}:en")[0]["text"] == "en train 0"
    assert [row["text"] for row in rows_of(f"{hub}:de#test")] == ["de test 0", "de test 1"]
    assert len(rows_of(f"{hub}:de#train[:2]")) == 2
    task = task_from_files("a", f"{hub}:de", None)
    assert (len(task.train), [e.text for e in task.test]) == (6, ["de test 0", "de test 1"])
    assert "own split 'test'" in task.notes[0]
    assert len(task_from_files("a", f"{hub}:de#train", None).test) == 1  # held out


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        ("", "missing. Please pick one"),
        (":fr", "fr"),
        (":en#nosuch", "nosuch"),
        ("/x/y", "must be hf://"),
    ],
)
def test_a_bad_name_of_the_hub_is_one_line(hub, tail, said):
    assert said in problem(hub + tail)


def test_a_saved_folder_of_splits(tmp_path):
    datasets = pytest.importorskip("datasets")
    train = datasets.Dataset.from_list([{"text": f"{i}", "label": "ab"[i % 2]} for i in range(4)])
    test = datasets.Dataset.from_list([{"text": "x", "label": "a"}])
    folder = tmp_path / "saved"
    datasets.DatasetDict(train=train, validation=test).save_to_disk(folder)
    task = task_from_files("a", folder, None)
    assert (len(task.train), [e.text for e in task.test]) == (4, ["x"])
    assert [row["text"] for row in rows_of(folder / "validation")] == ["x"]
    datasets.DatasetDict(other=train).save_to_disk(tmp_path / "odd")
    assert "unknown split 'train'" in problem(tmp_path / "odd")
    assert "none that save_to_disk" in problem(tmp_path)


def test_a_folder_that_is_saved_again_is_read_again(tmp_path):
    datasets = pytest.importorskip("datasets")
    for text in ("old", "new"):
        shutil.rmtree(tmp_path / "saved", ignore_errors=True)
        datasets.Dataset.from_list([{"text": text, "label": "a"}]).save_to_disk(tmp_path / "saved")
        assert [row["text"] for row in rows_of(tmp_path / "saved")] == [text]


def test_quotes_of_a_table_of_tabs_may_be_letters(tmp_path):
    path = written(tmp_path, "a.tsv", 'text\tlabel\n"Hm" he said\ta\n"open\tb\n')
    assert [row["text"] for row in rows_of(path)] == ['"Hm" he said', '"open']


def test_a_header_of_commas_is_one_of_commas_whatever_else_is_in_it(tmp_path):
    path = written(tmp_path, "a.csv", "text,label,x;y;z|w\na,b,c\n")
    assert rows_of(path) == [{"text": "a", "label": "b", "x;y;z|w": "c"}]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (JSONL.encode("latin-1"), "line 1: not UTF-8 (byte 0xdc at offset 10)"),
        ("Привет,мир\n".encode("cp1251"), "encoding: cp1251, gb18030 or shift_jis"),
        (JSONL.encode("utf-16"), "encoding: utf-16"),
        (JSONL.encode("utf-16-le"), "encoding: utf-16-le"),
        (b"PK\x03\x04rest", "zip archive or an Excel workbook"),
        (b"hello world\n", "neither JSON nor Parquet"),
        (b"{}\n{", "line 2, column 2: malformed JSON"),
        (b"text,label,text\na,b,c\n", "two columns are called 'text'"),
        (b'{\n"a": [1]}', "no list of rows"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, data, said):
    assert said in problem(written(tmp_path, "a.data", data))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "cp1252"])
def test_another_encoding_is_read_when_it_is_named(tmp_path, encoding):
    path = written(tmp_path, "a.jsonl", JSONL.encode(encoding))
    assert rows_of(path, encoding=encoding) == ROWS


def test_an_encoding_that_is_none_is_one_line(tmp_path):
    path = written(tmp_path, "a.jsonl", JSONL)
    assert "no encoding 'utf-77'" in problem(path, encoding="utf-77")
    assert "not ascii" in problem(path, encoding="ascii")
    assert "cannot be read as" in problem(path, encoding="base64")


def test_texts_without_answers(tmp_path):
    lines = written(tmp_path, "a.txt", "text,label\n{\n")
    assert read_texts(lines) == ("text,label", "{")
    table = written(tmp_path, "b.csv", "id;Review\n1;fine, but late\n")
    notes: list[str] = []
    assert read_texts(table, tell=notes.append) == ("fine, but late",)
    assert "text is 'Review'" in notes[0]
    assert read_texts(table, {"text": "id", "label": "none"}) == ("1",)


def test_a_test_split_without_labels_is_passed_over(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        sentence=datasets.Value("string"), label=datasets.ClassLabel(names=["no", "yes"])
    )
    splits = {"train": [0, 1, 1], "validation": [1], "test": [-1, -1]}
    made = {
        name: datasets.Dataset.from_dict(
            {"sentence": [f"{name} {i}" for i in range(len(labels))], "label": labels}, features
        )
        for name, labels in splits.items()
    }
    datasets.DatasetDict(made).save_to_disk(tmp_path / "glue")
    task = task_from_files("glue", tmp_path / "glue", None)
    assert task.task.labels == ("no", "yes")
    assert [e.label for e in task.train] == ["no", "yes", "yes"]
    assert [(e.text, e.label) for e in task.test] == [("validation 0", "yes")]
    assert "own split 'validation'" in task.notes[0]
    notes: list[str] = []
    asked = read_texts(tmp_path / "glue", tell=notes.append)
    assert asked == ("test 0", "test 1")
    assert notes == [f"{tmp_path / 'glue'}, test: the split whose texts are read"]
    made.pop("validation")
    task = task_from_files("glue", InMemory(made, "rows"), None)
    assert (len(task.train), len(task.test)) == (2, 1)
    assert "held out" in task.notes[0]


def test_a_space_after_the_commas_belongs_to_no_cell(tmp_path):
    path = written(tmp_path, "a.csv", '"text", "label"\n"a, b", "pos"\nc, neg\n')
    assert rows_of(path) == [{"text": "a, b", "label": "pos"}, {"text": "c", "label": "neg"}]
    path = written(tmp_path, "b.csv", "text,label\n a, pos\n")
    assert rows_of(path) == [{"text": " a", "label": " pos"}]
    data = task_from_files("a", None, path, labels=["pos", "neg"])
    assert data.test[0].label == "pos"


def test_stray_quotes_do_not_make_one_row_of_several(tmp_path):
    path = written(tmp_path, "a.tsv", 'text\tlabel\n"Good\tpos\nfine\tpos\nBad"\tneg\n')
    assert [row["text"] for row in rows_of(path)] == ['"Good', "fine", 'Bad"']
    path = written(tmp_path, "b.tsv", 'text\tlabel\n"two\tcells\nand\ta\tline"\tpos\n')
    assert rows_of(path) == [{"text": "two\tcells\nand\ta\tline", "label": "pos"}]


def test_one_wrong_row_of_tabs_does_not_make_letters_of_quotes(tmp_path):
    path = written(tmp_path, "a.tsv", 'text\tlabel\n"a ""b""\nc"\tpos\nd\tpos\tneg\n')
    bad: list[str] = []
    assert read_rows(path, "train", bad.append).values == [{"text": 'a "b"\nc', "label": "pos"}]
    assert bad[0].startswith(f"{path}, line 4: the row has 3 cells, the header 2")
    assert len(bad) == 1
    path = written(tmp_path, "b.tsv", 'text\tlabel\n"so\tpos"\nwhat\tpos\n')
    assert [row["text"] for row in rows_of(path)] == ['"so', "what"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "review,review,label\na,b,c\n"),
        ("a.tsv", 'text\treview\treview\tlabel\na\tb\tc "x\td\n'),
        ("a.jsonl", '{"review": "a", "review": "b", "label": "c"}\n'),
        ("a.json", '[{"review": "a", "review": "b", "label": "c"}]'),
    ],
)
def test_two_columns_of_one_name_are_refused(tmp_path, name, content):
    assert "'review'" in problem(written(tmp_path, name, content))


@pytest.mark.parametrize("kind", TEXTS)
def test_a_second_byte_order_mark_and_old_line_ends_are_no_text(tmp_path, kind):
    text = TEXTS[kind]
    assert rows_of(written(tmp_path, "a", "\ufeff\ufeff" + text)) == ROWS
    utf_16 = written(tmp_path, "b", ("\ufeff" + text).encode("utf-16-le"))
    assert rows_of(utf_16, encoding="utf-16-le") == ROWS
    assert rows_of(written(tmp_path, "c", text.replace("\n", "\r"))) == ROWS


def test_lines_of_texts_may_end_as_on_old_macs(tmp_path):
    assert read_texts(written(tmp_path, "a.txt", "one\rtwo\r")) == ("one", "two")
    assert "the file is empty" in problem(written(tmp_path, "b.csv", "\ufeff\ufeff\n"))


def arrow(tmp_path: Path, table) -> Path:
    pa = pytest.importorskip("pyarrow")
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return written(tmp_path, "a.arrow", sink.getvalue())


def test_a_zstd_file_may_begin_with_a_frame_to_skip(tmp_path):
    note = b"\x5a\x2a\x4d\x18\x04\0\0\0note"
    assert rows_of(written(tmp_path, "a.zst", note + zstd(JSONL.encode()))) == ROWS


def test_labels_of_few_bits_are_written_as_short_as_they_are_told_apart(tmp_path):
    pa = pytest.importorskip("pyarrow")
    values = [0.1, 4.0, None, float("nan")]
    columns = {
        "single": pa.array(values, pa.float32()),
        "half": pa.array(values, pa.float64()).cast(pa.float16()),
        "double": pa.array(values, pa.float64()),
    }
    for row, text in zip(
        rows_of(arrow(tmp_path, pa.table(columns))), ["0.1", "4.0", None, None], strict=True
    ):
        assert row == dict.fromkeys(columns, text)


def test_a_field_that_holds_no_text_is_left_out_alone(tmp_path):
    pa = pytest.importorskip("pyarrow")
    turn = {"role": "user", "content": "a", "tokens": [1, 2], "picture": b"x"}
    assert rows_of(arrow(tmp_path, pa.table({"messages": [[turn], None]}))) == [
        {"messages": [{"role": "user", "content": "a"}]},
        {"messages": None},
    ]


def test_columns_that_cannot_be_read_are_named(tmp_path):
    pa = pytest.importorskip("pyarrow")
    text = pa.array([b"caf\xe9"]).view(pa.string())
    assert "'text' holds texts that are not UTF-8" in problem(
        arrow(tmp_path, pa.table({"text": text}))
    )
    when = pa.array([[{"at": 2**62}]], pa.list_(pa.struct({"at": pa.timestamp("s")})))
    assert "'when' cannot be read" in problem(arrow(tmp_path, pa.table({"when": when})))
    twice = pa.table([pa.array(["a"])] * 3, ["text", "label", "label"])
    assert "two columns are called 'label'" in problem(arrow(tmp_path, twice))
