#include "isa/dispatch.h"

#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "ops/training.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
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

// Whether there is a matrix unit for bytes, and the system lets this process keep its tiles: Linux wants to be asked.
bool find_amx() {
#if defined(__linux__)
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kAll = 1u << 24 | 1u << 25 | 1u << 22;  // tiles, products of bytes, of bfloat16
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (edx & kAll) != kAll) return false;
  constexpr long kAskPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kAskPermission, kTileData) == 0;
#else
  return false;
#endif
}

// Asked once: in a virtual machine each CPUID costs tens of microseconds, and training asks for each operation.
bool has_amx() {
  static const bool found = find_amx();
  return found;
}

}  // namespace
#endif

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> found;
#if defined(__x86_64__)
  if (has_avx512()) {
    if (__builtin_cpu_supports("avx512bf16")) {
      if (has_amx()) found.push_back(amx_kernels());
      found.push_back(avx512_bfloat16_kernels());
    }
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
  if ((wanted.empty() || wanted == "amx") && has_amx()) return amx_training_kernels();
  if (wanted.empty() || wanted == "avx512-bf16") return avx512_bfloat16_training_kernels();
#endif
  return nullptr;
}

}  // namespace octavo
