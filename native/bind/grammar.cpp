// The grammar engine as Python sees it: positions of Python's are numbered, asked for their outline once, and followed
// natively from then on.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "bind/algebra.h"
#include "grammar/matcher.h"
#include "grammar/work.h"

namespace nb = nanobind;
using namespace nb::literals;
namespace g = octavo::grammar;

namespace {

// Objects by number, equal ones by the same.
class Numbered {
 public:
  int number(nb::handle object) {
    PyObject* found = PyDict_GetItemWithError(numbers_.ptr(), object.ptr());
    if (found) return int(PyLong_AsLong(found));
    if (PyErr_Occurred()) throw nb::python_error();
    const int made = int(objects_.size());
    numbers_[object] = made;
    objects_.push_back(nb::borrow(object));
    return made;
  }
  const nb::object& operator[](int index) const { return objects_[std::size_t(index)]; }

 private:
  std::vector<nb::object> objects_;
  nb::dict numbers_;
};

struct VocabularyObject {
  std::shared_ptr<const g::Vocabulary> vocabulary;
};

struct CacheObject {
  std::shared_ptr<g::InsideCache> cache;
};

std::shared_ptr<const g::Vocabulary> vocabulary_of(nb::handle tokens, std::vector<std::int32_t> stops, std::int32_t size) {
  std::vector<std::string> bytes;
  for (nb::handle token : tokens) {
    char* data = nullptr;
    Py_ssize_t length = 0;
    if (PyBytes_AsStringAndSize(token.ptr(), &data, &length) < 0) throw nb::python_error();
    bytes.emplace_back(data, std::size_t(length));
  }
  if (size < 0 || std::size_t(size) < bytes.size()) throw nb::value_error("the vocabulary's size is too small");
  for (std::int32_t token : stops)
    if (token < 0 || token >= size) throw nb::value_error("a stop token is outside the vocabulary");
  return std::make_shared<const g::Vocabulary>(std::move(bytes), std::move(stops), size);
}

class EngineObject final : public g::Network {
 public:
  EngineObject(nb::handle start, const VocabularyObject& vocabulary, const CacheObject& cache, nb::tuple limits,
               std::size_t budget, nb::tuple types)
      : plain_type_(types[0]), string_type_(types[1]),
        max_work_(nb::cast<std::int64_t>(nb::object(limits[4]))),
        engine(*this,
               {nb::cast<std::size_t>(nb::object(limits[0])), nb::cast<std::size_t>(nb::object(limits[1])),
                nb::cast<std::size_t>(nb::object(limits[2])), nb::cast<int>(nb::object(limits[3]))},
               vocabulary.vocabulary, cache.cache, budget) {
    const Turn turn(*this);
    engine.start = engine.automaton.state_of(position(start));
  }

  EngineObject(const EngineObject&) = delete;

  // One call into the engine: alone in it, since a callback into Python may let other threads run, and under its
  // allowance.
  class Turn {
   public:
    explicit Turn(EngineObject& engine) : engine_(engine), lock_(engine.mutex_, std::try_to_lock) {
      if (!lock_.owns_lock()) {
        const nb::gil_scoped_release others_run;
        lock_.lock();
      }
      allowance_.emplace(engine.max_work_);
      before_ = g::Allowance::left();
    }
    ~Turn() { engine_.most_work = std::max(engine_.most_work, before_ - g::Allowance::left()); }
    Turn(const Turn&) = delete;

   private:
    EngineObject& engine_;
    std::unique_lock<std::recursive_mutex> lock_;
    std::optional<g::Allowance> allowance_;
    std::int64_t before_ = 0;
  };

