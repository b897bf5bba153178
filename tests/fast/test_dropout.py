import torch

from nlora.adapters.lora import Lora
from nlora.fast.dropout import Dropout, use_quick_dropout
from tests import tiny


def test_the_rate_and_the_mean_are_as_asked_and_neighbours_are_independent():
    torch.manual_seed(0)
    x = torch.ones(1000, 1001, requires_grad=True)
    y = Dropout(0.1)(x)
    zero = (y == 0).float()
    assert abs(float(zero.mean()) - 0.1) < 1e-3
    assert abs(float(y.detach().mean()) - 1) < 1e-3
    assert abs(float((zero[:, 1:] * zero[:, :-1]).mean()) - 0.01) < 5e-4
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_nothing_is_dropped_in_evaluation_and_a_seed_repeats_what_is_dropped():
    x = torch.randn(50, 7)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    drops = []
    for _ in range(2):
        torch.manual_seed(3)
        drops.append(Dropout(0.5)(x))
    assert torch.equal(*drops)


def test_adapters_drop_at_the_rate_that_is_set():
    lora = Lora(tiny.model("llama"), 2, 4.0, 0.25)
    rates = [m.p for m in lora.model.modules() if isinstance(m, Dropout)]
    assert rates == [0.25] * len(lora.layers)
    assert not any(type(m) is torch.nn.Dropout and m.p for m in lora.model.modules())
    plain = Lora(tiny.model("llama"), 2, 4.0, 0.0)
    assert not any(isinstance(m, Dropout) for m in plain.model.modules())


def test_a_model_drops_at_the_rates_that_its_configuration_says():
    net = tiny.model("t5")
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.25
    before = sum(isinstance(m, torch.nn.Dropout) for m in net.modules())
    use_quick_dropout(net)
    rates = [m.p for m in net.modules() if isinstance(m, Dropout)]
    assert rates == [0.25] * before
    assert not any(isinstance(m, torch.nn.Dropout) for m in net.modules())
