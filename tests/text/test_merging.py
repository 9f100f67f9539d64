"""The merging loop against the definition, followed slowly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from octavo.text.merging import WordCache, merge


def _merge_slowly(word: str, ranks: dict[str, int]) -> list[str]:
    symbols = list(word)
    while True:
        pairs = [ranks.get(left + right) for left, right in zip(symbols, symbols[1:], strict=False)]
        known = [rank for rank in pairs if rank is not None]
        if not known:
            return symbols
        best = pairs.index(min(known))
        symbols[best : best + 2] = [symbols[best] + symbols[best + 1]]


@given(
    word=st.text(alphabet="abc", max_size=40),
    ranks=st.dictionaries(st.text(alphabet="abc", min_size=2, max_size=6), st.integers(0, 8), max_size=30),
)
def test_merging_takes_the_best_leftmost_pair_each_time(word: str, ranks: dict[str, int]) -> None:
    assert merge(word, lambda left, right: ranks.get(left + right)) == _merge_slowly(word, ranks)


def test_the_cache_is_bounded_and_asks_once() -> None:
    asked: list[str] = []

    def encode(word: str) -> list[int]:
        asked.append(word)
        return [len(word)]

    cache = WordCache(encode)
    assert [cache.ids("ab"), cache.ids("ab")] == [[2], [2]] and asked == ["ab"]
    for index in range(200_000):
        cache.ids(str(index))
    assert len(cache._ids) <= 65_536
    assert cache.ids("x" * 1000) == [1000] and "x" * 1000 not in cache._ids