  int position(nb::handle object) {
    const PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()));
    if (type == plain_type_.ptr() || type == string_type_.ptr()) {
      const int made = text(object, type == string_type_.ptr());
      if (made >= 0) return made;
    }
    return engine.automaton.object(objects_.number(object));
  }

  g::Outline outline(int number) override {
    const nb::object object = objects_[number];
    const nb::object outline = nb::getattr(object, "outline", nb::none());
    const nb::object whole = outline.is_none() ? nb::none() : nb::object(outline());
    g::Outline result;
    if (whole.is_none()) {
      result.stepped = true;
      result.ending = label_or_none(object.attr("ending")());
      result.silent = nb::cast<bool>(nb::getattr(object, "silent", nb::bool_(false)));
      result.calls = calls(object.attr("calls")());
      return result;
    }
    const nb::tuple parts = nb::cast<nb::tuple>(whole);
    result.ending = label_or_none(parts[0]);
    result.layout = nb::cast<int>(nb::object(parts[1]));
    result.moves = moves(parts[2]);
    result.tight = moves(parts[3]);
    result.calls = calls(parts[4]);
    result.silent = result.layout == 0 && result.moves.empty() && result.tight.empty();
    return result;
  }

  int step(int number, std::uint8_t byte) override { return position_or_dead(objects_[number].attr("step")(byte)); }

  int resume(int returning, int label) override {
    return position_or_dead(returns_[returning].attr("resume")(label));
  }

  int label(int labeler, int text_index, std::uint32_t classes, const std::u32string* captured) override {
    nb::object text = nb::none();
    if (captured) {
      text = nb::steal(PyUnicode_FromKindAndData(PyUnicode_4BYTE_KIND, captured->data(), Py_ssize_t(captured->size())));
      if (!text.is_valid()) throw nb::python_error();
    }
    return nb::cast<int>(labelers_[labeler].attr("native_label")(text_index, classes, text));
  }

  bool closing_calls(int number, std::vector<g::Call>& leading) override {
    const nb::object known = nb::getattr(objects_[number], "closing_calls", nb::none());
    if (known.is_none()) return false;
    leading = calls(known());
    return true;
  }

  bool closing_steps(int number, std::vector<std::pair<std::string, int>>& steps) override {
    const nb::object known = nb::getattr(objects_[number], "closing_steps", nb::none());
    const nb::object found = known.is_none() ? nb::none() : nb::object(known());
    if (found.is_none()) return false;
    for (nb::handle item : found) {
      const nb::object text = item[0], target = item[1];
      const auto bytes = nb::cast<nb::bytes>(text);
      steps.emplace_back(std::string(bytes.c_str(), bytes.size()), position(target));
    }
    return true;
  }

  nb::object plain_type_, string_type_;

 private:
  static int label_or_none(nb::handle label) { return label.is_none() ? g::kNoLabel : nb::cast<int>(label); }

  int position_or_dead(nb::handle object) { return object.is_none() ? g::kDead : position(object); }

  std::vector<g::Call> calls(nb::handle list) {
    std::vector<g::Call> result;
    for (nb::handle item : list) {
      const nb::object callee = item[0], returning = item[1];
      const int number = position(callee);
      result.push_back({number, returning.is_none() ? g::kNoReturn : returns_.number(returning)});
    }
    return result;
  }

  std::vector<std::pair<std::uint8_t, int>> moves(nb::handle list) {
    std::vector<std::pair<std::uint8_t, int>> result;
    for (nb::handle item : list) {
      const nb::object byte = item[0], target = item[1];
      result.emplace_back(nb::cast<std::uint8_t>(byte), position(target));
    }
    return result;
  }

  // A place in a text of the core's own kind; -1 where only Python knows how it goes on.
  int text(nb::handle object, bool in_string) {
    const nb::object algebra = object.attr("algebra"), watch = object.attr("watch"), partial = object.attr("partial");
    AlgebraObject* known = nullptr;
    if (!nb::try_cast(algebra, known)) return -1;
    g::TextPlace place;
    place.algebra = &known->core;
    place.expression = nb::cast<int>(object.attr("expression"));
    if (place.expression < 0 || place.expression >= known->core.size()) throw nb::index_error("no such expression");
    const nb::object low = partial[0], high = partial[1], left = partial[2];
    place.partial = {nb::cast<std::uint32_t>(low), nb::cast<std::uint32_t>(high), nb::cast<int>(left)};
    constexpr g::Mode kModes[] = {g::Mode::body, g::Mode::before, g::Mode::utf8, g::Mode::escape, g::Mode::hex,
                                  g::Mode::low_escape, g::Mode::low_u, g::Mode::low_hex, g::Mode::closed};
    if (in_string) place.mode = kModes[nb::cast<unsigned>(object.attr("mode")) % 9];
    if (!watch.is_none()) {
      const nb::object seen = watch.attr("native")();
      if (seen.is_none()) return -1;
      const nb::object labeler = seen[0], texts = seen[1], classes = seen[2], captured = seen[3];
      g::Watch made{labelers_.number(labeler), &known->core, nb::cast<int>(texts), {}};
      if (!captured.is_none()) made.captured = engine.automaton.capture(code_points(captured));
      for (nb::handle expression : classes) made.classes.push_back(nb::cast<int>(expression));
      place.watch = engine.automaton.watch(std::move(made));
    }
    kept_.number(algebra);
    return engine.automaton.text(place);
  }

  Numbered objects_, returns_, labelers_, kept_;
  std::recursive_mutex mutex_;
  std::int64_t max_work_;

 public:
  std::int64_t most_work = 0;  // of one call so far
  g::Engine engine;  // last: it goes first
};

