// octavo._native.Algebra: expressions over characters (octavo/grammar/expressions.py).
#include "bind/algebra.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "grammar/errors.h"

namespace nb = nanobind;
using namespace nb::literals;
namespace g = octavo::grammar;

std::u32string code_points(nb::handle text) {
  std::u32string result;
  const Py_ssize_t size = PyUnicode_GetLength(text.ptr());
  if (size < 0) throw nb::python_error();
  for (Py_ssize_t i = 0; i < size; ++i) result.push_back(char32_t(PyUnicode_ReadChar(text.ptr(), i)));
  return result;
}

namespace {

g::Intervals intervals_of(nb::handle pairs) {
  g::Intervals result;
  for (nb::handle pair : pairs) {
    const nb::object low = pair[0], high = pair[1];
    result.push_back({nb::cast<std::uint32_t>(low), nb::cast<std::uint32_t>(high)});
  }
  return result;
}

int checked(const AlgebraObject& self, int expression) {
  if (expression < 0 || expression >= self.core.size()) throw nb::index_error("there is no such expression");
  return expression;
}

std::vector<int> checked(const AlgebraObject& self, const nb::args& parts) {
  std::vector<int> result;
  for (nb::handle part : parts) result.push_back(checked(self, nb::cast<int>(part)));
  return result;
}

nb::tuple as_tuple(const g::Moves& moves) {
  nb::list result;
  for (const g::Move& move : moves) result.append(nb::make_tuple(move.low, move.high, move.target));
  return nb::tuple(result);
}

nb::tuple term(const AlgebraObject& self, int expression) {
  const g::Term& term = self.core.term(checked(self, expression));
  nb::list members;
  for (int member : term.members) members.append(member);
  for (const g::Interval& interval : term.intervals) members.append(nb::make_tuple(interval.low, interval.high));
  switch (term.kind) {
    case g::TermKind::empty: return nb::make_tuple("empty");
    case g::TermKind::epsilon: return nb::make_tuple("epsilon");
    case g::TermKind::characters: return nb::make_tuple("characters", nb::tuple(members));
    case g::TermKind::leaf: return nb::make_tuple("leaf");
    case g::TermKind::concat: return nb::make_tuple("concat", term.first, term.second);
    case g::TermKind::either: return nb::make_tuple("either", nb::tuple(members));
    case g::TermKind::both: return nb::make_tuple("both", nb::tuple(members));
    case g::TermKind::negation: return nb::make_tuple("not", term.first);
    case g::TermKind::repeat: return nb::make_tuple("repeat", term.first, term.second, term.third);
    case g::TermKind::recursive: return nb::make_tuple("recursive", expression);
  }
  return nb::make_tuple();
}

int literal(AlgebraObject& self, nb::handle text) {
  const std::u32string codes = code_points(text);
  int result = self.core.epsilon;
  for (std::size_t i = codes.size(); i-- > 0;)
    result = self.core.concat(self.core.characters({{std::uint32_t(codes[i]), std::uint32_t(codes[i])}}), result);
  return result;
}

void raise(const char* name, const char* what) {
  const nb::object type = nb::module_::import_("octavo.grammar.errors").attr(name);
  PyErr_SetString(type.ptr(), what);
}

void bind_errors() {
  nb::register_exception_translator([](const std::exception_ptr& error, void*) {
    try {
      std::rethrow_exception(error);
    } catch (const g::TooComplex& problem) {
      raise("GrammarTooComplexError", problem.what());
    } catch (const g::Unsupported& problem) {
      raise("GrammarUnsupportedError", problem.what());
    }
  });
}

}  // namespace

AlgebraObject::AlgebraObject(int max_expressions, int search_budget) : core(max_expressions, search_budget) {
  g::ForeignLeaf callbacks;
  callbacks.nullable = [this](std::int32_t number) { return nb::cast<bool>(foreign[std::size_t(number)].attr("nullable")); };
  callbacks.moves = [this](std::int32_t number) {
    std::vector<g::LeafMove> result;
    const nb::object moves = foreign[std::size_t(number)].attr("moves")();
    for (nb::handle move : moves) {
      const nb::object low = move[0], high = move[1], after = move[2];
      result.push_back({nb::cast<std::uint32_t>(low), nb::cast<std::uint32_t>(high), leaf_of(after)});
    }
    return result;
  };
  core.leaves().set_foreign(std::move(callbacks));
}

