// The algebra of expressions as Python holds it: the core's, and the leaves that only Python knows.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

#include "grammar/expressions.h"

struct [[gnu::visibility("hidden")]] AlgebraObject {
  AlgebraObject(int max_expressions, int search_budget);
  octavo::grammar::Leaf leaf_of(nanobind::handle object);

  octavo::grammar::Algebra core;
  nanobind::list foreign;  // Python's leaves by number
  nanobind::dict numbers;
};

std::u32string code_points(nanobind::handle text);
