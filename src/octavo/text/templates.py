"""Chat messages to one prompt, by the template that comes with the model.

This is the only place in octavo that renders a template.  Templates are untrusted: see template_sandbox.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any

from octavo.errors import TemplateError
from octavo.text.template_limits import RenderBudget, TemplateLimits

if TYPE_CHECKING:
    import jinja2

    from octavo.text.template_sandbox import TemplateEnvironment

# For models without a template: ChatML (OpenAI, 2023), the layout that most small models were tuned on.
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_MAX_DEPTH = 64
_RESERVED = frozenset(
    ("messages", "tools", "documents", "add_generation_prompt", "chat_template", "tokenize")
)


class ChatTemplate:
    """A model's chat template.

    source: the Jinja text, as in tokenizer.chat_template of GGUF or chat_template.jinja; None means ChatML.
    tokens: texts of special tokens by name ("bos_token", "eos_token", ...), which templates print.
    Rendered text holds its own beginning token: encode it with add_special=False, parse_special=True.
    Safe to use from several threads.  Raises TemplateError for a template that is not valid or not allowed.
    """

    def __init__(
        self, source: str | None, *, tokens: Mapping[str, str], limits: TemplateLimits | None = None
    ) -> None:
        self.is_fallback: bool = source is None
        self.source: str = CHATML if source is None else source
        self._tokens = dict(tokens)
        self._limits = limits or TemplateLimits()
        if len(self.source) > self._limits.source:
            raise TemplateError(
                f"the chat template has {len(self.source)} characters; at most {self._limits.source} are read"
            )

    @cached_property
    def _compiled(self) -> tuple[TemplateEnvironment, jinja2.Template]:
        from jinja2 import TemplateSyntaxError

        from octavo.text.template_sandbox import TemplateEnvironment

        environment = TemplateEnvironment(self._limits)
        try:
            return environment, environment.from_string(self.source)
        except TemplateError:
            raise
        except TemplateSyntaxError as error:
            raise TemplateError(f"the chat template is not valid at line {error.lineno}: {error}") from error
        except Exception as error:
            raise TemplateError(f"the chat template cannot be compiled: {error!r:.300}") from error

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, object]] | None = None,
        **variables: object,
    ) -> str:
        """The prompt for a conversation.

        messages: JSON-like mappings, usually {"role": ..., "content": ...}.  tools: JSON-like descriptions of
        functions.  variables: what this template knows besides (enable_thinking, ...), JSON-like.
        Raises TemplateError when the template fails, refuses the conversation, or runs over its limits.
        """
        reserved = _RESERVED & variables.keys()
        if reserved:
            raise TemplateError(f"a template variable cannot be called {', '.join(sorted(reserved))}")
        copier = _PlainCopier(self._limits)
        given = {
            **self._tokens,
            "messages": copier.copy(messages),
            "tools": copier.copy(tools),
            "documents": None,
            "add_generation_prompt": bool(add_generation_prompt),
            **{name: copier.copy(value) for name, value in variables.items()},
        }
        environment, template = self._compiled
        environment.budget = RenderBudget(self._limits, copier.characters, copier.values)
        try:
            # Not template.render: on an error that compiles a stand-in for each frame, up to thousands.
            return "".join(template.root_render_func(template.new_context(given)))
        except TemplateError:
            raise
        except Exception as error:
            line = _line(error.__traceback__, template)
            raise TemplateError(f"the chat template failed{line}: {error!s:.300}") from error
        finally:
            environment.budget = None


class _PlainCopier:
    """Copies JSON-like values, so that a template sees no other objects and changes none; counts them."""

    def __init__(self, limits: TemplateLimits) -> None:
        self._limits = limits
        self.characters = 0
        self.values = 0

    def copy(self, value: object, depth: int = 0) -> Any:
        self.values += 1
        if isinstance(value, str):
            self.characters += len(value)
        if self.values > self._limits.input_values or self.characters > self._limits.input_characters:
            raise TemplateError(
                f"the conversation is larger than {self._limits.input_characters} characters "
                f"or {self._limits.input_values} values"
            )
        if depth > _MAX_DEPTH:
            raise TemplateError(f"messages, tools or variables nest deeper than {_MAX_DEPTH}")
        if isinstance(value, str):
            return str(value)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, Mapping):
            return {self._key(key): self.copy(item, depth + 1) for key, item in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
            return [self.copy(item, depth + 1) for item in value]
        raise TemplateError(f"messages, tools and variables must be JSON-like, not {type(value).__name__}")

    def _key(self, key: object) -> str:
        if not isinstance(key, str):
            raise TemplateError(f"the keys of messages, tools and variables must be strings, not {key!r:.80}")
        self.characters += len(key)
        return str(key)


def _line(traceback: TracebackType | None, template: jinja2.Template) -> str:
    """ " at line N", from the innermost frame that is the template's."""
    line = 0
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == "<template>":
            line = template.get_corresponding_lineno(traceback.tb_lineno)
        traceback = traceback.tb_next
    return f" at line {line}" if line else ""
