"""What a long piece of work says meanwhile."""

import io

from nlora.api import watching
from nlora.api.watching import Bars, Lines, Visible, watched
from nlora.progress import NoProgress


def test_on_a_terminal_a_bar_says_what_is_done_and_how_far(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(watching, "err", Visible(file=screen, force_terminal=True, width=100))
    bars = watching.progress()
    assert isinstance(bars, Bars)
    bars.advance()  # before anything has begun there is no bar to move
    bars.message("loading [red]m")
    bars.start("1 [sst]: training", 4)
    bars.advance(3, loss=0.25)
    bars.finish()
    bars.finish()
    shown = screen.getvalue()
    assert "loading [red]m" in shown  # names are no markup
    assert "1 [sst]: training" in shown
    assert "3/4" in shown
    assert "loss 0.250" in shown


def test_elsewhere_there_are_lines_now_and_then(monkeypatch, capsys):
    times = iter([0.0, 1.0, 20.0, 30.0])
    monkeypatch.setattr(watching.time, "monotonic", lambda: next(times))
    lines = Lines()
    lines.start("training", 4)
    lines.advance()  # after a second: too soon
    lines.advance(loss=0.25)
    lines.finish()
    said = capsys.readouterr().err.splitlines()
    assert said == ["training 2/4, 20 s left  loss 0.250", "training 2/4 in 30 s"]


def test_a_script_gets_what_it_asks_for():
    own = NoProgress()
    assert watched(None) is watched(False) is None
    assert watched(own) is own
    assert isinstance(watched(True), Bars | Lines)
