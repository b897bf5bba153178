"""TRACE and SAPT's SuperNI from files of our own making in their published layouts."""

import json
import zipfile
from pathlib import Path

import pytest

from nlora.data.check import check
from nlora.data.convert import convert
from nlora.data.published import FOLDERS, GROUPS, ORDERS, SUPERNI, TRACE
from nlora.data.streams import load_stream
from nlora.errors import NloraError

SIZES = {"train": 3, "eval": 1, "dev": 1, "test": 2}


def trace_files(**changed: object) -> dict[str, object]:
    """Prompts and answers of each task; a change is by "Task__split"."""
    files: dict[str, object] = {
        f"{task}/{split}.json": [
            {"prompt": f"Do {task}.\nText:\n{split} {i}\nAnswer:\n", "answer": "A\nBecause so."}
            for i in range(SIZES[split])
        ]
        for task in TRACE
        for split in ("train", "eval", "test")
    }
    return files | {f"{key.replace('__', '/')}.json": value for key, value in changed.items()}


def superni_files() -> dict[str, object]:
    return {
        f"{task}/{split}.json": {
            "Definition": [f"Do {task}.\n"] if i % 2 else f"Do {task}.",
            "Positive Examples": [],
            "Instances": [
                {"id": f"{n}", "input": f"{split} {n}", "output": ["yes", "Yes."] if n else "no"}
                for n in range(SIZES[split])
            ],
        }
        for i, task in enumerate(SUPERNI)
        for split in ("train", "dev", "test")
    }


def folder(path: Path, files: dict[str, object], top: str = "") -> Path:
    for name, value in files.items():
        file = path / top / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value), encoding="utf-8")
    return path


