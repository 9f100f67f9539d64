// octavo._native: the native core as Python sees it.  Each family of functions has a file of its own.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

void bind_algebra(nb::module_& module);
void bind_grammar(nb::module_& module);
void bind_model(nb::module_& module);
void bind_sampling(nb::module_& module);
void bind_suffix_automaton(nb::module_& module);
void bind_text(nb::module_& module);
void bind_training(nb::module_& module);

NB_MODULE(_native, module) {
  module.doc() = "octavo's native core: weights, the forward step, the sampler, grammars, kernels of training.";
  // Grammars that modules hold live until the interpreter ends; nanobind would call each of them a leak.
  nb::set_leak_warnings(false);
  bind_algebra(module);
  bind_grammar(module);
  bind_model(module);
  bind_sampling(module);
  bind_suffix_automaton(module);
  bind_text(module);
  bind_training(module);
}
