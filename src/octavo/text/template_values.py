"""What templates may do with plain values: the string methods, filters and tests, each charged for its work.

Only what is listed exists.  Everything that could make much out of little (replace, join, padding, formats,
sorting) checks its size before it starts.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from octavo.errors import TemplateError
from octavo.text.template_limits import RenderBudget

if TYPE_CHECKING:
    from jinja2.runtime import Context

    from octavo.text.template_sandbox import TemplateEnvironment

_MAX_PATTERN = 256  # characters to strip, or to search for backwards: Python's search is quadratic there
_MAX_INDENT = 64
# A width of three digits, a width taken from an argument, or a format inside a format.
_WIDE_FORMAT = re.compile(r"%[^A-Za-z%]*(?:\d{3}|\*)|\{[^{}]*(?:\d{3}|\{)")
_WIDE_DATE = re.compile(r"%[^A-Za-z%]*\d")
_LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"

STRING_METHODS = frozenset(
    "capitalize casefold count endswith find index isalnum isalpha isdecimal isdigit islower isnumeric "
    "isspace istitle isupper lower partition removeprefix removesuffix startswith swapcase title "
    "upper".split()
)
_BOUNDED_PATTERN = frozenset(("strip", "lstrip", "rstrip", "rsplit", "rpartition", "rfind", "rindex"))
COLLECTION_METHODS: Mapping[type, frozenset[str]] = {
    dict: frozenset(("get", "items", "keys", "values", "copy")),
    list: frozenset(("count", "index", "copy")),
    tuple: frozenset(("count", "index")),
}


def string_method(environment: TemplateEnvironment, text: str, name: str) -> Callable[..., object] | None:
    """The method `name` of a string as templates may call it, or None."""
    budget = environment.budget
    guarded: dict[str, Callable[..., object]] = {
        "replace": lambda *arguments: replace(budget, text, *arguments),
        "join": lambda values: join(budget, values, text),
        "format": lambda *values, **named: format_text(environment, text, values, named),
        "split": lambda *arguments, **named: split(budget, text.split, *arguments, **named),
        "splitlines": lambda keepends=False: _split_lines(budget, text, keepends),
    }
    if name in guarded:
        return guarded[name]
    if name in STRING_METHODS:
        budget.weigh(text)
        method: Callable[..., object] = getattr(text, name)
        return method
    if name in _BOUNDED_PATTERN:
        return lambda *arguments, **named: _bounded(budget, getattr(text, name), arguments, named)
    return None


def replace(budget: RenderBudget, text: str, old: object, new: object, count: int | None = None) -> str:
    """str.replace, refused before it starts if the result would be too big."""
    old, new = printed(budget, old), printed(budget, new)
    found = text.count(old) if count is None or count < 0 else min(text.count(old), count)
    budget.weigh(text)
    budget.allocate(len(text) + found * max(len(new) - len(old), 0))
    return text.replace(old, new, -1 if count is None else count)


def join(budget: RenderBudget, values: Iterable[object], separator: str = "") -> str:
    """str.join over printed values."""
    parts: list[str] = []
    for value in budget.counted(values):
        parts.append(printed(budget, value))
        budget.allocate(64 + len(separator) + len(parts[-1]))
    return separator.join(parts)


def split(budget: RenderBudget, method: Callable[..., list[str]], *arguments: Any, **named: Any) -> list[str]:
    """str.split and str.rsplit with at most `items` cuts."""
    separator, most = (*arguments, None, None)[:2]
    separator = named.get("sep", separator)
    most = named.get("maxsplit", -1 if most is None else most)
    budget.allocate(64 * budget.items if separator is None else 0)
    parts = method(separator, min(most, budget.items) if most >= 0 else budget.items)
    if most < 0 and len(parts) > budget.items:
        raise TemplateError("the chat template splits text into too many parts")
    budget.allocate(sum(map(len, parts)) + 56 * len(parts))
    return parts


def _split_lines(budget: RenderBudget, text: str, keepends: bool) -> list[str]:
    budget.allocate(len(text))
    if sum(map(text.count, _LINE_ENDS)) > budget.items:
        raise TemplateError("the chat template splits text into too many lines")
    return text.splitlines(keepends)


def _bounded(
    budget: RenderBudget, method: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any]
) -> object:
    if any(isinstance(value, str) and len(value) > _MAX_PATTERN for value in (*arguments, *named.values())):
        raise TemplateError(f"the chat template strips or splits by more than {_MAX_PATTERN} characters")
    if method.__name__ == "rsplit":
        return split(budget, method, *arguments, **named)
    return method(*arguments, **named)


def format_text(
    environment: TemplateEnvironment, text: str, values: Sequence[Any], named: Mapping[str, Any]
) -> str:
    """str.format by the sandbox's formatter, without large widths."""
    from jinja2.sandbox import SandboxedFormatter

    _check_format(environment.budget, text, "{", [*values, *named.values()])
    return SandboxedFormatter(environment).vformat(text, tuple(values), named)


