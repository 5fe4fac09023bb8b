//! `x tanh(ln(1 + e^x))`, and its derivative.
//!
//! Method: `tanh(ln(1 + e^x))` is rational in `e^x`; multiplied out by powers of `t = e^-|x|` nothing cancels or
//! overflows (D. Misra, "Mish: A Self Regularized Non-Monotonic Activation Function", 2019, for the function).

use super::exp::{clamp, scaled_product};
use super::inverse;
use super::sigmoid::{Decay, product_with_decay};
use crate::float::Float;
use crate::lanes::{Lanes, Mask};
use crate::simd::Simd;

/// `tanh(ln(1 + e^x))` as a quotient, the numerator of which lacks a factor `t` where `x` is negative:
/// `t (t + 2) / (t^2 + 2t + 2)`, and elsewhere `(1 + 2t) / (1 + 2t + 2t^2)`.
#[inline(always)]
fn quotient<T: Float, S: Simd<T>>(negative: Mask<T, S>, t: Lanes<T, S>) -> (Lanes<T, S>, Lanes<T, S>) {
    let (one, two) = (t.all(T::one()), t.all(T::one() + T::one()));
    let (below, above) = (t + two, t.mul_add(two, one));
    let divisor = negative.select(t.mul_add(below, two), (t * two).mul_add(t, above));
    (negative.select(below, above), divisor)
}

/// `x tanh(ln(1 + e^x))`.
///
/// All `x`: `-Inf` gives 0, `+Inf` gives `+Inf`, NaN gives NaN. Right also where the exponential underflows.
#[inline(always)]
pub(crate) fn mish<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    let zero = x.all(T::zero());
    let Decay { negative, m, n, t } = Decay::new(x, zero);
    let (numerator, divisor) = quotient(negative, t);
    let numerator = negative.select(m, x.all(T::one())) * numerator;
    let result = scaled_product(x, numerator / divisor, negative.select(n, zero));
    x.eq(-x.all(T::infinity())).select(zero, result)
}

/// `g` times the derivative of [`mish`] at `x`: with the numerator `a` and the divisor `d` of its quotient
/// `t (a d + 4 x (1 + t)) / d^2` where `x` is negative, `(a d + 4 x t^2 (1 + t)) / d^2` elsewhere.
#[inline(always)]
pub(crate) fn mish_derivative_times<T: Float, S: Simd<T>>(x: Lanes<T, S>, g: Lanes<T, S>) -> Lanes<T, S> {
    let four = T::from(4).expect("a small integer");
    let four_x = clamp(x, -T::EXP_PARTS_LIMIT, T::EXP_PARTS_LIMIT) * x.all(four);
    product_with_decay(
        g,
        x,
        x.all(-T::zero()),
        #[inline(always)]
        |t, negative| {
            let (numerator, divisor) = quotient(negative, t);
            let second = four_x * negative.select(t.all(T::one()), t * t) * (t + t.all(T::one()));
            let factor = numerator.mul_add(divisor, second) * inverse(divisor * divisor);
            (factor, factor)
        },
    )
}
