//! The vector functions: one file each, with the formula, the range and the largest error above it.
//!
//! They are built from IEEE operations alone, so the bits are the same on every instruction set. Errors are in ULP,
//! units in the last place of the true value.
//!
//! Largest errors met, in ULP, over every 101st input of `f32` and 297,029 inputs of `f64` chosen to hurt, as
//! `cargo run --release --example exhaustive -- --stride 101 --inputs 30000000` measures them (without options it takes all
//! 2^32 inputs, in hours):
//!
//! | function | `f32` | `f64` |
//! |---|---|---|
//! | [`exp`] | 0.544 | 0.541 |
//! | [`exp2`] | 0.546 | 0.541 |
//! | [`exp_m1`] | 0.552 | 0.528 |
//! | [`ln`] | 0.570 | 0.568 |
//! | [`ln_1p`] | 0.562 | 0.568 |
//! | [`log2`] | 0.500 | 0.500 |
//! | [`tanh`] | 0.602 | 0.601 |
//! | [`sigmoid`] | 0.753 | 0.743 |
//! | [`log_sigmoid`] | 0.989 | 0.818 |
//! | [`softplus`] | 0.972 | 0.873 |
//! | [`erf`] | 1.334 | 1.242 |
//! | [`erfc`] | 0.970 | 1.025 |
//! | [`sqrt`] | 0.500 | 0.500 |
//! | [`gelu`](crate::gelu()) | 1.780 | 1.695 |
//! | [`gelu_tanh`](crate::gelu_tanh()) | 0.749 | 0.752 |
//! | [`silu`](crate::silu()) | 0.755 | 0.735 |
//! | [`mish`](crate::mish()) | 4.497 | 3.694 |
//! | [`elu`](crate::elu()) | 0.530 | 0.525 |

use crate::float::Float;
use crate::lanes::Lanes;
use crate::simd::Simd;

mod atan2;
mod erf;
mod exp;
mod exp2;
pub(crate) mod exp_m1;
mod gelu_tanh;
pub(crate) mod ln;
pub(crate) mod ln_1p;
mod log2;
mod mish;
#[cfg(test)]
mod oracle;
mod sigmoid;
pub(crate) mod slices;
mod softplus;
pub(crate) mod tanh;

pub use crate::ops::{log_sigmoid, sigmoid, softplus, tanh};
pub use slices::{Function, erf, erfc, exp, exp_m1, exp2, in_place, ln, ln_1p, log2, sqrt};

pub(crate) use atan2::atan2;
pub(crate) use erf::{gelu, gelu_derivative_times};
pub(crate) use exp::{
    clamp, exp_of_difference, exp_of_sum, exp_parts, has_normal_exp, normal_exp, scale, scaled_product, split_exponent,
};
pub(crate) use gelu_tanh::{gelu_tanh, gelu_tanh_derivative_times};
pub(crate) use ln::ln_parts;
pub(crate) use mish::{mish, mish_derivative_times};
pub(crate) use sigmoid::{sigmoid_derivative_times, sigmoid_times, silu, silu_derivative_times};
pub(crate) use tanh::tanh_derivative_times;

/// What the vector functions need to know of a type; each set stands beside the function that it serves.
pub trait Constants:
    atan2::Atan2Constants
    + erf::ErfConstants
    + exp::ExpConstants
    + gelu_tanh::GeluTanhConstants
    + ln::LnConstants
    + ln_1p::Ln1pConstants
    + log2::Log2Constants
    + tanh::TanhConstants
{
}
impl Constants for f32 {}
impl Constants for f64 {}

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

/// [`polynomial`] in half as many steps that wait for one another: pairs `c[i] + c[i + 1] x` in powers of `x^2`.
#[inline(always)]
fn polynomial_of_pairs<T: Float, S: Simd<T>>(x: Lanes<T, S>, coefficients: &[T]) -> Lanes<T, S> {
    let square = x * x;
    let (pairs, last) = coefficients.as_chunks();
    let mut pairs = pairs.iter().rev().map(|&[a, b]| x.all(b).mul_add(x, x.all(a)));
    let highest =
        last.first().map(|&last| x.all(last)).or_else(|| pairs.next()).expect("a polynomial has coefficients");
    pairs.fold(highest, |sum, pair| sum.mul_add(square, pair))
}

/// The bits of `2^exponent`, also where the field runs over into what is no number: a summand for exponent fields.
#[inline(always)]
fn power_bits<T: Float>(exponent: i32) -> T {
    let field = exponent + T::BIAS;
    T::from_bits(u64::from(field.cast_unsigned()) << T::FRACTION_BITS)
}
