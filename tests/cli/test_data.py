"""`nlora data` on the collections of other papers."""

from tests.data.test_convert import folder, trace_files


def test_convert_and_list(nlora, tmp_path):
    source = folder(tmp_path / "t", trace_files(FOMC__eval=[{"prompt": "Hm?", "answer": ""}]))
    told = nlora("data", "convert", "trace", str(source), str(tmp_path / "data"))
    assert told.exit_code == 0
    assert "FOMC/dev.json: 1 rows left out" in told.stdout
    assert "trace is in" in told.stdout
    assert "numglue-cm" in nlora("data", "check", str(tmp_path / "data"), "--json").stdout
    again = nlora("data", "convert", "trace", str(source), str(tmp_path / "data"))
    assert again.exit_code == 2
    assert "exists already" in again.stderr


def test_what_cannot_be_fetched_says_what_to_do(nlora, tmp_path):
    told = nlora("data", "download", str(tmp_path / "data"), "--collection", "trace")
    assert told.exit_code == 2
    assert "nlora data convert trace ZIP DIR" in told.stderr
    told = nlora("data", "download", str(tmp_path / "data"), "--collection", "trac")
    assert told.exit_code == 2
    assert "did you mean 'trace'" in told.stderr
