//! The power of two.
//!
//! Method: as [`exp`](super::exp), but that `x = n + r` is split without error, and `r ln 2` is a product in two terms.

use super::exp::{Eighths, Reduced, exp_of_reduced, has_normal_exp};
use crate::float::Float;
use crate::lanes::Lanes;
use crate::simd::Simd;

/// `2^x`.
///
/// All `x`. Whole numbers give exact powers. Overflows to +Inf from the exponent after the greatest on; `2^-Inf = 0`,
/// `2^+Inf = +Inf`, NaN gives NaN. Subnormal results are rounded once.
#[inline(always)]
pub(crate) fn exp2<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    x.share(
        #[inline(always)]
        || {
            let exponent = x * x.all(T::LN2_HIGH);
            let (normal, is_normal) = (Eighths::base_2(x).exp(), has_normal_exp(exponent));
            if is_normal.all() {
                return normal;
            }
            is_normal.select(normal, exp_of_reduced(exponent, Reduced::base_2(x)))
        },
    )
}
