import pytest

from nlora.adapters.registry import BUILT_IN
from nlora.errors import NloraError
from nlora.methods import registry
from nlora.methods.base import Method
from nlora.methods.registry import method, methods
from nlora.plan.config import RunConfig
from nlora.plan.resolve import choose

NAMES = {
    "seq-ft",
    "seq-lora",
    "inc-lora",
    "o-lora",
    "n-lora",
    "mtl",
    "replay",
    "avr",
    "ewc",
    "lwf",
    "osf",
    "prog-prompt",
    "l2p",
    "lfpt5",
    "ns",
    "o-lora+n-lora",
}

PLUGIN = """
from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from nlora.methods.base import Method, PerStage, Settings


@dataclass
class Note:
    text: str = ""


class MineSettings(Settings):
    strength: PerStage = Field(0.5, description="how much")


class Mine(Method):
    name = "mine"
    summary = "my own"
    Settings = MineSettings
"""


def config(method: str, **values) -> RunConfig:
    return RunConfig(model="any", method=method, **values)


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_method_that_is_promised_is_there():
    assert set(methods()) >= NAMES


@pytest.mark.parametrize("name", sorted(methods()))
def test_every_method_builds_with_its_defaults_and_explains_them(name):
    entry = method(name)
    assert choose(config(name)).method.adapter in BUILT_IN
    assert entry.summary
    assert entry.kind.paper
    for field in entry.kind.Settings.model_fields.values():
        assert field.description


def test_a_variant_is_settings_of_its_method_that_a_user_may_change():
    assert method("ns").build({}).settings.l1 == 0
    both = method("o-lora+n-lora").build({}).settings
    assert (both.penalty, both.l1) == ("l1", method("n-lora").build({}).settings.l1)
    assert both.orthogonality_weight == 0.5
    assert method("o-lora+n-lora").build({"l1": 0.7}).settings.l1 == 0.7


def test_an_unknown_method_is_answered_with_the_nearest():
    with pytest.raises(NloraError) as error:
        choose(config("nlora"))
    assert one_line(error).startswith("unknown method 'nlora'; did you mean 'n-lora'")


@pytest.mark.parametrize(
    ("name", "setting", "nearest"),
    [
        ("n-lora", "l1_units", "l1_unit"),
        ("n-lora", "learning_rates", "learning_rate"),
        ("replay", "bufer", "buffer"),
        ("o-lora", "ortogonality", "orthogonality"),
    ],
)
def test_an_unknown_setting_is_answered_with_the_nearest(name, setting, nearest):
    with pytest.raises(NloraError) as error:
        choose(config(name, settings={setting: 1}))
    assert f"'{setting}'" in one_line(error)
    assert f"'{nearest}'" in one_line(error)


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("n-lora", "l1", -0.1),
        ("n-lora", "l1", [0.1, -0.1]),
        ("n-lora", "l1", float("nan")),
        ("n-lora", "l1", "much"),
        ("n-lora", "penalty", "l2"),
        ("o-lora", "orthogonality_weight", float("inf")),
        ("replay", "buffer", 0),
        ("replay", "buffer", 1.5),
        ("replay", "adapter", "prompt"),
        ("ewc", "ewc_lambda", -1),
        ("ewc", "mode", "both"),
        ("ewc", "decay", 1.5),
        ("ewc", "fisher_examples", 0),
        ("lwf", "temperature", 0),
        ("lwf", "distillation_weight", -1),
        ("osf", "effective_rank", 1.0),
        ("osf", "effective_rank", [0.5, -1]),
        ("osf", "effective_rank", "shrinking"),
        ("osf", "projection", "both"),
        ("prog-prompt", "prompt_length", 0),
        ("l2p", "top_k", 11),
        ("l2p", "query", "cls"),
        ("lfpt5", "kl_weight", 1.5),
        ("prog-prompt", "learning_rate", -1),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_setting(name, setting, value):
    with pytest.raises(NloraError) as error:
        choose(config(name, settings={setting: value}))
    assert one_line(error).startswith(f"setting '{setting}': ")


def test_a_plugin_file_works_like_a_built_in_method(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    entry = method("mine", path)
    assert entry.summary == "my own"
    assert set(methods(path)) == {"mine", *methods()}
    built = choose(config("mine", plugin=str(path), settings={"strength": [0.1, 0.2]})).method
    assert built.settings.strength == [0.1, 0.2]
    with pytest.raises(NloraError, match="'strenght'; did you mean 'strength'"):
        choose(config("mine", plugin=str(path), settings={"strenght": 1}))
    with pytest.raises(NloraError, match="setting 'strength': must be a number of at least 0"):
        choose(config("mine", plugin=str(path), settings={"strength": -1}))


def test_a_weight_is_a_number_or_found():
    with pytest.raises(NloraError, match=r"setting 'l1': must be a number, .*, or auto, not 'aut'"):
        choose(config("n-lora", settings={"l1": "aut"}))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "does not exist"),
        ("class Mine(:", "SyntaxError"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("raise ValueError('one\\n\\ntwo')", "ValueError: one two"),
        ("import sys\nsys.exit(3)", "SystemExit"),
        ("x = 1", "defines no method"),
        ("from nlora.methods.n_lora import NLora", "defines no method"),
    ],
)
def test_a_broken_plugin_is_one_clear_line(tmp_path, text, reason):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(NloraError) as error:
        method("mine", path)
    assert str(path) in one_line(error)
    assert reason in one_line(error)


class Point:
    """An entry point of an installed package."""

    name = "theirs"
    value = "their_package:Theirs"

    def __init__(self, load) -> None:
        self.load = load


def test_a_package_offers_methods_through_its_entry_points(monkeypatch):
    class Theirs(Method):
        name = "theirs"
        summary = "of a package"

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point(lambda: Theirs)])
    assert method("theirs").kind is Theirs


def test_a_broken_package_is_one_line_that_names_its_entry_point(monkeypatch):
    def fail():
        raise ImportError("no module\nof that name")

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point(fail)])
    with pytest.raises(NloraError) as error:
        methods()
    assert "their_package:Theirs" in one_line(error)


STATELESS = """
from dataclasses import dataclass

from nlora.methods.base import State
from nlora.methods.inc_lora import IncLora


@dataclass
class Own(State):
    seen: int = 0


class Mine(IncLora):
    name = "mine"
    summary = "my own"
    State = Own
"""


def test_a_state_that_lacks_what_its_parent_keeps_is_refused_by_name(tmp_path):
    (plugin := tmp_path / "mine.py").write_text(STATELESS)
    with pytest.raises(NloraError, match="Mine: its State must extend that of IncLora") as caught:
        methods(plugin)
    one_line(caught)
    plugin.write_text(STATELESS.replace("Own(State)", "Own(IncLora.State)"))
    found = methods(plugin)["mine"].kind
    assert found.State().by_text.stages == []
    assert found.paper == ""  # not its parent's


def test_who_asks_for_a_method_of_their_own_without_its_file_is_told_how():
    with pytest.raises(NloraError, match="plugin='FILE'"):
        method("keep-close")
