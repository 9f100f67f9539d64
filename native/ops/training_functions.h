// Functions of float32 for training, whose results are rounded to bfloat16 or summed: fewer instructions than those of
// ops/rows.h, which every instruction set has with the same bits.  Included after vector_avx512.h.
#pragma once
#include <immintrin.h>

namespace octavo {
namespace {

// 1 / x to float32's last bits: an estimate of 14 bits and one step of Newton's, in a third of a division's time.
inline F reciprocal(F x) {
  const F guess = {_mm512_rcp14_ps(x.v)};
  return guess * negative_multiply_add(x, guess, broadcast(2.0f));
}

// e^x = 2^(n + r), |r| <= 1/2, by a polynomial of least error (2e-7).  Within 2^-17 of itself at |x| = 87,
// since x log2(e) is rounded.  Exactly 0 below -104, which masked scores rely on,
// and at most 2^127, which has a reciprocal.
inline F fast_exponential(F x) {
  const F t = minimum(maximum(x * broadcast(1.44269504088896341f), broadcast(-151.0f)), broadcast(127.0f));
  const F n = {_mm512_roundscale_ps(t.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  const F r = t - n;
  F p = broadcast(1.32647269e-03f);
  p = multiply_add(p, r, broadcast(9.67151266e-03f));
  p = multiply_add(p, r, broadcast(5.55073374e-02f));
  p = multiply_add(p, r, broadcast(2.40222421e-01f));
  p = multiply_add(p, r, broadcast(6.93146978e-01f));
  p = multiply_add(p, r, broadcast(1.0f));
  return {_mm512_scalef_ps(p.v, n.v)};
}

}  // namespace
}  // namespace octavo
