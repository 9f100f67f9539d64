"""Jinja's immutable sandbox, narrowed to what chat templates need and charged for all work.

The template's syntax tree is rewritten before it is compiled: loops, list literals, comparisons, string
building and plain text go through the budget, so nothing that a template repeats is free.  Names of the inner
filters hold a space, which no template can write.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, cast

from jinja2 import nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace
from jinja2.visitor import NodeTransformer

from octavo.errors import TemplateError
from octavo.text import template_values as values
from octavo.text.template_limits import RenderBudget, TemplateLimits

_COUNT, _MAKE, _WEIGH, _JOIN = "count rounds", "make value", "weigh value", "join text"
_LOOP = frozenset(
    "index index0 first last length previtem nextitem revindex revindex0 depth depth0 cycle changed".split()
)
_MAX_RANGE = 100_000
_MAX_EXPONENT = 64


class _GenerationTag(Extension):
    """{% generation %}: marks the assistant's text for training; here it is a plain scope."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """One environment for one chat template; `budget` is that of the rendering in this thread."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self, limits: TemplateLimits) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[loopcontrols, _GenerationTag],
            optimized=False,  # a constant expression must not be computed uncharged while compiling
            finalize=self._finalize(),
            cache_size=0,
        )
        self._limits = limits
        self._rendering = threading.local()
        self.filters = values.filters(self) | self._inner_filters()
        self.tests = values.tests(self)  # type: ignore[assignment]
        self.globals = {
            "range": self._range,
            "dict": self._dict,
            "namespace": Namespace,
            "cycler": Cycler,
            "joiner": Joiner,
            "raise_exception": lambda message: values.refuse(self.budget, message),
            "strftime_now": values.date_now,
        }

    @property
    def budget(self) -> RenderBudget:
        """Of the rendering that runs in this thread."""
        budget: RenderBudget = self._rendering.budget
        return budget

    @budget.setter
    def budget(self, budget: RenderBudget | None) -> None:
        self._rendering.budget = budget

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        count = sum(1 for _ in tree.find_all(nodes.Node))
        if count > self._limits.nodes:
            raise TemplateError(f"the chat template has {count} parts; at most {self._limits.nodes} are run")
        _Metering().visit(tree)
        tree.set_environment(self)
        return tree

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Attributes by allow-list; a mapping's keys next, as in Jinja."""
        if isinstance(obj, str):
            method = values.string_method(self, obj, attribute)
            return self.undefined(obj=obj, name=attribute) if method is None else method
        if self._is_allowed(obj, attribute):
            return getattr(obj, attribute)
        if isinstance(obj, Mapping):
            return obj.get(attribute, self.undefined(obj=obj, name=attribute))
        if isinstance(obj, Undefined):
            obj._fail_with_undefined_error()
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """obj[argument], an attribute if there is no such item, as in Jinja."""
        if isinstance(argument, tuple):
            self.budget.weigh(argument)
        try:
            return obj[argument]
        except (AttributeError, TypeError, LookupError):
            if isinstance(argument, str):
                return self.getattr(obj, argument)
            return self.undefined(obj=obj, name=argument)

    def _is_allowed(self, obj: Any, attribute: str) -> bool:
        if isinstance(obj, LoopContext):
            return attribute in _LOOP
        if isinstance(obj, Namespace):
            return not attribute.startswith("_") and attribute in object.__getattribute__(
                obj, "_Namespace__attrs"
            )
        if isinstance(obj, Cycler):
            return attribute in ("next", "current", "reset")
        return attribute in values.COLLECTION_METHODS.get(type(obj), ())

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """For the string formatter; the rest goes through getattr above."""
        return False

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Every call of a template: charged, its depth bounded, its result charged."""
        budget = __self.budget
        budget.step()
        if isinstance(__obj, LoopContext):  # recursive loops bring their own values
            args = tuple(map(budget.counted, args))
        elif not isinstance(__obj, Macro):
            for value in (*args, *kwargs.values()):
                budget.weigh(value)
        budget.enter()
        try:
            return budget.made(super().call(__context, __obj, *args, **kwargs))
        finally:
            budget.leave()

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic, with the size of its result known first."""
        budget = self.budget
        budget.step()
        if operator == "+" and isinstance(left, (str, list, tuple)):
            budget.allocate(sys.getsizeof(left) + sys.getsizeof(right))
        elif operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, (str, list, tuple)) and isinstance(other, int):
                    item = sys.getsizeof(one) - sys.getsizeof(type(one)())
                    budget.allocate(max(item, 0) * max(other, 0))
        elif operator == "%" and isinstance(left, str):
            return budget.made(values.percent_format(budget, left, right))
        elif operator == "**" and not -_MAX_EXPONENT <= right <= _MAX_EXPONENT:
            raise TemplateError(f"the chat template raises to a power over {_MAX_EXPONENT}")
        return budget.made(super().call_binop(context, operator, left, right))

    def _inner_filters(self) -> dict[str, Callable[..., Any]]:
        def weigh(value: Any) -> Any:
            self.budget.weigh(value)
            return value

        return {
            _COUNT: lambda loop_values: self.budget.counted(loop_values),
            _MAKE: lambda value: self.budget.made(value),
            _WEIGH: weigh,
            _JOIN: lambda parts: self.budget.made(values.join(self.budget, parts)),
        }

    def _finalize(self) -> Callable[[Context, Any], str]:
        @pass_context  # also keeps Jinja from joining constants while compiling
        def finalize(context: Context, value: Any) -> str:
            text = values.printed(self.budget, value)
            self.budget.step()
            self.budget.allocate(sys.getsizeof(text))
            return text

        return finalize

    def _range(self, *arguments: int) -> range:
        numbers = range(*arguments)
        if len(numbers) > _MAX_RANGE:
            raise TemplateError(f"the chat template counts further than {_MAX_RANGE}")
        return numbers

    def _dict(self, *pairs: Any, **named: Any) -> dict[Any, Any]:
        for value in pairs:
            self.budget.weigh(value)
        return dict(*pairs, **named)


class _Metering(NodeTransformer):
    """Sends what repeats or grows through the budget.  Jinja finds the methods by the names of its nodes."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = _through(_COUNT, node.iter)
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [
            nodes.Const(child.data, lineno=child.lineno) if isinstance(child, nodes.TemplateData) else child
            for child in node.nodes
        ]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through(_JOIN, nodes.List(node.nodes, lineno=node.lineno))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _through(_WEIGH, node.expr)
        for operand in node.ops:
            operand.expr = _through(_WEIGH, operand.expr)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.key = _through(_WEIGH, node.key)  # hashing a tuple of tuples is work too
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through(_MAKE, node) if isinstance(node.arg, nodes.Slice) else node

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through(_MAKE, node)

    visit_Dict = visit_List  # noqa: N815

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through(_MAKE, node) if node.ctx == "load" else node

    def _refuse(self, node: nodes.Node) -> nodes.Node:
        raise TemplateError(f"a chat template cannot use {type(node).__name__.lower()} statements")

    visit_Include = visit_Import = visit_FromImport = visit_Extends = visit_Block = _refuse  # noqa: N815


def _through(name: str, node: nodes.Node) -> nodes.Expr:
    if isinstance(node, nodes.Const):
        return node
    return nodes.Filter(cast(nodes.Expr, node), name, [], [], None, None, lineno=node.lineno)
