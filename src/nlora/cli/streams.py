"""`nlora streams`: the streams by name."""

from nlora.cli import options as o
from nlora.cli.console import print_json, show


def streams(json: o.Json = False) -> None:
    """List the streams that have a name, and the data sets they are made of."""
    from nlora.data.streams import DEMO, KNOWN, STREAMS

    described = "four small tasks that the package generates itself; needs no --data"
    if json:
        print_json({"streams": {DEMO: None, **STREAMS}, "datasets": KNOWN})
        return
    rows = [[DEMO, described], *([name, " → ".join(tasks)] for name, tasks in STREAMS.items())]
    show("streams", ["stream", "tasks"], rows)
    show("data sets", ["data set", "folder"], [[name, folder] for name, folder in KNOWN.items()])
