// Expressions of which no character is the last: whatever comes, some text still matches.  What a pattern asks for
// somewhere in a string can always still come, and a string that is none of a few texts only has to go on.
#include <optional>

#include "grammar/errors.h"
#include "grammar/expressions.h"

namespace octavo::grammar {

namespace {

constexpr std::size_t kFewExpressions = 200;  // looked at for a conjunction, which may be empty

// The most characters of a text, for what is surely finite.
std::optional<std::size_t> longest(Algebra& algebra, int expression) {
  const Term& term = algebra.term(expression);
  if (term.kind == TermKind::epsilon) return 0;
  if (term.kind == TermKind::characters) return 1;
  if (term.kind == TermKind::leaf && term.leaf.kind == LeafKind::texts) return algebra.leaves().longest_text(term.leaf);
  return std::nullopt;
}

}  // namespace

// A part L of an expression such that anything before a text of L gives one of L again: it is in every derivative.
// `empty` where there is none.
int Algebra::lasting_part(int expression) {
  const Term& here = term(expression);
  const auto endless = [&](const Term& part) {
    return part.kind == TermKind::repeat && part.first == any_character && part.third == kUnbounded;
  };
  switch (here.kind) {
    case TermKind::repeat:
      return endless(here) ? expression : empty;
    case TermKind::concat:
      return endless(term(here.first)) && live(here.second) ? expression : empty;
    case TermKind::negation: {
      const std::optional<std::size_t> most = longest(*this, here.first);
      return most ? repeat(any_character, int(*most) + 1, kUnbounded) : empty;
    }
    case TermKind::either: {
      const std::vector<int> members = here.members;
      for (int member : members)
        if (const int part = lasting_part(member); part != empty) return part;
      return empty;
    }
    case TermKind::both: {
      std::vector<int> parts = here.members;
      for (int& part : parts) {
        part = lasting_part(part);
        if (part == empty) return empty;
      }
      return both(parts);
    }
    default:
      return empty;
  }
}

bool Algebra::lasts(int expression) {
  if (lasts_[std::size_t(expression)] < 0) {
    bool found = false;
    try {
      const int part = lasting_part(expression);
      const Term& term = this->term(part);
      found = term.plain || term.nullable ? part != empty
              : live_[std::size_t(part)] >= 0 ? live_[std::size_t(part)] > 0 : search(part, kFewExpressions);
    } catch (const TooComplex&) {  // not easily seen
    }
    lasts_[std::size_t(expression)] = found;
  }
  return lasts_[std::size_t(expression)] > 0;
}

}  // namespace octavo::grammar
