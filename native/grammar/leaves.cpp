#include "grammar/leaves.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace octavo::grammar {

namespace {
enum Phase : std::int32_t { kStart, kInteger, kPoint, kFraction };
}  // namespace

Leaf LeafTable::texts(const std::vector<std::u32string>& texts) {
  Texts trie;
  trie.nodes.push_back({0});
  ContentBuilder content(101);
  for (const std::u32string& text : texts) {
    content.add(text.size());
    trie.longest = std::max(trie.longest, text.size());
    for (char32_t character : text) content.add(character);
  }
  trie.content = content.done();
  // Sorted, so that each text's new nodes come last among their siblings; of equal texts the first counts.
  std::vector<std::int32_t> order(texts.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t left, std::int32_t right) {
    return texts[std::size_t(left)] < texts[std::size_t(right)];
  });
  std::vector<std::int32_t> path{0}, last_child{-1};  // the nodes of the text before, and of each the last child
  const std::u32string none, *before = &none;
  for (std::int32_t index : order) {
    const std::u32string& text = texts[std::size_t(index)];
    const auto shared =
        std::size_t(std::mismatch(text.begin(), text.end(), before->begin(), before->end()).first - text.begin());
    path.resize(shared + 1);
    last_child.resize(shared + 1);
    for (std::size_t place = shared; place < text.size(); ++place) {
      const auto made = std::int32_t(trie.nodes.size());
      trie.nodes.push_back({std::uint32_t(text[place])});
      if (last_child.back() < 0) trie.nodes[std::size_t(path.back())].child = made;
      else trie.nodes[std::size_t(last_child.back())].sibling = made;
      last_child.back() = made;
      path.push_back(made);
      last_child.push_back(-1);
    }
    if (trie.nodes[std::size_t(path.back())].index < 0) trie.nodes[std::size_t(path.back())].index = index;
    before = &text;
  }
  texts_.push_back(std::move(trie));
  Leaf leaf;
  leaf.kind = LeafKind::texts;
  leaf.data = std::int32_t(texts_.size()) - 1;
  return leaf;
}

Leaf LeafTable::comparison(bool negative, std::string whole, std::string fraction, int allowed_bits) {
  ContentBuilder content(102);
  content.add(negative).add(std::uint64_t(allowed_bits)).add(whole.size());
  for (char digit : whole + fraction) content.add(std::uint64_t(digit));
  comparisons_.push_back({negative, std::move(whole), std::move(fraction),
                          {(allowed_bits & 1) != 0, (allowed_bits & 2) != 0, (allowed_bits & 4) != 0}, content.done()});
  Leaf leaf;
  leaf.kind = LeafKind::comparison;
  leaf.data = std::int32_t(comparisons_.size()) - 1;
  leaf.sign = 1;
  return leaf;
}

Leaf LeafTable::multiple(std::int64_t modulus, std::int32_t places) {
  multiples_.push_back({modulus, places});
  Leaf leaf;
  leaf.kind = LeafKind::multiple;
  leaf.data = std::int32_t(multiples_.size()) - 1;
  return leaf;
}

int LeafTable::whole_order(const Leaf& leaf) const {
  const auto size = std::int32_t(comparisons_[std::size_t(leaf.data)].whole.size());
  if (leaf.count != size) return leaf.count < size ? -1 : 1;
  return leaf.order;
}

int LeafTable::value_order(const Leaf& leaf) const {
  const Comparison& value = comparisons_[std::size_t(leaf.data)];
  int order = leaf.phase == kInteger ? whole_order(leaf) : leaf.order;
  const auto read = leaf.phase == kInteger ? 0 : leaf.count;
  if (order == 0 && read < std::int32_t(value.fraction.size())) order = -1;
  if (leaf.sign < 0) return value.negative ? -order : -1;
  return value.negative ? 1 : order;
}

bool LeafTable::nullable(const Leaf& leaf) const {
  switch (leaf.kind) {
    case LeafKind::texts:
      return text_index(leaf) >= 0;
    case LeafKind::comparison:
      return (leaf.phase == kInteger || leaf.phase == kFraction) &&
             comparisons_[std::size_t(leaf.data)].allowed[value_order(leaf) + 1];
    case LeafKind::multiple: {
      if (leaf.phase != kInteger && leaf.phase != kFraction) return false;
      const Multiple& value = multiples_[std::size_t(leaf.data)];
      std::int64_t remainder = leaf.state;
      for (std::int32_t place = leaf.count; place < value.places && remainder != 0; ++place)
        remainder = remainder * 10 % value.modulus;
      return remainder % value.modulus == 0;
    }
    case LeafKind::foreign:
      return foreign_.nullable(leaf.data);
  }
  return false;
}

