// octavo._native: the native core as Python sees it.  Each family of functions has a file of its own.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

void bind_model(nb::module_& module);
void bind_sampling(nb::module_& module);
void bind_training(nb::module_& module);

NB_MODULE(_native, module) {
  module.doc() = "octavo's native core: packed weights, the forward step, the sampler, kernels of training.";
  bind_model(module);
  bind_sampling(module);
  bind_training(module);
}
