"""Templates that try to reach Python, run for ever or eat memory.  Run as a script it renders them all in its own
process and prints one JSON object: name -> [outcome, CPU seconds], and the growth of the peak memory in bytes."""

# ruff: noqa: E501 (a template is easier to read on one line)

from __future__ import annotations

_GROW = "{% set ns = namespace(x={start}) %}{% for i in range({rounds}) %}{% set ns.x = {step} %}{% endfor %}"


def _grow(step: str, start: str = "'a'", rounds: int = 60) -> str:
    text = _GROW.replace("{start}", start).replace("{rounds}", str(rounds)).replace("{step}", step)
    return text + "{{ ns.x }}"


# Reaching for Python's objects: each must fail, or print nothing that it should not.
ESCAPES: dict[str, str] = {
    "class of a string": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "class by item": "{{ ''['__class__']['__mro__'] }}",
    "class by attr filter": "{{ ''|attr('__class__') }}",
    "class by map": "{{ ['a']|map(attribute='__class__')|map(attribute='__mro__')|list|first|first }}",
    "lipsum globals": "{{ lipsum.__globals__['os'].popen('touch canary').read() }}",
    "cycler init": "{{ cycler.__init__.__globals__.os.system('touch canary') }}",
    "joiner init": "{{ joiner.__init__.__globals__['os'].system('touch canary') }}",
    "namespace init": "{{ namespace.__init__.__globals__.os.system('touch canary') }}",
    "instance globals": "{{ cycler('a').__init__.__globals__ }}",
    "range self": "{{ range.__self__._limits }}",
    "raise globals": "{{ raise_exception.__globals__['json'] }}",
    "macro internals": "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "loop internals": "{% for a in [1] %}{{ loop._iterator.gi_frame.f_globals }}{% endfor %}",
    "self reference": "{{ self._TemplateReference__context.environment }}",
    "undefined class": "{{ missing.__class__.__init__.__globals__ }}",
    "undefined internals": "{{ missing._undefined_exception('x') }}",
    "format attribute": "{{ '{0.__class__.__init__.__globals__}'.format(cycler) }}",
    "format of self": "{{ '{0.__class__}'.format('') .upper() ~ ''.__class__.x }}",
    "format_map": "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "messages append": "{{ messages.append(1) }}",
    "dict update": "{{ messages[0].update({'a': 1}) }}",
    "import": "{% import 'os' as os %}{{ os }}",
    "include": "{% include '/etc/passwd' %}",
    "extends": "{% extends 'a' %}",
    "generator frame": "{{ (messages|map('upper')).gi_frame.f_back }}",
    "inner filter": "{{ messages|count rounds }}",
}

