#include "isa/dispatch.h"

#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "ops/training.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace octavo {

#if defined(__x86_64__)
namespace {

bool has_avx512() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
}

// Tiles trap until the system has been asked for their place in what it saves of a thread.
bool may_use_tiles() {
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, of arch/x86/include/uapi/asm/prctl.h
  static const bool allowed = __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
                              syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return allowed;
#else
  return false;
#endif
}

}  // namespace
#endif

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> found;
#if defined(__x86_64__)
  if (has_avx512()) {
    if (__builtin_cpu_supports("avx512bf16")) found.push_back(avx512_bfloat16_kernels());
    found.push_back(avx512_kernels());
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    if (__builtin_cpu_supports("avxvnni")) found.push_back(avx2_vnni_kernels());
    found.push_back(avx2_kernels());
  }
#elif defined(__aarch64__)
#if defined(__linux__)
  constexpr unsigned long kDotProduct = 1ul << 20;  // HWCAP_ASIMDDP
  if (getauxval(AT_HWCAP) & kDotProduct) found.push_back(neon_kernels());
#else
  found.push_back(neon_kernels());
#endif
#endif
  found.push_back(scalar_kernels());
  return found;
}

const Kernels* choose_kernels(const std::string& name) {
  std::string wanted = name;
  if (wanted.empty())
    if (const char* forced = std::getenv("OCTAVO_ISA")) wanted = forced;
  const auto found = available_kernels();
  if (wanted.empty()) return found.front();
  std::string names;
  for (const Kernels* kernels : found) {
    if (wanted == kernels->name) return kernels;
    names += names.empty() ? kernels->name : std::string(", ") + kernels->name;
  }
  throw std::invalid_argument("instruction set '" + wanted + "' is not available here; there are: " + names);
}

const TrainingKernels* training_kernels() {
#if defined(__x86_64__)
  const char* forced = std::getenv("OCTAVO_ISA");
  const std::string_view wanted = forced ? forced : "";
  if (!has_avx512() || !__builtin_cpu_supports("avx512bf16")) return nullptr;
  if ((wanted.empty() || wanted == "amx-bf16") && may_use_tiles()) return amx_training_kernels();
  if (wanted.empty() || wanted == "avx512-bf16") return avx512_bfloat16_training_kernels();
#endif
  return nullptr;
}

}  // namespace octavo