def zipped(path: Path, files: dict[str, object], *tops: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for top in tops:
            for name, value in files.items():
                archive.writestr(f"{top}/{name}", json.dumps(value))
    return path


def refused(name: str, source: Path, data: Path) -> str:
    with pytest.raises(NloraError) as caught:
        convert(name, source, data)
    assert "\n" not in str(caught.value)
    assert not list(data.glob("*")) if data.exists() else True
    return str(caught.value)


def test_the_orders_hold_every_task_once():
    assert ORDERS["trace"] == (
        *("c-stance", "fomc", "meetingbank", "py150", "scienceqa", "numglue-cm", "numglue-ds"),
        "20minuten",
    )
    first, second = ORDERS["superni-15"], ORDERS["superni-15-order-2"]
    assert sorted(first) == sorted(second) == sorted(SUPERNI)
    assert [name.split("_")[0][4:] for name in first] == [
        *("1572", "363", "1290", "181", "002", "1510", "639", "1729", "073", "1590", "748", "511"),
        *("591", "1687", "875"),
    ]
    assert [name.split("_")[0][4:] for name in second] == [
        *("748", "073", "1590", "639", "1572", "1687", "591", "363", "1510", "1729", "181", "511"),
        *("002", "1290", "875"),
    ]
    assert len(FOLDERS) == 23


def test_trace_is_read_from_its_zip_in_the_largest_of_its_sizes(tmp_path):
    tops = ("TRACE/LLM-CL-Benchmark_500", "TRACE/LLM-CL-Benchmark_5000")
    made = convert("trace", zipped(tmp_path / "trace.zip", trace_files(), *tops), tmp_path / "data")
    assert made.folder == tmp_path / "data" / "TRACE"
    assert made.dropped == {}
    tasks = load_stream("trace", tmp_path / "data")
    assert [task.name for task in tasks] == list(ORDERS["trace"])
    assert {task.task.dataset: task.task.metric for task in tasks} == TRACE
    first = tasks[0]
    assert (len(first.train), len(first.dev), len(first.test)) == (3, 1, 2)
    # Instruction and text together are the published prompt.
    assert first.task.instruction == "Do C-STANCE.\nText:"
    assert first.train[0].text == "train 0\nAnswer:\n"
    assert first.train[0].label == "A\nBecause so."
    assert first.task.labels is None
    assert check(tmp_path / "data").problems == ()


def test_superni_has_its_definition_as_instruction_and_the_first_answer(tmp_path):
    source = folder(tmp_path / "SAPT", superni_files(), "CL_Benchmark/SuperNI")
    convert("superni-15", source, tmp_path / "data")
    tasks = load_stream("superni-15-order-2", tmp_path / "data")
    assert [task.name for task in tasks] == list(ORDERS["superni-15-order-2"])
    assert {task.task.metric for task in tasks} == {"rouge-l-stem"}
    first = tasks[0]
    assert first.task.instruction == (
        f"Definition: Do {first.name}.\n\nNow complete the following example -"
    )
    assert [(e.text, e.label) for e in first.test] == [
        ("Input: test 0", "no"),
        ("Input: test 1", "yes"),
    ]
    assert check(tmp_path / "data").problems == ()


def test_both_live_beside_each_other_and_one_task_has_a_name(tmp_path):
    convert("trace", folder(tmp_path / "t", trace_files()), tmp_path / "data")
    convert("superni-15", folder(tmp_path / "s", superni_files()), tmp_path / "data")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == sorted(GROUPS)
    found = load_stream("FOMC,task363_sst2_polarity_classification", tmp_path / "data")
    assert [task.name for task in found] == ["fomc", "task363_sst2_polarity_classification"]


def test_rows_without_an_answer_are_left_out_and_counted(tmp_path):
    rows = [{"prompt": "One.", "answer": "A"}, {"prompt": "Two.", "answer": " "}]
    source = folder(tmp_path / "t", trace_files(FOMC__train=rows))
    assert convert("trace", source, tmp_path / "data").dropped == {"FOMC/train.json": 1}
    assert len(load_stream("fomc", tmp_path / "data")[0].train) == 1


def test_prompts_with_nothing_in_common_have_no_instruction(tmp_path):
    rows = [{"prompt": "One.\nx", "answer": "A"}, {"prompt": "Two.\nx", "answer": "B"}]
    source = folder(tmp_path / "t", trace_files(FOMC__train=rows))
    convert("trace", source, tmp_path / "data")
    task = load_stream("fomc", tmp_path / "data")[0]
    assert task.task.instruction is None
    assert task.train[0].text == "One.\nx"


def test_what_is_not_the_published_layout_is_one_line_and_leaves_nothing(tmp_path):
    data = tmp_path / "data"
    assert "no such file" in refused("trace", tmp_path / "none.zip", data)
    (tmp_path / "text.zip").write_text("no zip")
    assert "neither a folder nor a zip" in refused("trace", tmp_path / "text.zip", data)
    assert "no C-STANCE/train.json" in refused("trace", folder(tmp_path / "s", {"x": 1}), data)
    assert "unknown collection 'trac'; did you mean 'trace'" in refused("trac", tmp_path, data)
    for i, (rows, told) in enumerate(
        (
            ([{"question": "x", "answer": "y"}], "no 'prompt'"),
            ([{"prompt": ["x"], "answer": "y"}], "'prompt' must be text"),
            ([{"prompt": "x", "answer": ""}], "no examples in FOMC, train"),
            ({"prompt": "x"}, "must be a JSON array"),
        )
    ):
        source = folder(tmp_path / f"bad{i}", trace_files(FOMC__train=rows))
        assert told in refused("trace", source, data)
    twice = zipped(tmp_path / "twice.zip", trace_files(), "a", "b")
    assert "holds a/C-STANCE/train.json and b/" in refused("trace", twice, data)


def test_a_group_that_is_there_is_not_replaced(tmp_path):
    source = folder(tmp_path / "t", trace_files())
    convert("trace", source, tmp_path / "data")
    with pytest.raises(NloraError, match="exists already"):
        convert("trace", source, tmp_path / "data")


def test_a_stream_without_its_files_says_how_to_get_them():
    for name in ("trace", "superni-15", "fomc"):
        with pytest.raises(NloraError, match=r"nlora data convert.*data"):
            load_stream(name, None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "malformed JSON"),
        ('{"metrics": "f1"}', "unknown key 'metrics'"),
        ("[]", "JSON object"),
    ],
)
def test_a_description_that_is_wrong_is_named(tmp_path, text, told):
    convert("trace", folder(tmp_path / "t", trace_files()), tmp_path / "data")
    (tmp_path / "data" / "TRACE" / "FOMC" / "task.json").write_text(text)
    with pytest.raises(NloraError, match=told):
        load_stream("fomc", tmp_path / "data")
    assert any(told in problem for problem in check(tmp_path / "data").problems)


def test_a_damaged_zip_is_one_line_that_names_the_member(tmp_path):
    data, files = tmp_path / "data", trace_files()
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in files.items():
            archive.writestr(name, json.dumps(value))
    content = bytearray(path.read_bytes())
    first = content.index(b"C-STANCE/train.json") + len("C-STANCE/train.json")
    content[first] = 0xFF
    path.write_bytes(content)
    assert "cannot read C-STANCE/train.json" in refused("trace", path, data)
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    content[start + 6] = 0xFF  # the version that is needed to unpack it
    path.write_bytes(content)
    assert "neither a folder nor a zip" in refused("trace", path, data)


def test_rows_of_a_zip_are_named_by_their_member_and_must_be_whole(tmp_path):
    rows = [{"prompt": "x", "answer": "half \ud800"}]
    path = zipped(tmp_path / "a.zip", trace_files(FOMC__train=rows), "b")
    told = refused("trace", path, tmp_path / "data")
    assert told == f"{path}/b/FOMC/train.json, line 1, example 1: 'answer' holds half a character"
