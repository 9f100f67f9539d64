"""A whole GPT, from the derivative of a product to made-up words, with nothing but the standard library.

Numbers that remember where they came from, a Transformer made of them, Adam, training, sampling.  The rest of
octavo computes the same, faster (models/gpt.py).  Run: python -m octavo.microgpt [FILE of words] [--steps N]
"""

from __future__ import annotations

import argparse
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ANIMALS = """aardvark albatross alligator alpaca anchovy anteater antelope armadillo baboon badger barracuda
cheetah chicken chimpanzee chinchilla cicada clam cobra cockatoo condor cormorant coyote crane cricket
crocodile cuckoo deer dingo dolphin donkey dormouse dove dragonfly eagle earwig echidna eel elephant falcon
grasshopper grouse hamster hare hawk hedgehog heron herring hornet hyena ibex iguana jackal jackdaw jaguar
jellyfish kangaroo kestrel kiwi koala lamprey lapwing lark lemming lemur leopard lizard lobster lynx"""

BLOCK = {f"attention.{name}": (1, 1) for name in ("query", "key", "value", "output")}
BLOCK |= {"feed_forward.up": (4, 1), "feed_forward.down": (1, 4)}  # rows, columns / width


# --- 1. numbers that remember ---
class Scalar:
    """A value, the numbers it was made from, and its slope (partial derivative) in each of them."""

    __slots__ = ("gradient", "parents", "slopes", "value")

    def __init__(self, value: float, parents: Sequence[Scalar] = (), slopes: Sequence[float] = ()) -> None:
        self.value, self.parents, self.slopes, self.gradient = value, parents, slopes, 0.0

    def __mul__(self, other: Scalar) -> Scalar:
        return Scalar(self.value * other.value, (self, other), (other.value, self.value))

    def line(self, slope: float, start: float = 0.0) -> Scalar:
        return Scalar(slope * self.value + start, (self,), (slope,))

    def power(self, exponent: float) -> Scalar:
        return Scalar(self.value**exponent, (self,), (exponent * self.value ** (exponent - 1),))

    def gelu(self) -> Scalar:  # x * P(a normal random number < x), Hendrycks and Gimpel 2016
        chance = 0.5 * (1 + math.erf(self.value / math.sqrt(2)))
        density = math.exp(-0.5 * self.value**2) / math.sqrt(2 * math.pi)
        return Scalar(self.value * chance, (self,), (chance + self.value * density,))

    def backward(self) -> None:
        """The chain rule, without recursion: a number passes its gradient on to its parents when all that
        was made from it have passed on theirs (Kahn 1962 sorts a graph so, by counting)."""
        waiting, found = Counter[Scalar](), [self]
        while found:
            for parent in found.pop().parents:
                waiting[parent] += 1
                if waiting[parent] == 1:
                    found.append(parent)
        self.gradient, ready = 1.0, [self]
        while ready:
            number = ready.pop()
            for parent, slope in zip(number.parents, number.slopes, strict=True):
                parent.gradient += slope * number.gradient
                waiting[parent] -= 1
                if not waiting[parent]:
                    ready.append(parent)


Vector = list[Scalar]
Past = list[tuple[Vector, Vector]]  # the key and the value of each token so far, in one layer


def dot(left: Vector, right: Vector) -> Scalar:
    """Sum of products: one number with many parents, far less work than many numbers with two."""
    x, y = [each.value for each in left], [each.value for each in right]
    return Scalar(sum(a * b for a, b in zip(x, y, strict=True)), left + right, y + x)


def add(left: Vector, right: Vector) -> Vector:
    return [Scalar(x.value + y.value, (x, y), (1.0, 1.0)) for x, y in zip(left, right, strict=True)]


def multiply(rows: list[Vector], vector: Vector) -> Vector:
    return [dot(row, vector) for row in rows]


def softmax(scores: Vector) -> Vector:
    largest = max(score.value for score in scores)  # cancels out, and keeps exp within range
    exps = [math.exp(score.value - largest) for score in scores]
    powers = [Scalar(exp, (score,), (exp,)) for score, exp in zip(scores, exps, strict=True)]
    inverse = Scalar(sum(exps), powers, [1.0] * len(exps)).power(-1)
    return [power * inverse for power in powers]


def normalize(x: Vector) -> Vector:
    """RMSNorm (Zhang and Sennrich 2019) without a gain: scales x to a mean square of 1."""
    inverse = dot(x, x).line(1 / len(x), 1e-5).power(-0.5)
    return [each * inverse for each in x]


