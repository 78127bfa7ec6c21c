"""Jinja2's compiler of statements, for trees whose expressions are compiled by us."""

from __future__ import annotations

from typing import Any, Final

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generator(CodeGenerator):
    """Jinja2's compiler of statements, for trees whose expressions are ours."""

    def visit_Call(  # noqa: N802  (Jinja2's name)
        self,
        node: nodes.Call,
        frame: Frame,
        forward_caller: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        if not isinstance(node.node, nodes.Const):
            super().visit_Call(node, frame, forward_caller=forward_caller)
            return
        self._write_ours(node.node.value, node.args, frame)

    def visit_Filter(self, node: nodes.Filter, frame: Frame) -> None:  # noqa: N802
        # Only `<% filter %>` and `<% set %>` blocks still have one: of the block's own text.
        self._write_ours(node.name, node.args, frame, f"concat({frame.buffer})")

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        self.write("written(")

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        self.write(")")

    def _write_ours(
        self, name: str, arguments: list[nodes.Expr], frame: Frame, *first: str
    ) -> None:
        names = [frame.symbols.ref(a.name) for a in arguments if isinstance(a, nodes.Name)]
        self.write(f"{name}({', '.join([*first, *names])})")


class _Environment(ImmutableSandboxedEnvironment):
    code_generator_class = Generator


TEMPLATES: Final = _Environment(autoescape=False)
# Nothing of Jinja2's own (range, dict, lipsum, ...) is a name of the language.
TEMPLATES.globals.clear()
