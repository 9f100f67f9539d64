"""Numbers in JSON as automata over their decimal digits: exact comparisons and exact remainders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal

from octavo.grammar.errors import GrammarTooComplexError
from octavo.grammar.expressions import UNBOUNDED, Algebra

MAX_DIGITS = 400
START, INTEGER, POINT, FRACTION = range(4)


def decimal_of(value: object) -> Decimal:
    """The exact value that the schema wrote; a float is what its shortest decimal says, as writers mean."""
    number = Decimal(repr(value) if isinstance(value, float) else str(value))
    if not number.is_finite() or abs(number.adjusted()) > MAX_DIGITS:
        raise GrammarTooComplexError(f"the number {value} is beyond {MAX_DIGITS} digits")
    return number


def digits_of(value: Decimal) -> tuple[str, str]:
    """The digits of |value| before and after the point; no zeros around them but one before the point."""
    whole, _, fraction = format(abs(value), "f").partition(".")
    return whole.lstrip("0") or "0", fraction.rstrip("0")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Numbers x with sign(x - value) among `allowed`.  Reads -?digits(.digits)?, where -0 does not occur."""

    negative: bool
    whole: str
    fraction: str
    allowed: frozenset[int]
    sign: int = 1
    phase: int = START
    count: int = 0
    order: int = 0  # of the digits read so far against the value's

    def native(self) -> tuple[str, bool, str, str, int] | None:
        if self.phase != START or self.sign < 0:
            return None
        bits = sum(1 << (order + 1) for order in self.allowed)
        return ("comparison", self.negative, self.whole, self.fraction, bits)

    @property
    def nullable(self) -> bool:
        return self.phase in (INTEGER, FRACTION) and self._order_of_value() in self.allowed

    def _order_of_value(self) -> int:
        order = self._whole_order() if self.phase == INTEGER else self.order
        rest = self.fraction if self.phase == INTEGER else self.fraction[self.count :]
        if order == 0 and rest:
            order = -1
        if self.sign < 0:
            return -order if self.negative else -1
        return 1 if self.negative else order

    def _whole_order(self) -> int:
        if self.count != len(self.whole):
            return -1 if self.count < len(self.whole) else 1
        return self.order

    def moves(self) -> Iterator[tuple[int, int, Comparison]]:
        if self.phase == START and self.sign > 0:
            yield 45, 45, replace(self, sign=-1)
        if self.phase == INTEGER:
            yield 46, 46, replace(self, phase=POINT, count=0, order=self._whole_order())
        reference = self.whole if self.phase in (START, INTEGER) else self.fraction
        phase = INTEGER if self.phase in (START, INTEGER) else FRACTION
        wanted = int(reference[self.count]) if self.count < len(reference) else 0
        count = min(self.count + 1, len(reference) + 1)
        for low, high, order in ((0, wanted - 1, -1), (wanted, wanted, 0), (wanted + 1, 9, 1)):
            if low <= high:
                reached = self.order or order
                if phase == INTEGER and count > len(reference):
                    reached = 1
                yield 48 + low, 48 + high, replace(self, phase=phase, count=count, order=reached)


@dataclass(frozen=True, slots=True)
class Multiple:
    """Multiples of modulus / 10**places, by the remainder of the digits read so far."""

    modulus: int
    places: int
    phase: int = START
    signed: bool = False
    remainder: int = 0
    count: int = 0

    def native(self) -> tuple[str, int, int] | None:
        return ("multiple", self.modulus, self.places) if self.phase == START and not self.signed else None

    @property
    def nullable(self) -> bool:
        if self.phase not in (INTEGER, FRACTION):
            return False
        return self.remainder * pow(10, self.places - self.count, self.modulus) % self.modulus == 0

    def moves(self) -> Iterator[tuple[int, int, Multiple]]:
        if self.phase == START and not self.signed:
            yield 45, 45, replace(self, signed=True)
        if self.phase == INTEGER:
            yield 46, 46, replace(self, phase=POINT)
        fractional = self.phase in (POINT, FRACTION)
        phase = FRACTION if fractional else INTEGER
        if fractional and self.count == self.places:
            yield 48, 48, replace(self, phase=phase)
            return
        for digit in range(10):
            remainder = (self.remainder * 10 + digit) % self.modulus
            yield (
                48 + digit,
                48 + digit,
                replace(self, phase=phase, remainder=remainder, count=self.count + fractional),
            )


class NumberLanguage:
    """Predicates of numbers as expressions over their text."""

    def __init__(self, algebra: Algebra) -> None:
        self.algebra = algebra
        digit = algebra.characters([(48, 57)])
        nonzero = algebra.characters([(49, 57)])
        digits = algebra.repeat(digit, 0, UNBOUNDED)
        point, zero = algebra.literal("."), algebra.literal("0")
        whole = algebra.either(zero, algebra.concat(nonzero, digits))
        sign = algebra.optional(algebra.literal("-"))
        exponent = algebra.concat(
            algebra.characters([(69, 69), (101, 101)]),
            algebra.optional(algebra.characters([(43, 43), (45, 45)])),
            algebra.repeat(digit, 1, 4),
        )
        fraction = algebra.concat(point, algebra.repeat(digit, 1, UNBOUNDED))
        #: Everything that JSON can write.
        self.free = algebra.concat(sign, whole, algebra.optional(fraction), algebra.optional(exponent))
        canonical = algebra.concat(point, algebra.either(zero, algebra.concat(digits, nonzero)))
        magnitude = algebra.concat(whole, algebra.optional(canonical))
        zeros = algebra.concat(zero, algebra.optional(algebra.concat(point, zero)))
        negative = algebra.concat(algebra.literal("-"), algebra.both(magnitude, algebra.negate(zeros)))
        #: What comparisons read: no exponent, no -0, no needless zeros at the end.
        self.plain = algebra.either(magnitude, negative)
        no_point = algebra.repeat(algebra.characters([(45, 45), (48, 57)]), 0, UNBOUNDED)
        #: Written without a point.
        self.pointless = algebra.either(zero, algebra.concat(sign, nonzero, digits))
        perhaps_zero = algebra.concat(no_point, algebra.optional(algebra.literal(".0")))
        self.whole = algebra.both(self.plain, perhaps_zero)
        self._all_whole = {self.pointless, perhaps_zero}  # beside `plain`, or by themselves

    def compare(self, value: object, allowed: set[int]) -> int:
        """x with sign(x - value) in `allowed`."""
        number = decimal_of(value)
        whole, fraction = digits_of(number)
        leaf = self.algebra.leaf(Comparison(number < 0, whole, fraction, frozenset(allowed)))
        if not fraction and allowed == {0}:
            self._all_whole.add(leaf)
        return leaf

    def multiple(self, value: object) -> int:
        whole, fraction = digits_of(decimal_of(value))
        modulus = int(whole + fraction)
        if modulus > 999_999:
            raise GrammarTooComplexError(
                f"multipleOf {value} would need {modulus} states; the limit is 999,999"
            )
        leaf = self.algebra.leaf(Multiple(modulus, len(fraction)))
        if not fraction:
            self._all_whole.add(leaf)
        return leaf

    def surely_whole(self, expression: int) -> bool:
        """Whether the form of an expression shows already that only whole numbers match; False: unknown."""
        if expression in self._all_whole:
            return True
        kind, *parts = self.algebra.term(expression)
        if kind == "both":
            return any(self.surely_whole(member) for member in parts[0])
        return kind == "either" and all(self.surely_whole(member) for member in parts[0])
