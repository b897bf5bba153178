"""The command `nlora`. Each command is a file beside this one."""

import gc
import os
import signal
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from nlora import NloraError, __version__, endings, processes
from nlora.backbones.quiet import quiet
from nlora.cli import (
    analyze,
    compare,
    copy,
    data,
    demo,
    env,
    evaluate,
    explain,
    export,
    guarded,
    history,
    learn,
    methods,
    models,
    paper,
    predict,
    remove,
    report,
    rollback,
    run,
    serve,
    streams,
    study,
    table,
    verify,
)
from nlora.cli.console import err, prepare
from nlora.cli.standing import forget, is_begun, nothing_stands
from nlora.errors import as_commands, of_disk, of_memory

NOTHING = "; nothing is committed yet, the same command begins anew"
BEGUN = "; no stage is committed yet, the same command goes on from its last checkpoint or trial"
DEBUG = "NLORA_DEBUG"
"""The environment variable with which an error in a user's own file has its traceback."""

GOES_ON = {"run", "learn", "compare", "demo", "paper"}
"""Commands that commit stages, and go on after the last one."""
KEEPS = "; what was measured is kept, the same command goes on after it"
STANDS = "; committed stages stand, the same command goes on after the last one"


class FriendlyGroup(TyperGroup):
    """Turns what a user can mend into one line and exit status 2."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the command line and run it."""
        try:
            status = super().main(*args, **{**kwargs, "standalone_mode": False})
        except TyperException as error:  # an unknown command or option, a bad value
            if type(error).__name__ != "NoArgsIsHelpError":  # which has printed the help
                context = getattr(error, "ctx", None)
                hint = f" (see `{context.command_path} --help`)" if context else ""
                _fail(f"{error.format_message()}{hint}")
            status = 2
        endings.leave(status or 0)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, its help in paragraphs that the terminal breaks."""
        command = super().get_command(ctx, cmd_name)
        for one in [command, *getattr(command, "commands", {}).values()]:
            if one is None:
                continue
            paragraphs = (one.help or "").split("\n\n")
            one.help = "\n\n".join(" ".join(text.split()) for text in paragraphs)
            for given in one.params:
                if given.param_type_name == "argument" and not given.metavar:
                    given.metavar = given.name.upper()
        return command

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        forget()
        try:
            with as_commands():
                return super().invoke(ctx)
        except NloraError as error:
            _fail(str(error))
            ctx.exit(2)
        except KeyboardInterrupt:
            _fail(f"stopped{_what_stands(ctx)}")
            ctx.exit(130)
        except Exception as error:
            told = of_disk(error) if isinstance(error, OSError) else of_memory(error)
            if told is not None:
                _fail(told + _what_stands(ctx))
                ctx.exit(2)
            if (said := in_own_file(error)) is None:
                raise
            debug = bool(os.environ.get(DEBUG))
            hint = f"\n{DEBUG}=1 in the environment shows the whole traceback"
            _fail(said + ("" if debug else hint))
            if debug:
                raise
            ctx.exit(1)  # a bug, if not one of nlora's


def in_own_file(error: BaseException) -> str | None:
    """Where an error passed through a user's `--plugin` file last, and what it was; None if never.

    The frames of the Trainer around it tell whoever wrote the file nothing.
    """
    from nlora.methods.registry import PLUGIN_MODULE

    frames = [
        frame
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__", "")).startswith(PLUGIN_MODULE)
    ]
    if not frames:
        return None
    summary = [
        place
        for place in traceback.extract_tb(error.__traceback__)
        if place.filename == frames[-1].f_code.co_filename
    ][-1]
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{summary.filename}, line {summary.lineno}, in {summary.name}: {what} ({summary.line})"


def _what_stands(ctx: Any) -> str:
    if ctx.invoked_subcommand == "explain":
        return KEEPS
    if ctx.invoked_subcommand not in GOES_ON:
        return ""
    if not nothing_stands():
        return STANDS
    return BEGUN if is_begun() else NOTHING


def _fail(message: str) -> None:
    endings.say_once(
        lambda: err.print(f"error: {message}", style="red", markup=False, highlight=False)
    )


app = typer.Typer(
    name="nlora",
    help="Continual learning for language models with LoRA, without forgetting.",
    cls=FriendlyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"nlora {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


app.command("demo")(demo.demo)
app.command("run")(run.run)
app.command("learn")(learn.learn)
app.command("accept")(guarded.accept)
app.command("discard")(guarded.discard)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.command("history")(history.history)
app.command("copy")(copy.copy)
app.command("verify")(verify.verify)
app.command("remove")(remove.remove)
app.command("rollback")(rollback.rollback)
app.command("prune")(rollback.prune)
app.command("compare")(compare.compare)
app.command("table")(table.table)
app.command("report")(report.report)
app.command("paper")(paper.paper)
app.command("analyze")(analyze.analyze)
app.command("explain")(explain.explain)
app.command("methods")(methods.methods)
app.command("streams")(streams.streams)
app.add_typer(study.app, name="study")
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")
app.command("env")(env.env)


def main() -> None:
    """The entry point."""
    quiet()
    prepare()
    # By default Python looks for garbage 900 times while PyTorch and Transformers are imported,
    # which leaves hardly any: a sixth of the start of `nlora predict`.
    gc.set_threshold(10_000, 10, 10)
    try:
        processes.start()
    except NloraError as error:
        _fail(str(error))
        sys.exit(2)
    if not processes.is_main():
        processes.quieten()
    try:
        app()
    except KeyboardInterrupt:  # once more, while the first one was told
        sys.exit(130)
    except Exception as bug:
        if processes.count() == 1:
            raise
        shown = (type(bug), bug, bug.__traceback__)
        endings.say_once(lambda: sys.excepthook(*shown))
        endings.leave(1)
    finally:
        # What is left is Python's own end, which a signal would make that of the process.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
