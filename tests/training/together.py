"""The command line in several processes, as torchrun starts them."""

import os
import socket
import sys
from pathlib import Path

from tests.processes import LIMIT, context
from tests.training.command import command


def start(arguments, folder: Path, count: int = 2, kill=None) -> list[tuple[int | None, str]]:
    """Exit status and output of each process. `kill` is a moment (`command`) for the last one.

    They are forked from one that has imported torch. They wait for each other at every step, on a
    machine with other work for seconds each time, so only processes that never end are too slow.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    logs = [folder / f"log-{rank}" for rank in range(count)]
    running = [
        context().Process(target=_one, args=(rank, count, port, arguments, str(log), kill))
        for rank, log in enumerate(logs)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(LIMIT)
    late = [process for process in running if process.is_alive()]
    for process in late:
        process.kill()
    assert not late, [log.read_text() for log in logs]
    return [(p.exitcode, log.read_text()) for p, log in zip(running, logs, strict=True)]


def _one(rank, count, port, arguments, log, kill) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    os.environ.update({name: str(value) for name, value in (place | address).items()})
    command([str(part) for part in arguments], log, kill if rank == count - 1 else None)
    sys.exit(0)
