// The suffix automaton; states that Python hands in are its own, and checked all the same.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>

#include <utility>

#include "ops/suffix_automaton.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using octavo::Match;
using octavo::SuffixAutomaton;
using Tokens = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Written = nb::ndarray<std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Pair = std::pair<std::int32_t, std::int32_t>;

Match checked(const SuffixAutomaton& automaton, const Pair& pair) {
  if (pair.first < 0 || pair.first >= automaton.state_count()) throw nb::value_error("a match of another automaton");
  return {pair.first, pair.second};
}

}  // namespace

void bind_suffix_automaton(nb::module_& module) {
  nb::class_<SuffixAutomaton>(module, "SuffixAutomaton")
      .def(nb::init<>())
      .def("extend", [](SuffixAutomaton& self, const Tokens& tokens) {
        for (std::size_t i = 0; i < tokens.size(); ++i) self.extend(tokens.data()[i]);
      }, "tokens"_a)
      .def("repeated", [](const SuffixAutomaton& self) {
        const Match match = self.repeated();
        return Pair{match.state, match.length};
      })
      .def("advance", [](const SuffixAutomaton& self, const Pair& start, const Tokens& tokens) {
        Match match = checked(self, start);
        for (std::size_t i = 0; i < tokens.size(); ++i) match = self.advance(match, tokens.data()[i]);
        return Pair{match.state, match.length};
      }, "match"_a, "tokens"_a)
      .def("continuation", [](const SuffixAutomaton& self, const Pair& match, const Written& tokens) {
        return self.continuation(checked(self, match), std::int32_t(tokens.size()), tokens.data());
      }, "match"_a, "tokens"_a)
      .def("__len__", &SuffixAutomaton::size);
}