using Words = nb::ndarray<std::int32_t, nb::c_contig, nb::device::cpu>;

struct MatcherObject : g::Matcher {
  explicit MatcherObject(EngineObject& engine) : g::Matcher(engine.engine), owner(&engine) {}
  EngineObject* owner;
};

using Turn = EngineObject::Turn;

struct AllowanceObject {
  explicit AllowanceObject(std::int64_t steps) : steps(steps) {}
  std::int64_t steps;
  std::optional<g::Allowance> running;
};

std::uint32_t* row_of(const g::Matcher& self, const Words& words, std::size_t index) {
  const std::size_t needed = self.engine().vocabulary->words(), dimensions = words.ndim();
  const std::size_t width = dimensions == 2 ? words.shape(1) : words.size(), rows = dimensions == 2 ? words.shape(0) : 1;
  if (dimensions < 1 || dimensions > 2 || width < needed)
    throw nb::value_error("the bitmask needs ceil(vocabulary_size / 32) words a row");
  if (dimensions == 2 && index >= rows) throw nb::index_error("the bitmask has no such row");
  auto* row = reinterpret_cast<std::uint32_t*>(words.data()) + (dimensions == 2 ? index * width : 0);
  std::fill(row + needed, row + width, 0);
  return row;
}

void bind_matcher(nb::module_& module) {
  nb::class_<MatcherObject>(module, "GrammarMatcher", "One text in the making.")
      .def(nb::init<EngineObject&>(), nb::keep_alive<1, 2>())
      .def("copy_from", [](MatcherObject& self, const MatcherObject& other) { self = other; })
      .def_prop_ro("state", [](const MatcherObject& self) { return self.state(); })
      .def_prop_ro("stopped", [](const MatcherObject& self) { return self.stopped(); })
      .def_prop_ro("steps", [](const MatcherObject& self) { return self.steps(); })
      .def("accept_token", [](MatcherObject& self, std::int32_t token) {
             const Turn turn(*self.owner);
             return self.accept_token(token);
           },
           "Advance by one token; False, and nothing changes, where it is not allowed.")
      .def("accept_bytes", [](MatcherObject& self, nb::bytes text) {
             const Turn turn(*self.owner);
             return self.accept_bytes({text.c_str(), text.size()});
           },
           "Advance by some bytes, as one step; False, and nothing changes, where they are not allowed.")
      .def("is_token_allowed", [](MatcherObject& self, std::int32_t token) {
        const Turn turn(*self.owner);
        return self.allows(token);
      })
      .def("fill_next_token_bitmask",
           [](MatcherObject& self, const Words& bitmask, std::size_t index) {
             const Turn turn(*self.owner);
             self.fill(row_of(self, bitmask, index), self.engine().vocabulary->words());
             return true;
           },
           "bitmask"_a, "index"_a = 0)
      .def("allowed_count", [](MatcherObject& self) {
             const Turn turn(*self.owner);
             return self.allowed();
           },
           "How many tokens may follow, and one of them (or -1).")
      .def("native_forced_bytes", [](MatcherObject& self, std::size_t limit) {
        const Turn turn(*self.owner);
        const std::string text = self.forced_bytes(limit);
        return nb::bytes(text.data(), text.size());
      })
      .def("longer_token", [](MatcherObject& self, nb::bytes before, nb::bytes tail) {
        const Turn turn(*self.owner);
        const int state = self.engine().after(self.state(), {before.c_str(), before.size()});
        return state != g::kDead && self.engine().masks.longer_token(state, {tail.c_str(), tail.size()});
      })
      .def("roll_back", [](MatcherObject& self, std::size_t steps) { return self.rollback(steps); })
      .def("reset", [](MatcherObject& self) { self.reset(); })
      .def("is_completed", [](const MatcherObject& self) { return self.completed(); })
      .def("is_terminated", [](const MatcherObject& self) { return self.terminated(); })
      .def("closing_bytes", [](MatcherObject& self, std::size_t limit) -> nb::object {
        const Turn turn(*self.owner);
        const std::optional<std::string> found = self.engine().closings.find(self.state(), limit);
        return found ? nb::object(nb::bytes(found->data(), found->size())) : nb::none();
      }, "limit"_a = 4096);
}

}  // namespace

