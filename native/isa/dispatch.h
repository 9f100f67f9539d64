// Which instruction sets this machine has, and which one is used.
#pragma once
#include <string>
#include <vector>

#include "ops/kernels.h"

namespace octavo {

// From the best to "scalar".
std::vector<const Kernels*> available_kernels();

// By name; an empty name means OCTAVO_ISA from the environment, or the best.  Throws std::invalid_argument for a name
// that this machine or this build does not have.
const Kernels* choose_kernels(const std::string& name);

}  // namespace octavo