# --- 2. the model: as GPT-2 (Radford et al. 2019), but RMSNorm, no biases ---
@dataclass
class MicroGPT:
    """Weights, under the names of octavo.models.gpt.GPT, and what becomes of one more token."""

    vocabulary: int
    generator: random.Random
    context: int = 16  # tokens
    width: int = 16
    heads: int = 4
    layers: int = 1

    def __post_init__(self) -> None:
        width = self.width
        sizes = {"token_embedding": (self.vocabulary, width), "position_embedding": (self.context, width)}
        for layer in range(self.layers):
            sizes |= {f"blocks.{layer}.{name}": (n * width, m * width) for name, (n, m) in BLOCK.items()}
        self.weights = {
            name: [[Scalar(self.generator.gauss(0.0, 0.08)) for _ in range(columns)] for _ in range(rows)]
            for name, (rows, columns) in sizes.items()
        }
        self.parameters = [each for matrix in self.weights.values() for row in matrix for each in row]

    def scores(self, token: int, past: list[Past]) -> Vector:
        """A score for each token that may come next.  past: the keys and values of each layer; they grow."""
        x = add(self.weights["token_embedding"][token], self.weights["position_embedding"][len(past[0])])
        for layer in range(self.layers):
            query, key, value, output, up, down = (self.weights[f"blocks.{layer}.{name}"] for name in BLOCK)
            normal = normalize(x)
            past[layer].append((multiply(key, normal), multiply(value, normal)))
            x = add(x, multiply(output, self.attend(multiply(query, normal), past[layer])))
            x = add(x, multiply(down, [inner.gelu() for inner in multiply(up, normalize(x))]))
        return multiply(self.weights["token_embedding"], normalize(x))

    def attend(self, query: Vector, past: Past) -> Vector:
        """Each head mixes the values of all tokens so far, by how well their keys fit its query."""
        size = self.width // self.heads
        mixed = []
        for head in (slice(start, start + size) for start in range(0, self.width, size)):
            shares = softmax([dot(query[head], key[head]).line(size**-0.5) for key, _ in past])
            mixed += [dot(shares, list(row)) for row in zip(*(value[head] for _, value in past), strict=True)]
        return mixed

    def loss(self, tokens: list[int]) -> Scalar:
        """Mean of -log(the chance that each next token was given): cross-entropy, in nats."""
        past: list[Past] = [[] for _ in range(self.layers)]
        pairs = list(zip(tokens, tokens[1:], strict=False))[: self.context]
        chances = [softmax(self.scores(token, past))[target] for token, target in pairs]
        surprise = -sum(math.log(chance.value) for chance in chances) / len(chances)
        return Scalar(surprise, chances, [-1 / (chance.value * len(chances)) for chance in chances])

    def sample(self, end: int, temperature: float) -> list[int]:
        """Tokens drawn one after the other, up to the end token or the end of the context."""
        tokens = [end]
        past: list[Past] = [[] for _ in range(self.layers)]
        while len(tokens) <= self.context and (len(tokens) == 1 or tokens[-1] != end):
            chances = softmax([score.line(1 / temperature) for score in self.scores(tokens[-1], past)])
            tokens += self.generator.choices(range(self.vocabulary), [each.value for each in chances])
        return [token for token in tokens if token != end]


# --- 3. training: Adam (Kingma and Ba 2015, algorithm 1) ---
def train(model: MicroGPT, documents: list[list[int]], steps: int, peak: float = 0.01) -> None:
    """One document a step, the learning rate falling from peak to 0."""
    first, second = [[0.0] * len(model.parameters) for _ in range(2)]  # means of gradients, of their squares
    for step in range(1, steps + 1):
        loss = model.loss(documents[(step - 1) % len(documents)])
        loss.backward()
        for i, weight in enumerate(model.parameters):
            first[i] = 0.9 * first[i] + 0.1 * weight.gradient
            second[i] = 0.99 * second[i] + 0.01 * weight.gradient**2
            mean, square = first[i] / (1 - 0.9**step), second[i] / (1 - 0.99**step)
            weight.value -= peak * (1 - (step - 1) / steps) * mean / (math.sqrt(square) + 1e-8)
            weight.gradient = 0.0
        if step % 50 == 0 or step == 1:
            print(f"step {step:4d} of {steps}  loss {loss.value:.3f}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train a tiny GPT on words and make up new ones.")
    parser.add_argument("file", nargs="?", type=Path, help="one word a line (default: animals)")
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args(arguments)
    words = (options.file.read_text(encoding="utf-8") if options.file else ANIMALS).split()
    generator = random.Random(1)
    generator.shuffle(words)
    letters = sorted(set("".join(words)))
    end = len(letters)  # one more token, before and after each word
    documents = [[end, *map(letters.index, word), end] for word in words]
    held_out = documents[: max(1, len(documents) // 10)]
    model = MicroGPT(end + 1, generator)
    print(f"{len(words)} words, {len(letters)} letters, {len(model.parameters)} parameters")
    train(model, documents[len(held_out) :], options.steps)
    unseen = sum(model.loss(document).value for document in held_out) / len(held_out)
    print(f"loss on words it has not seen: {unseen:.3f} (knowing nothing: {math.log(end + 1):.3f})")
    print(*("".join(letters[token] for token in model.sample(end, 0.7)) for _ in range(10)), sep="\n")


if __name__ == "__main__":
    main()
