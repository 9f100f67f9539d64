// What a thing is made of, as 128 bits: equal content in different grammars gives equal hashes, so that what was
// computed for one can be used for the other.  Seeded per process: nobody can prepare two things that collide.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>

namespace octavo::grammar {

struct Content {
  std::uint64_t a = 0, b = 0;
  bool operator==(const Content&) const = default;
  // A sum that does not depend on the order, for sets.
  Content operator+(const Content& other) const { return {a + other.a, b + other.b}; }
};

struct ContentHash {
  std::size_t operator()(const Content& content) const { return std::size_t(content.a); }
};

std::uint64_t content_seed();

inline std::uint64_t mixed(std::uint64_t value) {  // the finalizer of SplitMix64 (Steele, Lea, Flood 2014)
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

class ContentBuilder {
 public:
  explicit ContentBuilder(std::uint64_t kind) : content_{mixed(content_seed() ^ kind), mixed(kind + content_seed())} {}
  ContentBuilder& add(std::uint64_t value) {
    content_.a = mixed(content_.a * 0x9e3779b97f4a7c15ULL + value);
    content_.b = mixed((content_.b ^ value) * 0xd6e8feb86659fd93ULL + content_.a);
    return *this;
  }
  ContentBuilder& add(const Content& content) { return add(content.a).add(content.b); }
  Content done() const { return content_; }

 private:
  Content content_;
};

// A number that no other call gives: the content of what is equal to nothing else.
std::uint64_t unique_number();

}  // namespace octavo::grammar
