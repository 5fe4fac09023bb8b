//! The logarithm to base 2.
//!
//! Method: the natural logarithm in two terms, times `1 / ln 2` in two terms.

use super::ln::ln_parts;
use crate::float::Float;
use crate::lanes::Lanes;
use crate::simd::Simd;

/// What the logarithm to base 2 needs to know of a type.
pub trait Log2Constants: Sized + 'static {
    /// `1 / ln 2 - LOG2_E`, rounded.
    const LOG2_E_LOW: Self;
}

impl Log2Constants for f32 {
    const LOG2_E_LOW: Self = 1.925_963e-8;
}

impl Log2Constants for f64 {
    const LOG2_E_LOW: Self = 2.035_527_374_093_103_3e-17;
}

/// `log2 x`.
///
/// All `x`: powers of two give whole numbers, +-0 give -Inf, +Inf gives +Inf; what is less than 0, and NaN, give NaN.
#[inline(always)]
pub(crate) fn log2<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    let (hi, lo) = ln_parts(x, x.all(T::zero()));
    let (product, error) = hi.two_mul(x.all(T::LOG2_E));
    let result = product + hi.mul_add(x.all(T::LOG2_E_LOW), lo.mul_add(x.all(T::LOG2_E), error));
    hi.abs().lt(x.all(T::infinity())).select(result, hi)
}
