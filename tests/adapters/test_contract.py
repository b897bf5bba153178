"""What every adapter promises, whatever it is."""

import pytest
import torch

from nlora.adapters import registry
from nlora.adapters.base import Abilities, Adapter
from nlora.adapters.layouts import Concatenated
from nlora.adapters.lora import Lora
from nlora.adapters.settings import AdapterSettings
from nlora.errors import NloraError
from tests import tiny
from tests.adapters.helpers import logits, train

SETTINGS = AdapterSettings(
    rank=2,
    alpha=4.0,
    dropout=0.0,
    precision="fp32",
    peft_type="LOHA",
    peft_options={"r": 2, "init_weights": False},
)
OPTIONS = {"prompt": {"layout": Concatenated(3)}}
KINDS = tuple(registry.BUILT_IN)
SHAPES = ("grouped-query", "t5-v1.1")

every = pytest.mark.parametrize("kind", KINDS)
shapes = pytest.mark.parametrize("shape", SHAPES)


def build(kind: str, shape: str, settings: AdapterSettings = SETTINGS, **options) -> Adapter:
    torch.manual_seed(0)
    given = {**OPTIONS.get(kind, {}), **options}
    return registry.adapter(kind).build(tiny.model(shape), settings, **given)


def learn(adapter: Adapter, shape: str, stages: int, folder, **options) -> tuple[list, list]:
    """Stage after stage, saved: the folders, and the logits before and after each stage."""
    folders, stood = [], [logits(adapter.model, shape)]
    for stage in range(1, stages + 1):
        torch.manual_seed(stage)
        adapter.begin(**options)
        train(adapter, seed=stage)
        adapter.consolidate()
        folders.append(folder / str(stage))
        adapter.save(folders[-1])
        stood.append(logits(adapter.model, shape))
    return folders, stood


@every
@shapes
def test_no_stages_are_the_base_model(kind, shape, tmp_path):
    adapter = build(kind, shape)
    base = logits(adapter.model, shape)
    with adapter.after([]):
        torch.testing.assert_close(logits(adapter.model, shape), base, rtol=0, atol=1e-6)
    folders, stood = learn(adapter, shape, 2, tmp_path)
    assert not torch.allclose(stood[2], base, atol=1e-3)
    for count in (0, 1, 2):
        with adapter.after(folders[:count]):
            torch.testing.assert_close(logits(adapter.model, shape), stood[count])
        assert torch.equal(logits(adapter.model, shape), stood[2])
    adapter.load([])
    torch.testing.assert_close(logits(adapter.model, shape), base, rtol=0, atol=1e-6)


@every
@shapes
def test_loading_into_a_used_adapter_is_loading_into_a_fresh_one(kind, shape, tmp_path):
    used, fresh = build(kind, shape), build(kind, shape)
    folders, stood = learn(used, shape, 3, tmp_path)
    for adapter in (used, fresh):
        adapter.load(folders[:2])  # the third stage is thrown away
    assert torch.equal(logits(used.model, shape), logits(fresh.model, shape))
    torch.testing.assert_close(logits(used.model, shape), stood[2])
    for adapter in (used, fresh):
        again = adapter is used
        torch.manual_seed(3)
        adapter.begin()
        train(adapter, seed=3)
        adapter.consolidate()
        adapter.save(tmp_path / f"again-{again}")
        torch.testing.assert_close(logits(adapter.model, shape), stood[3])
    assert torch.equal(logits(used.model, shape), logits(fresh.model, shape))
    used.load([])
    nothing = build(kind, shape)
    for adapter in (used, nothing):
        torch.manual_seed(1)
        adapter.begin(continued=True)
        train(adapter, seed=1)
        adapter.consolidate()
    assert used.replaces == nothing.replaces
    torch.testing.assert_close(logits(used.model, shape), logits(nothing.model, shape))


@every
def test_what_is_trained_are_the_model_s_own_parameters_by_name(kind):
    adapter = build(kind, "llama")
    adapter.begin()
    own = dict(adapter.model.named_parameters())
    trained = adapter.trained()
    assert trained
    assert all(own[name] is p and p.requires_grad for name, p in trained.items())
    assert adapter.trainable() == list(trained.values())
    assert adapter.update()


@every
def test_what_an_adapter_cannot_do_is_one_line_and_nothing_has_begun(kind):
    adapter = build(kind, "llama")
    asked = {
        "start": ({"start": lambda name, f: (f.A, f.B)}, adapter.can.start),
        "freeze": ({"frozen": ("A",)}, adapter.can.factors),
        "scale": ({"scales": True}, adapter.can.factors),
    }
    for word, (options, able) in asked.items():
        if able:
            adapter.begin(**options)
            continue
        with pytest.raises(NloraError, match=f"adapter '{kind}' cannot {word}") as error:
            adapter.begin(**options)
        assert "\n" not in str(error.value)


@every
def test_an_adapter_says_what_it_is(kind):
    found = registry.adapters()[kind]
    assert found.name == kind
    assert found.summary
    assert isinstance(found.can, Abilities)
    assert not found.can.shard


@pytest.mark.parametrize("kind", ["full", "osf"])
def test_the_base_s_weights_are_read_again_where_they_can_be(kind, tmp_path):
    adapter = build(kind, "llama")
    reads = []

    def base_weights():
        reads.append(1)
        return dict(tiny.model("llama").named_parameters())

    adapter.base_weights = base_weights
    _, stood = learn(adapter, "llama", 2, tmp_path)
    assert adapter._base is None
    assert not reads
    with adapter.after([]):
        assert torch.equal(logits(adapter.model, "llama"), stood[0])
    assert reads == [1]


