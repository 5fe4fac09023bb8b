//! The vector functions: one file each, with the formula, the range and the largest error above it.
//!
//! They are built from IEEE operations alone, so the bits are the same on every instruction set. Errors are in ULP,
//! units in the last place of the true value.
//!
//! Largest errors met, in ULP, and where: over all 2^32 inputs of `f32` and 10^7 inputs of `f64` chosen to hurt, as
//! `cargo run --release --example exhaustive` measures them (an hour of processor time; a function by its name takes some
//! minutes):
//!
//! | function | `f32` | at | `f64` | at |
//! |---|---|---|---|---|
//! | [`exp`] | 0.543 | 87.698868 | 0.544 | -508.813 |
//! | [`exp2`] | 0.542 | 125.54654 | 0.545 | 549.938 |
//! | [`exp_m1`] | 0.574 | 0.3480303 | 0.549 | 0.352358 |
//! | [`ln`] | 0.583 | 1.2685566 | 0.585 | 0.689121 |
//! | [`ln_1p`] | 0.582 | 0.36166868 | 0.588 | -0.319065 |
//! | [`log2`] | 0.577 | 1.3998419 | 0.594 | 1.38154 |
//! | [`tanh`] | 0.788 | 1.8182067 | 0.614 | -0.184713 |
//! | [`sigmoid`] | 0.798 | -18.245975 | 0.778 | -37.7869 |
//! | [`log_sigmoid`] | 0.998 | 16.637302 | 0.986 | 36.7386 |
//! | [`softplus`] | 0.998 | -16.637302 | 0.994 | -36.738 |
//! | [`erf`] | 1.387 | 0.84023547 | 1.446 | 0.855785 |
//! | [`erfc`] | 1.081 | 0.51433122 | 1.138 | 0.515523 |
//! | [`sqrt`] | 0.500 | | 0.500 | |
//! | [`gelu`](crate::gelu()) | 1.972 | -1.3107717 | 1.814 | -0.970408 |
//! | [`gelu_tanh`](crate::gelu_tanh()) | 1.127 | -2.7538702 | 1.027 | -20.7935 |
//! | [`silu`](crate::silu()) | 0.845 | -48.23901 | 0.852 | -37.7891 |
//! | [`mish`](crate::mish()) | 4.652 | -6.7663307 | 4.048 | -11.5912 |
//! | [`elu`](crate::elu()) | 0.539 | -0.28374723 | 0.537 | -0.286813 |

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

/// `1 / x` within 0.51 ULP, for an `x` that [`near_inverse`] takes.
#[inline(always)]
fn inverse<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    let y = near_inverse(x);
    y.mul_add(y.mul_add(-x, x.all(T::one())), y)
}

/// The bits of `2^exponent`, also where the field runs over into what is no number: a summand for exponent fields.
#[inline(always)]
fn power_bits<T: Float>(exponent: i32) -> T {
    let field = exponent + T::BIAS;
    T::from_bits(u64::from(field.cast_unsigned()) << T::FRACTION_BITS)
}
