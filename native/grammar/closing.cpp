#include "grammar/closing.h"

#include <queue>

#include "grammar/errors.h"
#include "grammar/work.h"

namespace octavo::grammar {

namespace {
constexpr int kMaxDepth = 1500;
constexpr std::size_t kMaxSearched = 20'000;
constexpr std::size_t kMaxBytes = 4096;  // of an ending: nobody asks for a longer one
constexpr std::size_t kBytesPerStep = 64;

void keep_shorter(std::optional<std::string>& best, const std::optional<std::string>& found) {
  if (found && (!best || found->size() < best->size())) best = found;
}
}  // namespace

std::optional<std::string> Closings::find(int state, std::size_t limit) {
  if (!automaton_.state(state).endings.empty()) return std::string();
  depth_ = 0;
  active_.clear();
  Text best;
  const std::vector<Pair> pairs = automaton_.state(state).pairs;
  for (const Pair& pair : pairs) keep_shorter(best, close(pair.position, pair.continuation));
  return best && best->size() <= limit ? best : std::nullopt;
}

Closings::Text Closings::close(int position, int continuation) {
  const std::optional<Ending> end = ending(position);
  if (!end) return std::nullopt;
  const Text rest = from(continuation, end->label);
  return rest ? Text(end->text + *rest) : std::nullopt;
}

Closings::Text Closings::from(int continuation, int label) {
  if (continuation == kRoot) return std::string();
  const std::uint64_t key = std::uint64_t(std::uint32_t(continuation)) << 32 | std::uint32_t(label);
  const auto known = after_.find(key);
  if (known != after_.end()) return known->second;
  if (++depth_ > kMaxDepth) throw TooComplex("the text nests too deep for a closing to be found");
  std::vector<Pair> pairs;
  automaton_.pop(continuation, label, pairs);
  Text best;
  for (const Pair& pair : pairs) keep_shorter(best, close(pair.position, pair.continuation));
  --depth_;
  after_[key] = best;
  return best;
}

std::optional<Closings::Ending> Closings::ending(int position) {
  const auto known = endings_.find(position);
  if (known != endings_.end()) return known->second;
  if (active_.contains(position)) return std::nullopt;
  if (++depth_ > kMaxDepth) throw TooComplex("the text nests too deep for a closing to be found");
  active_.insert(position);
  const std::optional<Ending> found = search(position);
  active_.erase(position);
  --depth_;
  // What was found while another rule was closed to us may be missing: it is kept only if good.
  if (found || active_.empty()) endings_[position] = found;
  return found;
}

std::optional<Closings::Ending> Closings::search(int start) {
  struct Item {
    std::size_t cost, order;
    std::string text;
    int position;
    bool operator>(const Item& other) const {
      return cost != other.cost ? cost > other.cost : order > other.order;
    }
  };
  std::priority_queue<Item, std::vector<Item>, std::greater<>> queue;
  std::unordered_map<int, std::size_t> best{{start, 0}};
  std::size_t order = 0;
  queue.push({0, 0, "", start});
  while (!queue.empty() && best.size() < kMaxSearched) {
    const Item item = queue.top();
    queue.pop();
    if (item.cost > kMaxBytes) return std::nullopt;
    if (item.cost > best[item.position]) continue;
    Allowance::spend(kPairCost + std::int64_t(item.cost / kBytesPerStep));
    const Position& position = automaton_.expand(item.position);
    if (position.ending != kNoLabel) return Ending{item.text, position.ending};
    for (const auto& [more, target] : edges(item.position)) {
      const std::size_t cost = item.cost + more.size();
      const auto [place, is_new] = best.try_emplace(target, cost);
      if (!is_new && cost >= place->second) continue;
      place->second = cost;
      queue.push({cost, ++order, item.text + more, target});
    }
  }
  return std::nullopt;
}

bool Closings::text_edges(const Position& position, std::vector<Edge>& result) {
  const TextPlace place = position.text;
  if (place.mode != Mode::body && !(place.mode == Mode::plain && place.partial == Partial{})) return false;
  const auto follow = [&](int index, const std::string& text) {
    int target = index;
    for (char byte : text) {
      target = automaton_.step_position(target, std::uint8_t(byte));
      if (target < 0) return;
    }
    result.emplace_back(text, target);
  };
  TextPlace copy = place;
  const int index = automaton_.text(copy);
  const bool in_string = place.mode == Mode::body;
  if (in_string) follow(index, "\"");
  const Moves moves = place.algebra->live_moves(place.expression);
  for (const Move& move : moves) {
    const std::uint32_t code = representative(move.low, move.high);
    follow(index, in_string ? written_in_json(code) : utf8(code));
  }
  return true;
}

std::vector<Closings::Edge> Closings::edges(int index) {
  std::vector<Edge> result;
  const Position& position = automaton_.expand(index);
  if (position.kind == Position::Kind::text && text_edges(position, result)) return result;
  if (position.outline && position.outline->stepped && automaton_.network().closing_steps(position.object, result))
    return result;
  if (!position.silent) {
    for (int byte = 0; byte < 256; ++byte) {
      const int target = automaton_.step_position(index, std::uint8_t(byte));
      if (target >= 0) result.emplace_back(std::string(1, char(byte)), target);
    }
  }
  if (!position.outline) return result;
  if (!calls_.contains(position.object)) {
    std::vector<Call> leading;
    if (!automaton_.network().closing_calls(position.object, leading)) leading = position.outline->calls;
    calls_[position.object] = std::move(leading);
  }
  const std::vector<Call> calls = calls_[position.object];
  for (const Call& call : calls) {
    if (call.returning == kNoReturn) {
      result.emplace_back("", call.callee);
      continue;
    }
    const std::optional<Ending> end = ending(call.callee);
    if (!end) continue;
    const int target = automaton_.resume(call.returning, end->label);
    if (target >= 0) result.emplace_back(end->text, target);
  }
  return result;
}

}  // namespace octavo::grammar