@pytest.mark.parametrize("kind", ["lora", "sparse"])
@pytest.mark.parametrize("fold", [True, False])
def test_the_merged_model_is_plain_and_the_same(kind, fold, tmp_path):
    adapter = build(
        kind, "gpt2", SETTINGS.model_copy(update={"precision": "fp32" if fold else "bf16"})
    )
    _, stood = learn(adapter, "gpt2", 3, tmp_path)
    merged = adapter.merged()
    assert type(merged) is type(tiny.model("gpt2"))
    torch.testing.assert_close(logits(merged, "gpt2"), stood[3], rtol=0, atol=1e-5)


@every
def test_a_shell_without_weights_can_be_counted(kind):
    with torch.device("meta"):
        shell = type(tiny.model("llama"))(tiny.model("llama").config)
    options = {"full": {"isolated": True}, **OPTIONS}.get(kind, {})
    start = "gaussian" if kind == "lora-and-whole" else "pissa"  # which that refuses
    settings = SETTINGS.model_copy(update={"start": start})
    counted = registry.adapter(kind).build(shell, settings, **options)
    whole = build(kind, "llama")
    for adapter in (counted, whole):
        adapter.begin()
    assert [p.shape for p in counted.trainable()] == [p.shape for p in whole.trainable()]


# Factors that are not trained


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("frozen", ["A", "B"])
def test_a_frozen_factor_stays_and_is_stored_and_comes_back(frozen, precision, tmp_path):
    adapter = build("lora", "llama", SETTINGS.model_copy(update={"precision": precision}))
    assert isinstance(adapter, Lora)

    def begin(stage: int) -> dict:
        torch.manual_seed(stage)
        adapter.begin(
            keep_previous=True,
            frozen=[frozen],
            start=lambda name, f: (f.A, 0.1 * torch.randn(f.B.shape)),
        )
        assert all(f"lora_{frozen}." not in name for name in adapter.trained())
        return {name: t.clone() for name, t in adapter.update().items() if name.endswith(frozen)}

    folders, stood, kept = [], [logits(adapter.model, "llama")], []
    for stage in (1, 2):
        before = logits(adapter.model, "llama")
        kept.append(begin(stage))
        train(adapter, seed=stage)
        adapter.consolidate()
        for name, tensor in kept[-1].items():
            assert torch.equal(adapter.update()[name], tensor)
            assert not adapter.update()[name].requires_grad
        with adapter.previous():
            torch.testing.assert_close(logits(adapter.model, "llama"), before, rtol=0, atol=1e-5)
        folders.append(tmp_path / str(stage))
        adapter.save(folders[-1])
        stood.append(logits(adapter.model, "llama"))
    first = next(iter(kept[0]))
    assert not torch.equal(kept[0][first], kept[1][first])
    for count in (0, 1, 2):
        with adapter.after(folders[:count]):
            torch.testing.assert_close(logits(adapter.model, "llama"), stood[count])
        for name, tensor in kept[1].items():
            assert torch.equal(adapter.update()[name], tensor)
            assert not adapter.update()[name].requires_grad
    adapter.begin()  # frozen is a stage's own
    assert len(adapter.trained()) == 2 * len(adapter.layers)


@pytest.mark.parametrize("frozen", [["A", "B"], ["C"], ["a"]])
def test_only_one_of_the_factors_can_be_frozen(frozen):
    with pytest.raises(NloraError, match="can be frozen"):
        build("lora", "llama").begin(frozen=frozen)


# The registry


class Norms(Adapter):
    """An adapter as a plug-in has it."""

    name = "norms"
    summary = "the weights of the norms"

    def __init__(self, model):
        self.model = model.requires_grad_(False)
        for name, p in model.named_parameters():
            p.requires_grad_("norm" in name)

    @classmethod
    def build(cls, model, settings, **options):
        return cls(model)

    def prepare(self, asked):
        self.started = asked

    def update(self):
        return dict(self.trained())

    def consolidate(self):
        pass

    def previous(self):
        raise NotImplementedError

    def save(self, folder):
        raise NotImplementedError

    load = after = save

    def merged(self):
        return self.model


def test_an_adapter_of_one_s_own_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})
    with pytest.raises(NloraError, match="unknown adapter 'norms'"):
        registry.adapter("norms")
    registry.register(Norms)
    assert registry.adapter("norms") is Norms
    assert registry.adapters()["norms"] is Norms
    adapter = registry.adapter("norms").build(tiny.model("llama"), SETTINGS)
    adapter.begin(keep_previous=True)
    assert adapter.started.keep_previous
    assert all("norm" in name for name in adapter.trained())
    with pytest.raises(NloraError, match="cannot scale earlier updates"):
        adapter.begin(scales=True)


def test_an_incomplete_adapter_is_refused_in_one_line():
    class Half(Adapter):
        name = "half"

    with pytest.raises(NloraError, match="adapter Half lacks after, build"):
        registry.register(Half)


def test_a_misspelt_adapter_has_a_hint():
    with pytest.raises(NloraError, match="unknown adapter 'lara'; did you mean 'lora'"):
        registry.adapter("lara")
