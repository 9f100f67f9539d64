// One text in the making, and what all texts of one grammar and vocabulary share.
#pragma once

#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "grammar/automaton.h"
#include "grammar/closing.h"
#include "grammar/masks.h"
#include "grammar/vocabulary.h"

namespace octavo::grammar {

struct Engine {
  Engine(Network& network, const Limits& limits, std::shared_ptr<const Vocabulary> words,
         std::shared_ptr<InsideCache> shared, std::size_t budget)
      : vocabulary(words), automaton(network, limits, shared->tables()), masks(automaton, words, shared, budget),
        closings(automaton) {}
  std::shared_ptr<const Vocabulary> vocabulary;
  Automaton automaton;
  MaskMaker masks;
  Closings closings;
  int start = kDead;

  int after(int state, std::string_view text) {
    for (char byte : text) {
      state = automaton.step(state, std::uint8_t(byte));
      if (state == kDead) break;
    }
    return state;
  }
};

class Matcher {
 public:
  explicit Matcher(Engine& engine) : engine_(&engine), states_{engine.start} {}
  int state() const { return states_.back(); }
  bool accept_token(std::int32_t token);
  bool accept_bytes(std::string_view text);
  bool allows(std::int32_t token);
  void fill(std::uint32_t* words, std::size_t count);
  std::string forced_bytes(std::size_t limit);
  // How many tokens may follow, and one of them.
  std::pair<std::size_t, std::int32_t> allowed();
  bool rollback(std::size_t steps);  // false: there are not so many
  std::size_t steps() const { return states_.size() - 1; }
  void reset() {
    states_ = {engine_->start};
    stopped_ = false;
  }
  bool completed() const { return !engine_->automaton.state(state()).endings.empty(); }
  bool terminated() const { return stopped_ || (completed() && engine_->automaton.state(state()).pairs.empty()); }
  bool stopped() const { return stopped_; }
  Engine& engine() const { return *engine_; }

 private:
  Engine* engine_;
  std::vector<int> states_;
  bool stopped_ = false;
};

}  // namespace octavo::grammar
