//! The vector functions: one file each, with the formula, the range and the largest error above it.
//!
//! They are built from IEEE operations alone, so the bits are the same on every instruction set. Errors are in ULP,
//! units in the last place of the true value; those of f32 are measured over all 2^32 inputs unless said otherwise.

use crate::float::Float;
use crate::lanes::Lanes;
use crate::simd::Simd;

mod exp;
mod ln;
mod ln_1p;
#[cfg(test)]
mod oracle;
mod tanh;

pub(crate) use exp::{exp_of_difference, exp_of_sum, exp_parts, scale, scaled_product, split_exponent};
pub(crate) use ln::{ln, ln_parts};
pub(crate) use ln_1p::ln_1p;
pub(crate) use tanh::{tanh, tanh_derivative_times};

/// What the vector functions need to know of a type; each set stands beside the function that it serves.
pub trait Constants: exp::ExpConstants + ln::LnConstants + ln_1p::Ln1pConstants + tanh::TanhConstants {}
impl<T: exp::ExpConstants + ln::LnConstants + ln_1p::Ln1pConstants + tanh::TanhConstants> Constants for T {}

/// `c[0] + c[1] x + c[2] x^2 + ...` (Horner).
#[inline(always)]
fn polynomial<T: Float, S: Simd<T>>(x: Lanes<T, S>, coefficients: &[T]) -> Lanes<T, S> {
    let (&last, rest) = coefficients.split_last().expect("a polynomial has coefficients");
    let mut sum = x.all(last);
    for &coefficient in rest.iter().rev() {
        sum = sum.mul_add(x, x.all(coefficient));
    }
    sum
}

/// The bits of `2^exponent`, also where the field runs over into what is no number: a summand for exponent fields.
#[inline(always)]
fn power_bits<T: Float>(exponent: i32) -> T {
    let field = exponent + T::BIAS;
    T::from_bits(u64::from(field.cast_unsigned()) << T::FRACTION_BITS)
}
