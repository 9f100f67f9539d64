// Sets of characters as sorted, disjoint intervals.
#include <algorithm>

#include "grammar/expressions.h"

namespace octavo::grammar {

namespace {
const Intervals kCodePoints{{0, 0xD7FF}, {0xE000, 0x10FFFF}};
}

Intervals intersect_intervals(const Intervals& left, const Intervals& right) {
  Intervals result;
  for (std::size_t i = 0, j = 0; i < left.size() && j < right.size();) {
    const std::uint32_t low = std::max(left[i].low, right[j].low), high = std::min(left[i].high, right[j].high);
    if (low <= high) result.push_back({low, high});
    if (left[i].high < right[j].high) ++i;
    else ++j;
  }
  return result;
}

Intervals merge_intervals(Intervals intervals) {
  std::sort(intervals.begin(), intervals.end());
  Intervals merged;
  for (const Interval& interval : intervals) {
    if (!merged.empty() && std::uint64_t(interval.low) <= std::uint64_t(merged.back().high) + 1) {
      merged.back().high = std::max(merged.back().high, interval.high);
    } else {
      merged.push_back(interval);
    }
  }
  return intersect_intervals(merged, kCodePoints);
}

Intervals invert_intervals(Intervals intervals) {
  std::sort(intervals.begin(), intervals.end());
  Intervals result;
  std::uint32_t start = 0;
  for (const Interval& interval : intervals) {
    if (interval.low > start) result.push_back({start, interval.low - 1});
    start = std::max(start, interval.high + 1);
  }
  if (start <= 0x10FFFF) result.push_back({start, 0x10FFFF});
  return merge_intervals(std::move(result));
}

}  // namespace octavo::grammar
