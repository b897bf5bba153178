"""mutmut on this package: `python tools/mutation.py run 'nlora.store.*'`, and its other commands.

Three things are changed in mutmut, whose version is therefore pinned (docs/mutation.md):

- It leaves out decorated functions, because a decorator may register what it is given, or make
  something that cannot be called. Most functions of `lowrank` are decorated, by nothing of that
  kind. Here a decorator is applied to the function that chooses among the mutants, and to no
  mutant itself.
- What is raised is left as it is: its mutants are other words of a message.
- A loop without an end is told by the time of the CPU; the clock, which also runs while the machine
  does other work, has PATIENCE.
"""

from collections.abc import Callable, Iterable
from typing import Any

import libcst as cst
from hypothesis import Phase, settings
from mutmut.__main__ import cli
from mutmut.mutation import file_mutation
from mutmut.workers import isolation

PATIENCE = 20
"""How many times as long as is expected a mutant's tests may last by the clock."""

# A failure is one, however large: examples that fail are not made smaller.
settings.register_profile(
    "mutation",
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
)


class Visitor(file_mutation.MutationVisitor):
    """What is mutated: the inside of decorated functions too, and nothing that is raised."""

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Raise):
            return True
        if isinstance(node, cst.FunctionDef):
            node = node.with_changes(decorators=())
        return super()._skip_node_and_children(node)


def decorated(arrange: Callable[..., Any]) -> Callable[..., Any]:
    """mutmut's arrangement of a function and its mutants, the first node of which chooses."""

    def arranged(
        function: cst.FunctionDef, mutants: Iterable[Any], class_name: str | None
    ) -> tuple[Any, list[Any], Any, Any]:
        if any(cst.parse_module("").code_for_node(d.decorator) in OWN for d in function.decorators):
            return arrange(function, mutants, class_name)
        plain = function.with_changes(decorators=())
        declared, (chooser, *rest), assigned, names = arrange(plain, mutants, class_name)
        decorators = [*function.decorators, *chooser.decorators]
        return declared, [chooser.with_changes(decorators=decorators), *rest], assigned, names

    return arranged


OWN = ("staticmethod", "classmethod")
"""The decorators that mutmut knows."""


def patient(register: Callable[[int, float], None]) -> Callable[[int, float], None]:
    """mutmut's way to end a process after some seconds, after PATIENCE times as many."""
    return lambda pid, timeout_s: register(pid, PATIENCE * timeout_s)


if __name__ == "__main__":
    file_mutation.MutationVisitor = Visitor
    file_mutation.function_trampoline_arrangement = decorated(
        file_mutation.function_trampoline_arrangement
    )
    isolation.register_timeout = patient(isolation.register_timeout)
    cli()