std::vector<LeafMove> LeafTable::moves(const Leaf& leaf) const {
  std::vector<LeafMove> result;
  switch (leaf.kind) {
    case LeafKind::texts: {
      const std::vector<TextsNode>& nodes = texts_[std::size_t(leaf.data)].nodes;
      for (std::int32_t child = nodes[std::size_t(leaf.state)].child; child >= 0; child = nodes[std::size_t(child)].sibling) {
        Leaf after = leaf;
        after.state = child;
        result.push_back({nodes[std::size_t(child)].code, nodes[std::size_t(child)].code, after});
      }
      return result;
    }
    case LeafKind::comparison:
      return comparison_moves(leaf);
    case LeafKind::multiple:
      return multiple_moves(leaf);
    case LeafKind::foreign:
      return foreign_.moves(leaf.data);
  }
  return result;
}

std::vector<LeafMove> LeafTable::comparison_moves(const Leaf& leaf) const {
  const Comparison& value = comparisons_[std::size_t(leaf.data)];
  std::vector<LeafMove> result;
  if (leaf.phase == kStart && leaf.sign > 0) {
    Leaf after = leaf;
    after.sign = -1;
    result.push_back({'-', '-', after});
  }
  if (leaf.phase == kInteger) {
    Leaf after = leaf;
    after.phase = kPoint;
    after.count = 0;
    after.order = whole_order(leaf);
    result.push_back({'.', '.', after});
  }
  const bool before_point = leaf.phase == kStart || leaf.phase == kInteger;
  const std::string& reference = before_point ? value.whole : value.fraction;
  const auto size = std::int32_t(reference.size());
  const int wanted = leaf.count < size ? reference[std::size_t(leaf.count)] - '0' : 0;
  const int bounds[3][2] = {{0, wanted - 1}, {wanted, wanted}, {wanted + 1, 9}};
  for (int order = -1; order <= 1; ++order) {
    const int low = bounds[order + 1][0], high = bounds[order + 1][1];
    if (low > high) continue;
    Leaf after = leaf;
    after.phase = before_point ? kInteger : kFraction;
    after.count = std::min(leaf.count + 1, size + 1);
    after.order = leaf.order != 0 ? leaf.order : order;
    if (before_point && after.count > size) after.order = 1;
    result.push_back({std::uint32_t('0' + low), std::uint32_t('0' + high), after});
  }
  return result;
}

std::vector<LeafMove> LeafTable::multiple_moves(const Leaf& leaf) const {
  const Multiple& value = multiples_[std::size_t(leaf.data)];
  std::vector<LeafMove> result;
  if (leaf.phase == kStart && leaf.sign == 0) {
    Leaf after = leaf;
    after.sign = 1;
    result.push_back({'-', '-', after});
  }
  if (leaf.phase == kInteger) {
    Leaf after = leaf;
    after.phase = kPoint;
    result.push_back({'.', '.', after});
  }
  const bool fractional = leaf.phase == kPoint || leaf.phase == kFraction;
  Leaf after = leaf;
  after.phase = fractional ? kFraction : kInteger;
  if (fractional && leaf.count == value.places) {
    result.push_back({'0', '0', after});
    return result;
  }
  after.count += fractional;
  for (int digit = 0; digit < 10; ++digit) {
    after.state = std::int32_t((std::int64_t(leaf.state) * 10 + digit) % value.modulus);
    result.push_back({std::uint32_t('0' + digit), std::uint32_t('0' + digit), after});
  }
  return result;
}

Content LeafTable::content(const Leaf& leaf) const {
  ContentBuilder content(103 + std::uint64_t(leaf.kind));
  switch (leaf.kind) {
    case LeafKind::texts:
      content.add(texts_[std::size_t(leaf.data)].content);
      break;
    case LeafKind::comparison:
      content.add(comparisons_[std::size_t(leaf.data)].content);
      break;
    case LeafKind::multiple:
      content.add(std::uint64_t(multiples_[std::size_t(leaf.data)].modulus))
          .add(std::uint64_t(multiples_[std::size_t(leaf.data)].places));
      break;
    case LeafKind::foreign:
      content.add(unique_).add(std::uint64_t(leaf.data));
      break;
  }
  for (std::int32_t part : {leaf.state, leaf.sign, leaf.phase, leaf.count, leaf.order})
    content.add(std::uint64_t(std::uint32_t(part)));
  return content.done();
}

}  // namespace octavo::grammar