# Work without end and memory without bound: each must end in TemplateError.
BOMBS: dict[str, str] = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "nested printing loops": "{% for a in range(9999) %}{% for b in range(9999) %}xxxxxxxx{% endfor %}{% endfor %}",
    "huge range": "{% for a in range(10**12) %}{% endfor %}",
    "range to list": "{{ range(10**9)|list }}",
    "string times": "{{ 'a' * 10**10 }}",
    "times string": "{{ 10**10 * 'a' }}",
    "list times": "{{ [1] * 10**9 }}",
    "tuple times": "{{ (1, 2) * 10**9 }}",
    "double by plus": _grow("ns.x + ns.x"),
    "double by tilde": _grow("ns.x ~ ns.x"),
    "double by join": _grow("[ns.x, ns.x]|join"),
    "double by method join": _grow("ns.x.join([ns.x, ns.x])"),
    "double by format": _grow("'{0}{0}'.format(ns.x)"),
    "double by percent": _grow("'%s%s' % (ns.x, ns.x)"),
    "double by replace": _grow("ns.x.replace('a', 'aa')"),
    "double by replace filter": _grow("ns.x|replace('a', 'aa')"),
    "double by tojson": _grow("[ns.x, ns.x]|tojson"),
    "double by block": (
        "{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}"
        "{% set b %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = b %}{% endfor %}"
    ),
    "double by macro": "{% macro d(x) %}{{ x }}{{ x }}{% endmacro %}" + _grow("d(ns.x)"),
    "double lists": _grow("ns.x + ns.x", "[1]"),
    "list in list printed": _grow("[ns.x, ns.x]", "[1]"),
    "list in list as json": _grow("[ns.x, ns.x]", "[1]").replace("{{ ns.x }}", "{{ ns.x|tojson }}"),
    "list in list as string": _grow("[ns.x, ns.x]", "[1]").replace(
        "{{ ns.x }}", "{{ (ns.x|string)|length }}"
    ),
    "list in list lowered": _grow("[ns.x, ns.x]", "[1]").replace("{{ ns.x }}", "{{ ns.x|lower }}"),
    "list in list titled": _grow("[ns.x, ns.x]", "[1]").replace("{{ ns.x }}", "{{ ns.x|title }}"),
    "list in list escaped": _grow("[ns.x, ns.x]", "[1]").replace("{{ ns.x }}", "{{ ns.x|e }}"),
    "list in list made safe": _grow("[ns.x, ns.x]", "[1]").replace("{{ ns.x }}", "{{ ns.x|safe }}"),
    "list in list trimmed": _grow("[ns.x, ns.x]", "[1]").replace("{{ ns.x }}", "{{ ns.x|trim }}"),
    "list in list replaced": _grow("[ns.x, ns.x]", "[1]").replace(
        "{{ ns.x }}", "{{ ns.x|replace('a', 'b') }}"
    ),
    "list in list searched for": _grow("[ns.x, ns.x]", "[1]").replace(
        "{{ ns.x }}", "{{ 'a'|replace(ns.x, 'b') }}"
    ),
    "list in list as separator": _grow("[ns.x, ns.x]", "[1]").replace(
        "{{ ns.x }}", "{{ [1, 2]|join(ns.x) }}"
    ),
    "list in list joined": _grow("[ns.x, ns.x]", "[1]").replace("{{ ns.x }}", "{{ [ns.x]|join }}"),
    "list in list formatted": _grow("[ns.x, ns.x]", "[1]").replace("{{ ns.x }}", "{{ '{}'.format(ns.x) }}"),
    "list in list by percent": _grow("[ns.x, ns.x]", "[1]").replace("{{ ns.x }}", "{{ '%s' % ns.x }}"),
    "list in list by tilde": _grow("[ns.x, ns.x]", "[1]").replace("{{ ns.x }}", "{{ 'a' ~ ns.x }}"),
    "list in list sorted": _grow("[ns.x, ns.x]", "[1]").replace("{{ ns.x }}", "{{ [ns.x, ns.x]|sort }}"),
    "list in list as message": _grow("[ns.x, ns.x]", "[1]").replace(
        "{{ ns.x }}", "{{ raise_exception(ns.x) }}"
    ),
    "list in list in a list": _grow("[ns.x, ns.x]", "[1]").replace("{{ ns.x }}", "{{ [1] in [ns.x] }}"),
    "list in list indented": _grow("[ns.x, ns.x]", "[1]").replace("{{ ns.x }}", "{{ ns.x|indent }}"),
    "list in list compared": (
        "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
        "{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}"
    ),
    "list in list tested": (
        "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
        "{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x is eq(ns.y) }}"
    ),
    "tuple in tuple hashed": _grow("(ns.x, ns.x)", "(1, 2)").replace("{{ ns.x }}", "{{ {ns.x: 1} }}"),
    "tuple in tuple as key": _grow("(ns.x, ns.x)", "(1, 2)").replace("{{ ns.x }}", "{{ {}[ns.x] }}"),
    "tuple in tuple in get": _grow("(ns.x, ns.x)", "(1, 2)").replace(
        "{{ ns.x }}", "{{ {'a': 1}.get(ns.x) }}"
    ),
    "dict in dict": _grow("{'a': ns.x, 'b': ns.x}", "{}"),
    "power": "{{ 10 ** 10 ** 8 }}",
    "powers multiplied": _grow("ns.x * ns.x", "10 ** 30", 200),
    "center": "{{ 'a'.center(10**10) }}",
    "center filter": "{{ 'a'|center(10**10) }}",
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "zfill": "{{ '1'.zfill(10**10) }}",
    "format width": "{{ '{:1000000000}'.format(1) }}",
    "format nested width": "{{ '{:{}}'.format(1, 10**9) }}",
    "percent width": "{{ '%1000000000d' % 1 }}",
    "percent star": "{{ '%*d' % (10**9, 1) }}",
    "percent filter": "{{ '%1000000000d'|format(1) }}",
    "percent precision": "{{ '%.1000000000f' % 1 }}",
    "indent": "{{ 'a\n'|indent(10**9, true) }}",
    "json indent": "{{ [[1]]|tojson(indent=10**9) }}",
    "round": "{{ 1.5|round(10**9, 'ceil') }}",
    "expandtabs": "{{ '\t'.expandtabs(10**10) }}",
    "strftime width": "{{ strftime_now('%1000000000Y') }}",
    "macro recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "macro tree": "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(50) }}",
    "macro pair": "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
    "recursive loop": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "recursive wide loop": "{% for x in range(99) recursive %}{{ loop(range(99)) }}{% endfor %}",
    "caller recursion": (
        "{% macro m() %}{{ caller() }}{% endmacro %}{% macro n() %}{% call m() %}{{ n() }}{% endcall %}{% endmacro %}"
        "{{ n() }}"
    ),
    "sum of lists": "{{ ([[1]] * 50000)|sum(start=[]) }}",
    "map of lists": "{{ range(99999)|map('list')|list }}{{ ([range(99999)] * 9999)|map('list')|map('length')|sum }}",
    "sort of long strings": ("{% set s = 'a' * 1000000 %}{{ ([s, s ~ 'b'] * 50000)|sort|length }}"),
    "max of long strings": "{% set s = 'a' * 1000000 %}{{ ([s, s ~ 'b'] * 50000)|max|length }}",
    "unique of long strings": "{% set s = 'a' * 1000000 %}{{ ([s, s ~ 'b'] * 50000)|unique|list|length }}",
    "search of long strings": (
        "{% set s = 'a' * 1000000 %}{% set t = s ~ 'b' %}{% set l = [s ~ 'c'] * 90000 %}"
        "{% for i in range(99999) %}{% if t in l %}x{% endif %}{% endfor %}"
    ),
    "backwards search": "{{ ('a' * 4000000).rfind('b' ~ 'a' * 1000000) }}",
    "strip by many": "{{ ('a' * 4000000).strip('b' * 4000000 ~ 'a') }}",
    "split into many": "{{ ('a ' * 8000000).split()|length }}",
    "split by many": "{{ ('a,' * 8000000).split(',')|length }}",
    "lines": "{{ ('\n' * 9000000).splitlines()|length }}",
    "string to list": "{{ ('a' * 9000000)|list|length }}",
    "characters": "{% for c in 'a' * 9000000 %}{% endfor %}",
    "wide characters": _grow("ns.x + ns.x", "'\U0001f600'"),
    "literal in loop": (
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x, ["
        + "1," * 9000
        + "]] %}{% endfor %}"
    ),
    "literal dicts in loop": (
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x, {"
        + ",".join(f"'{i}':1" for i in range(4000))
        + "}] %}{% endfor %}"
    ),
    "text in loop": "{% set x %}{% for i in range(99999) %}"
    + "a" * 100_000
    + "{% endfor %}{% endset %}{{ x }}",
    "text out of loop": "{% for i in range(99999) %}" + "a" * 100_000 + "{% endfor %}",
    "slices in loop": (
        "{% set s = 'a' * 4000000 %}{% set ns = namespace(x=[]) %}"
        "{% for i in range(99999) %}{% set ns.x = [ns.x, s[1:]] %}{% endfor %}"
    ),
    "upper in loop": (
        "{% set s = 'a' * 4000000 %}{% set ns = namespace(x=[]) %}"
        "{% for i in range(99999) %}{% set ns.x = [ns.x, s.upper()] %}{% endfor %}"
    ),
    "namespaces in loop": (
        "{% set ns = namespace(x=0) %}{% for i in range(99999) %}{% for j in range(99999) %}"
        "{% set ns.x = namespace(a=ns.x) %}{% endfor %}{% endfor %}"
    ),
    "cycler in loop": "{% for i in range(99999) %}{% for j in range(99999) %}{{ cycler(1, 2).next() }}{% endfor %}{% endfor %}",
    "printing an object": "{{ namespace() }}",
    "deep parentheses": "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
    "deep lists": "{{ " + "[" * 20_000 + "]" * 20_000 + " }}",
    "deep ifs": "{% if true %}" * 5_000 + "{% endif %}" * 5_000,
    "deep loops": "{% for a in [1] %}" * 300 + "{% endfor %}" * 300,
    "long sum": "{{ " + "1+" * 30_000 + "1 }}",
    "long tilde": "{{ " + "1~" * 30_000 + "1 }}",
    "long attribute": "{{ messages" + ".a" * 30_000 + " }}",
    "many outputs": "{{a}}" * 26_000,
    "many outputs then a bomb": "{{a}}" * 6_600 + "{{ 'a' * 10**10 }}",
    "many statements then a bomb": "{% if a %}a{% endif %}" * 4_900 + "{{ 'a' * 10**10 }}",
    "many macros then a bomb": "{% macro m() %}{% endmacro %}" * 4_500 + "{{ 'a' * 10**10 }}",
    "many loops then a bomb": "{% for a in b %}{{ loop.index }}{% endfor %}" * 2_500 + "{{ 'a' * 10**10 }}",
    "huge number": "{{ " + "9" * 100_000 + " }}",
    "huge source": "a" * 2_000_000,
    "unclosed": "{% for a in " * 5_000,
    "open braces": "{{" * 60_000,
    "open comments": "{#" * 60_000,
    "quotes": "{{ '" + "\\'" * 60_000,
    "undefined filter": "{{ 1|nothing }}",
    "undefined test": "{{ 1 is nothing }}",
}


def _main() -> None:
    import json
    import resource
    import time

    from octavo.errors import TemplateError
    from octavo.text.templates import ChatTemplate

    messages = [{"role": "user", "content": "Hello"}]
    ChatTemplate(None, tokens={}).render(messages)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: dict[str, tuple[str, float]] = {}
    for name, source in {**ESCAPES, **BOMBS}.items():
        begun = time.thread_time()
        try:
            outcome = "printed " + ChatTemplate(source, tokens={}).render(messages)[:200]
        except TemplateError as error:
            outcome = f"TemplateError: {error}"
        outcomes[name] = (outcome, time.thread_time() - begun)
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(json.dumps({"outcomes": outcomes, "growth": growth}))


if __name__ == "__main__":
    _main()