void bind_grammar(nb::module_& module) {
  nb::class_<AllowanceObject>(module, "GrammarAllowance", "A `with` block that ends in an error after so much work.")
      .def(nb::init<std::int64_t>())
      .def("__enter__", [](AllowanceObject& self) { self.running.emplace(self.steps); })
      .def("__exit__", [](AllowanceObject& self, const nb::args&) { self.running.reset(); });
  nb::class_<VocabularyObject>(module, "GrammarVocabulary", "Tokens as a trie.")
      .def("__init__",
           [](VocabularyObject* self, nb::handle tokens, std::vector<std::int32_t> stops, std::int32_t size) {
             new (self) VocabularyObject{vocabulary_of(tokens, std::move(stops), size)};
           })
      .def("split", [](const VocabularyObject& self, nb::bytes text) -> nb::object {
        const std::vector<std::int32_t> tokens = self.vocabulary->split({text.c_str(), text.size()});
        return tokens.empty() && text.size() ? nb::none() : nb::cast(tokens);
      });
  nb::class_<CacheObject>(module, "GrammarCache", "What positions with equal content share, under a budget of bytes.")
      .def("__init__",
           [](CacheObject* self, std::size_t budget) { new (self) CacheObject{std::make_shared<g::InsideCache>(budget)}; })
      .def_prop_ro("bytes", [](const CacheObject& self) { return self.cache->bytes(); })
      .def_prop_ro("entries", [](const CacheObject& self) { return self.cache->entries(); });
  nb::class_<EngineObject>(module, "GrammarEngine", "The automaton and the masks of one grammar over one vocabulary.")
      .def(nb::init<nb::handle, const VocabularyObject&, const CacheObject&, nb::tuple, std::size_t, nb::tuple>())
      .def_prop_ro("states", [](const EngineObject& self) { return self.engine.automaton.states(); })
      .def_prop_ro("positions", [](const EngineObject& self) { return self.engine.automaton.positions(); })
      .def_prop_ro("mask_bytes", [](const EngineObject& self) { return self.engine.masks.bytes(); })
      .def_prop_ro("most_work", [](const EngineObject& self) { return self.most_work; },
                   "Steps of work (native/grammar/work.h) of the call that took most.")
      .def_prop_ro("bytes", [](const EngineObject& self) {
        return self.engine.automaton.bytes() + self.engine.masks.bytes();
      });
  bind_matcher(module);
}
