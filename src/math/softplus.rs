//! The logarithm of `1 + e^x`, and of the sigmoid.
//!
//! Method: `max(x, 0) + ln(1 + e^-|x|)` with both functions in two terms, so that the sum is rounded but once.

use super::exp::{Reduced, clamp, with_small_results};
use super::ln_1p::ln_1p_terms;
use crate::float::Float;
use crate::lanes::Lanes;
use crate::simd::Simd;

/// `ln(1 + e^x)`.
///
/// All `x`: `-Inf` gives 0, `+Inf` gives `+Inf`, NaN gives NaN; subnormal results are kept.
#[inline(always)]
pub(crate) fn softplus<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    let zero = x.all(T::zero());
    let negative = -clamp(x, T::EXP_ZERO_BELOW + T::EXP_ZERO_BELOW, -T::EXP_NORMAL_FROM).abs();
    let reduced = Reduced::new(negative, zero);
    let (sum, tail) = reduced.significand();
    let (m, m_low) = sum.fast_two_sum(tail);
    let power = reduced.power();
    let u = with_small_results(negative, reduced, sum, tail, m * power);
    // Of a small exponential the second term has no weight, and 2^n may be no number.
    let low = negative.lt(x.all(T::EXP_NORMAL_FROM)).select(zero, m_low * power);

    let (log, rest) = ln_1p_terms(u, low);
    let (result, error) = x.larger(zero).two_sum(log);
    // Far out the exponential has no weight.
    let is_itself = (-x.all(T::EXP_NORMAL_FROM)).lt(x) | !x.eq(x);
    is_itself.select(x, result + (error + rest))
}

/// `-ln(1 + e^-x)`: the logarithm of the sigmoid.
///
/// All `x`: `-Inf` gives `-Inf`, `+Inf` gives 0, NaN gives NaN; subnormal results are kept.
#[inline(always)]
pub(crate) fn log_sigmoid<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    -softplus(-x)
}