g::Leaf AlgebraObject::leaf_of(nb::handle object) {
  // A leaf may say what the core knows by itself: see `native` in octavo/grammar/expressions.py.
  nb::object known = nb::getattr(object, "native", nb::none());
  if (!known.is_none()) {
    const nb::object made = known();
    if (!made.is_none()) {
      const nb::object kind = made[0];
      const std::string name = nb::cast<std::string>(kind);
      const nb::object first = made[1];
      if (name == "texts") {
        std::vector<std::u32string> texts;
        for (nb::handle text : first) texts.push_back(code_points(text));
        return core.leaves().texts(texts);
      }
      const nb::object second = made[2];
      if (name == "multiple") return core.leaves().multiple(nb::cast<std::int64_t>(first), nb::cast<int>(second));
      const nb::object third = made[3], fourth = made[4];
      return core.leaves().comparison(nb::cast<bool>(first), nb::cast<std::string>(second),
                                      nb::cast<std::string>(third), nb::cast<int>(fourth));
    }
  }
  g::Leaf leaf;
  leaf.kind = g::LeafKind::foreign;
  if (numbers.contains(object)) {
    const nb::object number = numbers[object];
    leaf.data = nb::cast<int>(number);
  } else {
    leaf.data = int(nb::len(foreign));
    foreign.append(object);
    numbers[object] = leaf.data;
  }
  return leaf;
}

void bind_algebra(nb::module_& module) {
  bind_errors();
  nb::class_<AlgebraObject>(module, "Algebra", "Regular expressions as hash-consed terms with derivatives.")
      .def(nb::init<int, int>(), "max_expressions"_a = 400'000, "search_budget"_a = 60'000)
      .def_prop_ro("empty", [](const AlgebraObject& self) { return self.core.empty; })
      .def_prop_ro("epsilon", [](const AlgebraObject& self) { return self.core.epsilon; })
      .def_prop_ro("any_character", [](const AlgebraObject& self) { return self.core.any_character; })
      .def_prop_ro("anything", [](const AlgebraObject& self) { return self.core.anything; })
      .def("__len__", [](const AlgebraObject& self) { return self.core.size(); })
      .def("term", &term)
      .def("nullable", [](const AlgebraObject& self, int e) { return self.core.nullable(checked(self, e)); })
      .def("characters", [](AlgebraObject& self, nb::handle pairs) { return self.core.characters(intervals_of(pairs)); })
      .def("literal", &literal)
      .def("leaf", [](AlgebraObject& self, nb::handle leaf) { return self.core.leaf(self.leaf_of(leaf)); })
      .def("concat",
           [](AlgebraObject& self, const nb::args& parts) {
             const std::vector<int> list = checked(self, parts);
             int result = self.core.epsilon;
             for (std::size_t i = list.size(); i-- > 0;) result = self.core.concat(list[i], result);
             return result;
           })
      .def("either", [](AlgebraObject& self, const nb::args& parts) { return self.core.either(checked(self, parts)); })
      .def("both", [](AlgebraObject& self, const nb::args& parts) { return self.core.both(checked(self, parts)); })
      .def("negate", [](AlgebraObject& self, int e) { return self.core.negate(checked(self, e)); })
      .def("repeat",
           [](AlgebraObject& self, int e, int least, int most) { return self.core.repeat(checked(self, e), least, most); })
      .def("optional",
           [](AlgebraObject& self, int e) { return self.core.either({checked(self, e), self.core.epsilon}); })
      .def("recursive", [](AlgebraObject& self, bool nullable) { return self.core.recursive(nullable); })
      .def("define", [](AlgebraObject& self, int name, int e) { self.core.define(checked(self, name), checked(self, e)); })
      .def("moves", [](AlgebraObject& self, int e) { return as_tuple(self.core.moves(checked(self, e))); })
      .def("live_moves", [](AlgebraObject& self, int e) { return as_tuple(self.core.live_moves(checked(self, e))); })
      .def("live", [](AlgebraObject& self, int e) { return self.core.live(checked(self, e)); })
      .def("step", [](AlgebraObject& self, int e, std::uint32_t code) { return self.core.step(checked(self, e), code); })
      .def("matches", [](AlgebraObject& self, int e, nb::handle text) {
        checked(self, e);
        for (char32_t code : code_points(text)) e = self.core.step(e, std::uint32_t(code));
        return self.core.nullable(e);
      });
}
