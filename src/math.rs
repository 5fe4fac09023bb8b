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
//! | [`exp`] | 0.536 | 0.543 |
//! | [`exp2`] | 0.536 | 0.541 |
//! | [`exp_m1`] | 0.552 | 0.528 |
//! | [`ln`] | 0.570 | 0.568 |
//! | [`ln_1p`] | 0.562 | 0.568 |
//! | [`log2`] | 0.567 | 0.584 |
//! | [`tanh`] | 0.777 | 0.601 |
//! | [`sigmoid`] | 0.767 | 0.743 |
//! | [`log_sigmoid`] | 0.989 | 0.818 |
//! | [`softplus`] | 0.972 | 0.873 |
//! | [`erf`] | 1.334 | 1.242 |
//! | [`erfc`] | 0.970 | 1.025 |
//! | [`sqrt`] | 0.500 | 0.500 |
//! | [`gelu`](crate::gelu()) | 1.793 | 1.695 |
//! | [`gelu_tanh`](crate::gelu_tanh()) | 1.086 | 0.969 |
//! | [`silu`](crate::silu()) | 0.828 | 0.782 |
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
pub(crate) mod relative_exp;
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
    + relative_exp::RelativeExpConstants
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
    let (mut sum, pairs) = match (pairs, last) {
        (pairs, &[last]) => (x.all(last), pairs),
        ([pairs @ .., [a, b]], _) => (x.all(*b).mul_add(x, x.all(*a)), pairs),
        ([], _) => unreachable!("a polynomial has coefficients"),
    };
    for &[a, b] in pairs.iter().rev() {
        sum = sum.mul_add(square, x.all(b).mul_add(x, x.all(a)));
    }
    sum
}

/// Nearly `1 / x`, for a normal `x` whose inverse is normal: to 2^-17 in `f32`, 2^-52 in `f64`. For quotients that are
/// corrected by their residue, in less time than a division.
///
/// The difference of the bits is within 2^-4.3 of the inverse (J. F. Blinn, "Floating-point tricks", IEEE Computer Graphics
/// and Applications 17(4), 1997); each step, `y (1 + e + e^2 + e^3)` with `e = 1 - x y`, raises that to the fourth power.
#[inline(always)]
fn near_inverse<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    let one = x.all(T::one());
    let first = T::from(0.949_49_f32).expect("a number"); // as far too small for 1 as others are too large
    let mut y = one.int_add(x.all(first)).int_sub(x);
    for _ in 0..T::FRACTION_BITS / 23 {
        let e = y.mul_add(-x, one);
        y = y.mul_add(e.mul_add(e.mul_add(e, e), e), y);
    }
    y
}

/// The bits of `2^exponent`, also where the field runs over into what is no number: a summand for exponent fields.
#[inline(always)]
fn power_bits<T: Float>(exponent: i32) -> T {
    let field = exponent + T::BIAS;
    T::from_bits(u64::from(field.cast_unsigned()) << T::FRACTION_BITS)
}
