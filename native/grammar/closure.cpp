#include "grammar/closure.h"

#include <algorithm>
#include <string>

#include "grammar/errors.h"
#include "grammar/work.h"

namespace octavo::grammar {

namespace {
constexpr std::size_t kFew = 16;
std::uint64_t packed(const Pair& pair) {
  return std::uint64_t(std::uint32_t(pair.position)) << 32 | std::uint32_t(pair.continuation);
}
}  // namespace

std::pair<std::vector<Pair>, std::vector<int>> Closure::run(const std::vector<Pair>& pairs) {
  for (const Pair& pair : pairs) add(pair.position, pair.continuation);
  while (!work_.empty()) {
    const auto [index, context] = work_.back();
    work_.pop_back();
    const Position& position = automaton_.expand(index);
    if (position.ending != kNoLabel) end(context, position.ending);
    const std::vector<Call>& calls = automaton_.calls(position);
    for (const Call& call : calls) {
      if (call.returning == kNoReturn) add(call.callee, context);
      else this->call(call.callee, call.returning, context);
    }
  }
  std::vector<Pair> kernel;
  for (const Pair& pair : order_)
    if (!automaton_.position(pair.position).silent) kernel.push_back({pair.position, resolve(pair.continuation)});
  std::sort(kernel.begin(), kernel.end());
  kernel.erase(std::unique(kernel.begin(), kernel.end()), kernel.end());
  std::sort(endings_.begin(), endings_.end());
  return {std::move(kernel), std::move(endings_)};
}

void Closure::add(int position, int context) {
  const Pair pair{position, context};
  if (order_.size() < kFew) {
    if (std::find(order_.begin(), order_.end(), pair) != order_.end()) return;
  } else {
    if (many_.empty())
      for (const Pair& known : order_) many_.insert(packed(known));
    if (!many_.insert(packed(pair)).second) return;
  }
  if (order_.size() >= automaton_.limits().max_pairs)
    throw TooComplex("the grammar is too ambiguous: over " + std::to_string(automaton_.limits().max_pairs) +
                     " readings at once");
  Allowance::spend(kPairCost);
  order_.push_back(pair);
  work_.push_back(pair);
}

void Closure::call(int callee, int returning, int context) {
  const int name = -1 - callee;
  Callers& callers = callers_[name];
  const Frame frame{returning, context};
  if (std::find(callers.frames.begin(), callers.frames.end(), frame) != callers.frames.end()) return;
  callers.frames.push_back(frame);
  const std::vector<int> ended = callers.ended;
  for (int label : ended) resume(returning, context, label);
  add(callee, name);
}

void Closure::end(int context, int label) {
  if (context == kRoot) {
    if (std::find(endings_.begin(), endings_.end(), label) == endings_.end()) endings_.push_back(label);
  } else if (context > 0) {
    std::vector<Pair> after;
    automaton_.pop(context, label, after);
    for (const Pair& pair : after) add(pair.position, pair.continuation);
  } else {
    Callers& callers = callers_[context];
    if (std::find(callers.ended.begin(), callers.ended.end(), label) != callers.ended.end()) return;
    callers.ended.push_back(label);
    const std::vector<Frame> frames = callers.frames;
    for (const Frame& frame : frames) resume(frame.returning, frame.continuation, label);
  }
}

void Closure::resume(int returning, int context, int label) {
  const int target = automaton_.resume(returning, label);
  if (target >= 0) add(target, context);
}

int Closure::resolve(int context) {
  if (context >= 0) return context;
  Callers& callers = callers_.at(context);
  if (callers.resolved >= 0) return callers.resolved;
  if (callers.resolving) throw Unsupported("a rule calls itself before any text (left recursion)");
  callers.resolving = true;
  std::vector<Frame> frames;
  for (std::size_t i = 0; i < callers.frames.size(); ++i) {
    const Frame frame = callers.frames[i];
    frames.push_back({frame.returning, resolve(frame.continuation)});
  }
  callers.resolved = automaton_.continuation(std::move(frames));
  callers.resolving = false;
  return callers.resolved;
}

}  // namespace octavo::grammar
