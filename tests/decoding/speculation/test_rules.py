"""The rejection rules, exactly: every draft and every decision enumerated in rationals, and the law of the
text is the model's to the last digit.  Rules that are wrong in known ways are not."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from octavo.decoding.speculation import rules
from octavo.decoding.speculation.rules import Law

VOCABULARY = 3
Text = tuple[int, ...]
LawOf = Callable[[Text], Law]


class Script:
    """Stands for uniform numbers: the outcomes of their comparisons are given, and beyond those all true.

    probability: of what was decided.  open: scripts that decide otherwise where this one was not told.
    """

    def __init__(self, outcomes: list[bool]) -> None:
        self.outcomes = outcomes
        self.place = 0
        self.probability = Fraction(1)
        self.open: list[list[bool]] = []

    def __call__(self) -> Script:
        return self

    def __lt__(self, chance: Fraction) -> bool:
        if chance >= 1 or chance <= 0:
            return chance >= 1
        if self.place == len(self.outcomes):
            self.open.append([*self.outcomes, False])
            self.outcomes.append(True)
        outcome = self.outcomes[self.place]
        self.place += 1
        self.probability *= chance if outcome else 1 - chance
        return outcome


def branches(run: Callable[[rules.Uniform], Any]) -> Iterator[tuple[Fraction, Any]]:
    """Every outcome of a function of comparisons `uniform() < chance`, with its probability."""
    waiting: list[list[bool]] = [[]]
    while waiting:
        script = Script(waiting.pop())
        result = run(script)
        waiting += script.open
        yield script.probability, result


def toy(seed: int) -> LawOf:
    """A law for every text, of small rationals, some of them 0."""

    def law(text: Text) -> Law:
        generator = np.random.default_rng([seed, *text, 99])
        weights = generator.integers(0, 5, VOCABULARY)
        weights[generator.integers(VOCABULARY)] += 1
        return np.array([Fraction(int(w), int(weights.sum())) for w in weights], object)

    return law


def text_law(model: LawOf, length: int) -> dict[Text, Fraction]:
    laws: dict[Text, Fraction] = {(): Fraction(1)}
    for _ in range(length):
        laws = {(*t, x): p * model(t)[x] for t, p in laws.items() for x in range(VOCABULARY) if model(t)[x]}
    return laws


def completed(model: LawOf, emitted: dict[Text, Fraction], length: int) -> dict[Text, Fraction]:
    """Texts of one length: what was emitted, cut, or gone on with as the model does."""
    total: dict[Text, Fraction] = defaultdict(Fraction)
    for text, probability in emitted.items():
        for rest, chance in text_law(
            lambda t, text=text: model((*text, *t)), max(length - len(text), 0)
        ).items():  # type: ignore[misc]
            total[(*text, *rest)[:length]] += probability * chance
    return dict(total)


def distance(a: dict[Text, Fraction], b: dict[Text, Fraction]) -> Fraction:
    return sum((abs(a.get(t, Fraction(0)) - b.get(t, Fraction(0))) for t in {*a, *b}), Fraction(0)) / 2


Rule = Callable[[Sequence[Law], Sequence[Law], Sequence[int], rules.Uniform], tuple[int, Law]]


def by_token(
    models: Sequence[Law], drafts: Sequence[Law], tokens: Sequence[int], uniform: rules.Uniform
) -> tuple[int, Law]:
    """The rule for trees on a chain: how many tokens to keep."""
    node, law = rules.keep_token_by_token(models, drafts, tokens, range(-1, len(tokens) - 1), uniform)
    return node + 1, law


RULES: tuple[Rule, Rule] = (by_token, rules.keep_block)


def whole(text: Text) -> Text:
    return text


def chain_law(
    model: LawOf,
    draft: LawOf,
    rule: Rule,
    length: int,
    claimed: LawOf | None = None,
    cut: Callable[[Text], Text] = whole,
) -> dict[Text, Fraction]:
    """The law of a text's first tokens after one step with drafted chains; the rule is told `claimed`, and
    what `cut` leaves of a chain."""
    emitted: dict[Text, Fraction] = defaultdict(Fraction)
    for drafted, drawn in text_law(draft, length).items():
        tokens = cut(drafted)
        models = [model(tokens[:n]) for n in range(len(tokens) + 1)]
        drafts = [(claimed or draft)(tokens[:n]) for n in range(len(tokens))]
        for probability, (kept, law) in branches(lambda u, a=(models, drafts, tokens): rule(*a, u)):  # type: ignore[misc]
            for token in range(VOCABULARY):
                emitted[(*tokens[:kept], token)] += drawn * probability * law[token]
    return completed(model, emitted, length + 1)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("length", [1, 2, 3])
def test_chains_have_the_models_law_exactly(rule: Rule, length: int) -> None:
    for seed in range(12):
        model, draft = toy(seed), toy(seed + 1000)
        assert distance(chain_law(model, draft, rule, length), text_law(model, length + 1)) == 0


@pytest.mark.parametrize("rule", RULES)
def test_a_chain_may_end_by_what_was_drawn_before(rule: Rule) -> None:
    """The length depends on the tokens, as it does where a draft model stops when it is unsure."""

    def cut(text: Text) -> Text:
        return text[: next((n for n, token in enumerate(text, 1) if token == 1), len(text))]

    for seed in range(12):
        model, draft = toy(seed), toy(seed + 1000)
        assert distance(chain_law(model, draft, rule, 3, cut=cut), text_law(model, 4)) == 0


def families(law: Law, width: int, *, replacement: bool) -> Iterator[tuple[Fraction, tuple[int, ...]]]:
    """The children that a node may get, in the order of their drawing, with their probability."""
    for family in itertools.product(range(VOCABULARY), repeat=width):
        left, probability = law.copy(), Fraction(1)
        for token in family:
            left = rules.normalized(left)
            probability *= left[token]
            if not probability:
                break
            if not replacement:
                left[token] = Fraction(0)
        if probability:
            yield probability, family


def given(law: Law, family: Sequence[int], *, replacement: bool) -> list[Law]:
    """What each child was drawn from, given the ones before."""
    laws = [law]
    for token in family[:-1]:
        left = laws[-1].copy()
        if not replacement:
            left[token] = Fraction(0)
        laws.append(rules.normalized(left))
    return laws


def tree_law(
    model: LawOf, draft: LawOf, width: int, *, replacement: bool, claimed_whole: bool = False
) -> dict[Text, Fraction]:
    """The same with `width` children of the root and of each child."""
    emitted: dict[Text, Fraction] = defaultdict(Fraction)

    def visit(text: Text, reached: Fraction) -> None:
        if len(text) == 2:
            emitted[text] += reached
            return
        for drawn, family in families(draft(text), width, replacement=replacement):

            def keep(uniform: rules.Uniform, family: tuple[int, ...] = family) -> tuple[int | None, Law]:
                told = given(draft(text), family, replacement=replacement or claimed_whole)
                return rules.keep_child(model(text), list(zip(told, family, strict=True)), uniform)

            for chance, (place, law) in branches(keep):
                probability = reached * drawn * chance
                if place is not None:
                    visit((*text, family[place]), probability)
                    continue
                for token in range(VOCABULARY):
                    emitted[(*text, token)] += probability * law[token]

    visit((), Fraction(1))
    return completed(model, emitted, 2)


def guess_law(model: LawOf, draft: LawOf, guess: Text) -> dict[Text, Fraction]:
    """One step with a tree: a drawn chain of two, and a guess without chance beside it where they part."""
    emitted: dict[Text, Fraction] = defaultdict(Fraction)
    for tokens, drawn in text_law(draft, 2).items():
        places: list[Text] = [tokens[:1], tokens]  # the text at each node
        laws, parents = [draft(()), draft(tokens[:1])], [-1, 0]
        for depth in range(1, 3):
            if guess[:depth] not in places:
                above = guess[: depth - 1]
                parents.append(places.index(above) if above else -1)
                places.append(guess[:depth])
                laws.append(np.array([Fraction(int(x == guess[depth - 1])) for x in range(VOCABULARY)]))

        def keep(uniform: rules.Uniform, tree: Any = (places, laws, parents)) -> tuple[int, Law]:
            models = [model(()), *(model(text) for text in tree[0])]
            return rules.keep_token_by_token(
                models, tree[1], [text[-1] for text in tree[0]], tree[2], uniform
            )

        for probability, (node, law) in branches(keep):
            for token in range(VOCABULARY):
                text = () if node < 0 else places[node]
                emitted[(*text, token)] += drawn * probability * law[token]
    return completed(model, emitted, 3)


@pytest.mark.parametrize("guess", [(0, 0), (0, 2), (1, 1), (2, 0)])
def test_a_guess_beside_a_drawn_chain_has_the_models_law_exactly(guess: Text) -> None:
    for seed in range(12):
        model, draft = toy(seed), toy(seed + 1000)
        assert distance(guess_law(model, draft, guess), text_law(model, 3)) == 0


def full_support(seed: int) -> LawOf:
    """A toy law without zeros, so that a family of distinct children always exists."""

    def law(text: Text) -> Law:
        weights = np.random.default_rng([seed, *text, 7]).integers(1, 6, VOCABULARY)
        return np.array([Fraction(int(w), int(weights.sum())) for w in weights], object)

    return law


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("width", [1, 2])
def test_trees_have_the_models_law_exactly(width: int, replacement: bool) -> None:
    for seed in range(5):
        model, draft = full_support(seed), full_support(seed + 1000)
        law = tree_law(model, draft, width, replacement=replacement)
        assert distance(law, text_law(model, 2)) == 0


def test_block_verification_keeps_more() -> None:
    gains = []
    for seed in range(12):
        model, draft = toy(seed), toy(seed + 1000)
        kept = {}
        for rule in RULES:
            total = Fraction(0)
            for tokens, drawn in text_law(draft, 3).items():
                models, drafts = [model(tokens[:n]) for n in range(4)], [draft(tokens[:n]) for n in range(3)]
                for p, (count, _) in branches(lambda u, a=(models, drafts, tokens), r=rule: r(*a, u)):  # type: ignore[misc]
                    total += drawn * p * count
            kept[rule] = total
        gains.append(kept[rules.keep_block] - kept[by_token])
    assert min(gains) >= 0
    assert max(gains) > 0


# Mutants: each is wrong in a way that has been shipped somewhere, and has to be found.


def test_a_wrong_draft_law_is_found() -> None:
    """The draft took its likeliest token, and the rule is told its softmax."""

    def greedy(text: Text) -> Law:
        law = toy(1003)(text)
        return np.array([Fraction(int(i == np.argmax(law))) for i in range(VOCABULARY)], object)

    for rule in RULES:
        law = chain_law(toy(3), greedy, rule, 2, claimed=full_support(1003))
        assert distance(law, text_law(toy(3), 3)) > Fraction(1, 100)


def test_children_without_replacement_against_the_whole_law_are_found() -> None:
    model, draft = full_support(3), full_support(1003)
    law = tree_law(model, draft, 2, replacement=False, claimed_whole=True)
    assert distance(law, text_law(model, 2)) > Fraction(1, 100)


def test_leaving_out_a_token_for_what_it_is_is_found() -> None:
    """As above the chain is cut, but before the token that it is cut for."""

    def cut(text: Text) -> Text:
        return text[: next((n for n, token in enumerate(text) if token == 1), len(text))]

    for rule in RULES:
        assert distance(chain_law(toy(3), toy(1003), rule, 2, cut=cut), text_law(toy(3), 3)) > Fraction(
            1, 100
        )


def test_reused_noise_with_the_ratio_test_is_found() -> None:
    """Draft by Gumbel noise, accept by the ratio, and draw again with the same noise: biased (here in floats,
    with 40,000 draws; the coupling with equality on the same noise is not)."""
    generator = np.random.default_rng(5)
    p, q = np.array([0.1, 0.3, 0.6]), np.array([0.5, 0.1, 0.4])
    count = 40_000
    noise = -np.log(-np.log(generator.random((count, 3))))
    drafted, own = (np.log(q) + noise).argmax(1), (np.log(p) + noise).argmax(1)
    accepted = generator.random(count) < np.minimum(1, p / q)[drafted]
    left = np.log(np.maximum(p - q, 1e-300))
    mutant = np.where(accepted, drafted, (left + noise).argmax(1))

    def statistic(tokens: np.ndarray) -> float:
        seen = np.bincount(tokens, minlength=3)
        return float(((seen - count * p) ** 2 / (count * p)).sum())

    assert statistic(mutant) > 50
    assert statistic(own) < 13.9  # 2 degrees of freedom, p = 0.001
