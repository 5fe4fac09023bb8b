//! The approximation of the Gaussian error linear unit by a hyperbolic tangent.
//!
//! Method: `x (1 + tanh(u)) / 2 = x / (1 + e^-2u)`, which does not cancel, with `2u` in two terms (D. Hendrycks,
//! K. Gimpel, "Gaussian Error Linear Units", 2016).

use super::exp::clamp;
use super::sigmoid::{gated_derivative_times, sigmoid_times};
use crate::float::Float;
use crate::lanes::Lanes;
use crate::simd::Simd;

/// What the approximation needs to know of a type.
pub trait GeluTanhConstants: Sized + 'static {
    /// `2 sqrt(2 / pi)`, rounded, and what it lacks.
    const GELU_LINEAR: [Self; 2];
    /// 0.044715 times that.
    const GELU_CUBIC: [Self; 2];
}

impl GeluTanhConstants for f32 {
    const GELU_LINEAR: [Self; 2] = [1.595_769_2, -4.534_068e-8];
    const GELU_CUBIC: [Self; 2] = [0.071_354_814, 2.398_832_4e-9];
}

impl GeluTanhConstants for f64 {
    const GELU_LINEAR: [Self; 2] = [1.595_769_121_605_730_8, -9.969_308_809_110_92e-17];
    const GELU_CUBIC: [Self; 2] = [0.071_354_816_272_600_25, -6.175_149_918_155_315e-19];
}

/// `x`, where it is not so large that the sigmoid is 0 or 1 to any number of digits.
#[inline(always)]
fn within_reach<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    let reach = T::from(32).expect("a small integer");
    clamp(x, -reach, reach)
}

/// `2u = 2 sqrt(2 / pi) (x + 0.044715 x^3)` in two terms, and `x^2`.
#[inline(always)]
fn exponent<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> (Lanes<T, S>, Lanes<T, S>, Lanes<T, S>) {
    let ([linear, linear_low], [cubic, cubic_low]) =
        (T::GELU_LINEAR.map(|c| x.all(c)), T::GELU_CUBIC.map(|c| x.all(c)));
    let (square, square_low) = x.two_mul(x);
    let (term, error) = square.two_mul(cubic);
    let term_low = square.mul_add(cubic_low, square_low.mul_add(cubic, error));
    let (sum, error) = linear.two_sum(term);
    let sum_low = error + (term_low + linear_low);
    let (high, error) = x.two_mul(sum);
    let (high, low) = high.fast_two_sum(x.mul_add(sum_low, error));
    (high, low, square)
}

/// `x / (1 + e^-2u)`.
///
/// All `x`: `-Inf` gives 0, `+Inf` gives `+Inf`, NaN gives NaN.
#[inline(always)]
pub(crate) fn gelu_tanh<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    let (high, low, _) = exponent(within_reach(x));
    x.eq(-x.all(T::infinity())).select(x.all(T::zero()), sigmoid_times(x, high, low))
}

/// `g` times the derivative of [`gelu_tanh`] at `x`.
#[inline(always)]
pub(crate) fn gelu_tanh_derivative_times<T: Float, S: Simd<T>>(x: Lanes<T, S>, g: Lanes<T, S>) -> Lanes<T, S> {
    let x = within_reach(x);
    let (high, low, square) = exponent(x);
    let [linear, cubic] = [T::GELU_LINEAR[0], T::GELU_CUBIC[0]];
    let three = T::one() + T::one() + T::one();
    let slope = square.mul_add(x.all(three * cubic), x.all(linear));
    gated_derivative_times(high, low, x * slope, g)
}
