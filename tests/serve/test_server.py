"""Where the server listens, and what keeps it from it."""

import asyncio
import logging
import socket
import traceback

import pytest
import uvicorn

from nlora.errors import NloraError
from nlora.serve import server
from tests.calling import call
from tests.runs import Listener


def test_it_listens_on_this_machine_alone_until_ctrl_c(finished, monkeypatch, capfd):
    # uvicorn configures logging anew, which closes all handlers; absl's, where a test has imported
    # it (rouge-score does), closes pytest's captured stderr with it.
    monkeypatch.setattr(logging, "_handlerList", [])
    seen = {}

    def run(self, sockets):
        seen["address"], seen["protocol"] = sockets[0].getsockname(), sockets[0].proto
        seen["hosts"] = [m.kwargs.get("allowed_hosts") for m in self.config.app.user_middleware]
        try:
            raise asyncio.CancelledError
        except asyncio.CancelledError:
            logging.getLogger("uvicorn.error").exception("given up")
            logging.getLogger("uvicorn.error").error(f"given up: {traceback.format_exc()}")
        seen["patience"] = self.config.timeout_graceful_shutdown
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", run)
    listener = Listener()
    server.serve(finished("inc-lora").out, listener, port=0, reload=True)
    host, port = seen["address"]
    assert (host, seen["protocol"]) == ("127.0.0.1", socket.IPPROTO_TCP)  # else slow
    assert seen["patience"] == server.PATIENCE  # a client that never ends does not keep it
    assert "given up" not in capfd.readouterr().err
    assert ["127.0.0.1", "::1", "localhost", "[::1]"] in seen["hosts"]
    assert listener.messages[-1] == f"serving 'out' at http://127.0.0.1:{port}; Ctrl-C ends it"


def test_so_many_texts_as_a_request_may_have_can_wait(monkeypatch):
    seen = []
    monkeypatch.setattr(server, "serve", lambda *given: seen.append(given[6:]))
    for most in ("5000", "8"):
        asked = ["serve", "m", "--max-texts", most, "--answers", "likely"]
        assert call(*asked).exit_code == 0
    assert [(limits.texts, limits.waiting) for limits, _ in seen] == [(5000, 5000), (8, 1024)]
    assert [how for _, how in seen] == ["likely", "likely"]


def test_a_place_that_is_taken_and_a_missing_extra_are_said_before_anything_is_loaded(
    tmp_path, monkeypatch
):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(NloraError, match=f"cannot listen at 127.0.0.1, port {port}: "):
            server.serve(tmp_path, Listener(), port=port)
    with pytest.raises(NloraError, match="holds no model"):
        server.serve(tmp_path, Listener(), port=0)
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    with pytest.raises(
        NloraError, match=r"needs fastapi and uvicorn: pip install 'nlora\[serve\]'"
    ):
        server.serve(tmp_path, Listener())