def percent_format(budget: RenderBudget, text: str, values: Any) -> str:
    """The % operator on a string."""
    _check_format(budget, text, "%", [values])
    return str(text % values)


def _check_format(budget: RenderBudget, text: str, mark: str, values: Sequence[object]) -> None:
    if _WIDE_FORMAT.search(text):
        raise TemplateError("the chat template formats with a large or computed width")
    budget.allocate(len(text) + text.count(mark) * (128 + sum(map(budget.weigh, values))))


def printed(budget: RenderBudget, value: object) -> str:
    """str(value) for the values that templates print."""
    from jinja2 import Undefined

    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, Undefined, range)):
        return str(value)
    if isinstance(value, (list, tuple, dict)):
        budget.allocate(4 * budget.weigh(value))
        return str(value)
    raise TemplateError(f"the chat template prints a {type(value).__name__}, which is not text")


def to_json(
    budget: RenderBudget,
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Hugging Face's flavour of tojson: readable characters, nothing escaped for HTML."""
    width = len(indent) if isinstance(indent, str) else int(indent or 0)
    if width > _MAX_INDENT or any(len(separator) > _MAX_INDENT for separator in separators or ()):
        raise TemplateError(f"the chat template indents JSON by more than {_MAX_INDENT}")
    budget.allocate(budget.weigh(value) * (2 + width))
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def date_now(pattern: str) -> str:
    """strftime_now of Hugging Face templates."""
    if len(pattern) > _MAX_PATTERN or _WIDE_DATE.search(pattern):
        raise TemplateError("the chat template formats the date with a width")
    return datetime.now().strftime(pattern)


def refuse(budget: RenderBudget, message: object) -> None:
    """raise_exception of Hugging Face templates."""
    raise TemplateError(f"the chat template refuses this conversation: {printed(budget, message):.500}")


def filters(environment: TemplateEnvironment) -> dict[str, Callable[..., Any]]:
    """The filters that templates have, by name.  What they return is charged."""
    table = _value_filters(environment) | _text_filters(environment) | _ordering_filters(environment)
    table |= {"d": table["default"], "count": table["length"], "e": table["escape"]}
    table = {name: _charged(environment, function) for name, function in table.items()}
    return table | _lazy_filters(environment)


def _value_filters(environment: TemplateEnvironment) -> dict[str, Callable[..., Any]]:
    """Filters that never look deeper than the value's own items."""
    from jinja2 import filters as jinja

    functions: dict[str, Callable[..., Any]] = {
        "abs": abs,
        "default": jinja.do_default,
        "first": lambda values: _end(environment, iter(values)),
        "float": jinja.do_float,
        "int": jinja.do_int,
        "items": jinja.do_items,
        "last": lambda values: _end(environment, reversed(values)),
        "length": len,
        "list": lambda values: list(environment.budget.counted(values)),
        "reverse": jinja.do_reverse,
        "round": _round,
        "sum": lambda values, attribute=None, start=0: _sum(
            environment.budget, _attributes(environment, values, attribute), start
        ),
    }

    def sized(function: Callable[..., Any]) -> Callable[..., Any]:
        def apply(value: Any, *arguments: Any, **named: Any) -> Any:
            environment.budget.step(1 + len(value) // 256 if isinstance(value, (str, list, dict)) else 1)
            return function(value, *arguments, **named)

        return apply

    return {name: sized(function) for name, function in functions.items()}


def _text_filters(environment: TemplateEnvironment) -> dict[str, Callable[..., Any]]:
    """Filters on text; any other value is printed first, and that is charged."""
    from jinja2 import filters as jinja

    functions: dict[str, Callable[..., Any]] = {
        "capitalize": lambda budget, text: text.capitalize(),
        "escape": lambda budget, text: html.escape(text),
        "format": lambda budget, text, *values: percent_format(budget, text, values),
        "indent": _indent,
        "lower": lambda budget, text: text.lower(),
        "replace": replace,
        "safe": lambda budget, text: text,
        "string": lambda budget, text: text,
        "title": lambda budget, text: jinja.do_title(text),
        "trim": lambda budget, text, chars=None: _bounded(
            budget, text.strip, [] if chars is None else [chars], {}
        ),
        "upper": lambda budget, text: text.upper(),
    }

    def on_text(function: Callable[..., Any]) -> Callable[..., Any]:
        def apply(value: Any, *arguments: Any, **named: Any) -> Any:
            budget = environment.budget
            text = printed(budget, value)
            budget.weigh(text)
            return function(budget, text, *arguments, **named)

        return apply

    table = {name: on_text(function) for name, function in functions.items()}
    table["join"] = lambda values, separator="", attribute=None: join(
        environment.budget,
        _attributes(environment, values, attribute),
        printed(environment.budget, separator),
    )
    table["tojson"] = lambda value, *arguments, **named: to_json(
        environment.budget, value, *arguments, **named
    )
    return table


def _ordering_filters(environment: TemplateEnvironment) -> dict[str, Callable[..., Any]]:
    """Filters that compare all the values with each other."""
    from jinja2 import filters as jinja

    functions: dict[str, Callable[..., Any]] = {
        "dictsort": jinja.do_dictsort,
        "max": lambda values, *rest, **named: jinja.do_max(environment, values, *rest, **named),
        "min": lambda values, *rest, **named: jinja.do_min(environment, values, *rest, **named),
        "sort": lambda values, *rest, **named: jinja.do_sort(environment, values, *rest, **named),
        "unique": lambda values, *rest, **named: list(jinja.do_unique(environment, values, *rest, **named)),
    }

    def weighed(function: Callable[..., Any]) -> Callable[..., Any]:
        def apply(value: Any, *arguments: Any, **named: Any) -> Any:
            budget = environment.budget
            values = value if isinstance(value, dict) else list(budget.counted(value))
            budget.allocate(2 * budget.weigh(values))  # Jinja keeps a lower-case copy of each
            budget.step(4 * len(values))
            return function(values, *arguments, **named)

        return apply

    return {name: weighed(function) for name, function in functions.items()}


def _charged(environment: TemplateEnvironment, function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(value: Any, *arguments: Any, **named: Any) -> Any:
        return environment.budget.made(function(value, *arguments, **named))

    return apply


def _lazy_filters(environment: TemplateEnvironment) -> dict[str, Callable[..., Any]]:
    """map, select and their kin: generators that ask other filters and tests by name."""
    from jinja2 import filters as jinja
    from jinja2 import pass_context

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        @pass_context
        def apply(context: Context, value: Any, *arguments: Any, **named: Any) -> Any:
            budget = environment.budget
            return budget.counted(function(context, budget.counted(value), *arguments, **named))

        return apply

    return {
        "map": counted(jinja.sync_do_map),
        "reject": counted(jinja.sync_do_reject),
        "rejectattr": counted(jinja.sync_do_rejectattr),
        "select": counted(jinja.sync_do_select),
        "selectattr": counted(jinja.sync_do_selectattr),
    }


def tests(environment: TemplateEnvironment) -> dict[str, Callable[..., bool]]:
    """The tests (`is ...`) that templates have, by name; comparing is charged by size."""
    from jinja2.tests import TESTS

    def weighed(function: Callable[..., Any]) -> Callable[..., bool]:
        def apply(*values: Any) -> bool:
            for value in values:
                environment.budget.weigh(value)
            return bool(function(*values))

        return apply

    free = (
        "defined undefined none string number integer float boolean true false mapping sequence iterable "
        "callable sameas odd even divisibleby"
    ).split()
    compared = "eq == equalto ne != lt < lessthan le <= gt > greaterthan ge >= in".split()
    known = cast("Mapping[str, Callable[..., Any]]", TESTS)
    return {name: known[name] for name in free} | {name: weighed(known[name]) for name in compared}


def _attributes(environment: TemplateEnvironment, values: Any, attribute: str | int | None) -> Any:
    from jinja2.filters import make_attrgetter

    return values if attribute is None else map(make_attrgetter(environment, attribute), values)


def _end(environment: TemplateEnvironment, values: Any) -> object:
    for value in values:
        return value
    return environment.undefined("the first or last of nothing")


def _indent(
    budget: RenderBudget, text: str, width: int | str = 4, first: bool = False, blank: bool = False
) -> str:
    from jinja2.filters import do_indent

    size = len(width) if isinstance(width, str) else int(width)
    if size > _MAX_INDENT:
        raise TemplateError(f"the chat template indents by more than {_MAX_INDENT}")
    budget.allocate((2 + text.count("\n")) * (size + 64) + 2 * len(text))
    return do_indent(text, width, first, blank)


def _round(value: float, precision: int = 0, method: str = "common") -> float:
    from jinja2.filters import do_round

    if abs(precision) > 16:
        raise TemplateError("the chat template rounds to more than 16 digits")
    return do_round(value, precision, method)  # type: ignore[arg-type]


def _sum(budget: RenderBudget, values: Iterable[Any], start: Any) -> int | float:
    total: int | float = start
    for value in budget.counted(values):
        if not isinstance(value, (int, float)) or not isinstance(total, (int, float)):
            raise TemplateError("the chat template sums what are not numbers")
        total = budget.made(total + value)
    return total
