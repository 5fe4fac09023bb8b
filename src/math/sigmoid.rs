//! The logistic sigmoid, products with it, and its derivatives.
//!
//! Method of the sigmoid and products with it: `1 + e^-x` in two terms, which no rounding of the exponential comes before,
//! and a quotient that is corrected once by its residue (T. J. Dekker, Numerische Mathematik 18, 1971).
//!
//! Method of the rest, and where the exponential is subnormal or infinite: all are rational in `t = e^-|x|`, which is at
//! most 1. The derivatives take it as it is where it is normal. Elsewhere it comes in two terms and with an exponent of
//! its own: nothing cancels, overflows, or underflows before the last step.

use super::exp::{
    Reduced, clamp, decay, exp_parts, has_normal_exp, normal_exp, power, scaled_product, scaled_product_of_sum,
};
use super::{inverse, near_inverse, power_bits};
use crate::float::Float;
use crate::lanes::{Lanes, Mask};
use crate::simd::Simd;

/// `1 / (1 + e^-x)`.
///
/// All `x`: `-Inf` gives 0, `+Inf` gives 1, NaN gives NaN; subnormal results are kept.
#[inline(always)]
pub(crate) fn sigmoid<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    x.share(
        #[inline(always)]
        || {
            let one = x.all(T::one());
            let Divisor { sum, rest, inverse } = Divisor::new(x, x.all(-T::zero()));
            let residue = inverse.mul_add(-rest, inverse.mul_add(-sum, one));
            let near = residue.mul_add(inverse, inverse);
            let is_near = has_normal_exp(x);
            if is_near.all() {
                return near;
            }
            is_near.select(near, Quotient::new(x, x.all(T::zero())).times(one))
        },
    )
}

/// `x / (1 + e^-x)`: the sigmoid linear unit.
///
/// All `x`: `-Inf` gives 0, `+Inf` gives `+Inf`, NaN gives NaN. Right also where the sigmoid alone underflows.
#[inline(always)]
pub(crate) fn silu<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    x.share(
        #[inline(always)]
        || {
            let zero = x.all(T::zero());
            let (near, is_near) = (near_product(x, x, -zero), has_normal_exp(x));
            if is_near.all() {
                return near;
            }
            let far = Quotient::new(x, zero).times(x);
            is_near.select(near, x.eq(-x.all(T::infinity())).select(zero, far))
        },
    )
}

/// `a / (1 + e^-(hi + lo))`.
///
/// All `a` and `hi`; `lo` is 0 where `hi` is large.
#[inline(always)]
pub(crate) fn sigmoid_times<T: Float, S: Simd<T>>(a: Lanes<T, S>, hi: Lanes<T, S>, lo: Lanes<T, S>) -> Lanes<T, S> {
    hi.share(
        #[inline(always)]
        || {
            let near = near_product(a, hi, lo);
            let is_near = has_normal_exp(hi) & a.abs().le(a.all(power_bits(T::BIAS - 1)));
            if is_near.all() {
                return near;
            }
            is_near.select(near, Quotient::new(hi, lo).times(a))
        },
    )
}

/// [`sigmoid_times`] where the exponential is normal and `a` not so large that a product with what is little above 1
/// overflows; it may be so small that the product is subnormal.
#[inline(always)]
fn near_product<T: Float, S: Simd<T>>(a: Lanes<T, S>, hi: Lanes<T, S>, lo: Lanes<T, S>) -> Lanes<T, S> {
    let Divisor { sum, rest, inverse } = Divisor::new(hi, lo);
    let quotient = a * inverse;
    // +0 where `a` is a zero, so that what is taken from the quotient leaves its sign.
    let excess = quotient.mul_add(rest, quotient.mul_add(sum, -a));
    excess.mul_add(-inverse, quotient)
}

/// `1 + e^-(hi + lo)` in two terms, where the exponential is normal.
#[derive(Clone, Copy)]
struct Divisor<T: Float, S: Simd<T>> {
    sum: Lanes<T, S>,
    rest: Lanes<T, S>,
    /// Nearly `1 / sum`.
    inverse: Lanes<T, S>,
}

impl<T: Float, S: Simd<T>> Divisor<T, S> {
    #[inline(always)]
    fn new(hi: Lanes<T, S>, lo: Lanes<T, S>) -> Self {
        let one = hi.all(T::one());
        let (power, [growth, growth_low]) = decay(hi, lo);
        let sum = (growth + growth_low).mul_add(power, one + power);
        // Exact, for small powers and large ones, but for what has no weight.
        let rest = (power - sum) + one;
        let rest = growth_low.mul_add(power, growth.mul_add(power, rest));
        Self { sum, rest, inverse: near_inverse(sum) }
    }
}

/// `1 / (1 + e^-(hi + lo))` as `(sum + rest) 2^n`.
#[derive(Clone, Copy)]
struct Quotient<T: Float, S: Simd<T>> {
    sum: Lanes<T, S>,
    rest: Lanes<T, S>,
    n: Lanes<T, S>,
}

impl<T: Float, S: Simd<T>> Quotient<T, S> {
    #[inline(always)]
    fn new(hi: Lanes<T, S>, lo: Lanes<T, S>) -> Self {
        let (zero, one) = (hi.all(T::zero()), hi.all(T::one()));
        let negative = hi.lt(zero);
        let reduced = Reduced::new(-clamp(hi, -T::EXP_PARTS_LIMIT, T::EXP_PARTS_LIMIT).abs(), negative.select(lo, -lo));
        let (sum, tail) = reduced.significand();
        // The tail alone would be too large for a quotient that is corrected once.
        let (sum, tail) = sum.fast_two_sum(tail);
        let power = power_beside_one(reduced.n);
        let (divisor, error) = one.fast_two_sum(sum * power);
        let divisor_low = tail.mul_add(power, error);

        let (numerator, numerator_low) = (negative.select(sum, one), negative.select(tail, zero));
        let inverse = one / divisor;
        let quotient = numerator * inverse;
        let residue = quotient.mul_add(-divisor, numerator) + quotient.mul_add(-divisor_low, numerator_low);
        Self { sum: quotient, rest: residue * inverse, n: negative.select(reduced.n, zero) }
    }

    /// Times any number.
    #[inline(always)]
    fn times(self, a: Lanes<T, S>) -> Lanes<T, S> {
        scaled_product_of_sum(a, (self.sum, self.rest), self.n)
    }
}

/// `2^n`, or so little in its place that 1 does not feel it.
#[inline(always)]
pub(super) fn power_beside_one<T: Float, S: Simd<T>>(n: Lanes<T, S>) -> Lanes<T, S> {
    let bits = T::FRACTION_BITS + T::FRACTION_BITS;
    power(n.larger(n.all(-T::from(bits).expect("a small integer"))))
}

/// `t = e^-|x|`, in parts and as a number beside 1.
#[derive(Clone, Copy)]
pub(super) struct Decay<T: Float, S: Simd<T>> {
    pub(super) negative: Mask<T, S>,
    /// `t = m 2^n`.
    pub(super) m: Lanes<T, S>,
    pub(super) n: Lanes<T, S>,
    pub(super) t: Lanes<T, S>,
}

impl<T: Float, S: Simd<T>> Decay<T, S> {
    /// Of `hi + lo`; `lo` is 0 where `hi` is large.
    #[inline(always)]
    pub(super) fn new(hi: Lanes<T, S>, lo: Lanes<T, S>) -> Self {
        let negative = hi.lt(hi.all(T::zero()));
        let (m, n) = exp_parts(-hi.abs(), negative.select(lo, -lo));
        Self { negative, m, n, t: m * power_beside_one(n) }
    }

    /// `g t below` where the argument is negative, `g above` elsewhere; the factors are at most 2^13.
    #[inline(always)]
    fn product(self, g: Lanes<T, S>, (below, above): (Lanes<T, S>, Lanes<T, S>)) -> Lanes<T, S> {
        let shift = g.all(T::from(13).expect("a small integer"));
        let factor = self.negative.select(self.m * below, above) * power(-shift);
        scaled_product(g, factor, self.negative.select(self.n, g.all(T::zero())) + shift)
    }
}

/// `g t below` where `w = hi + lo` is negative, `g above` elsewhere, for factors that are functions of `t = e^-|w|` and of
/// the sign. `lo` is 0 where `hi` is large.
#[inline(always)]
pub(super) fn product_with_decay<T: Float, S: Simd<T>>(
    g: Lanes<T, S>,
    hi: Lanes<T, S>,
    lo: Lanes<T, S>,
    factors: impl Fn(Lanes<T, S>, Mask<T, S>) -> (Lanes<T, S>, Lanes<T, S>),
) -> Lanes<T, S> {
    hi.share(
        #[inline(always)]
        || {
            let negative = hi.lt(hi.all(T::zero()));
            let t = normal_exp(-hi.abs(), negative.select(lo, -lo));
            let (below, above) = factors(t, negative);
            let near = g * negative.select(t * below, above);
            let is_near = has_normal_exp(hi);
            if is_near.all() {
                return near;
            }
            let decay = Decay::new(hi, lo);
            is_near.select(near, decay.product(g, factors(decay.t, decay.negative)))
        },
    )
}

/// `g` times the derivative of the sigmoid at `x`: `g t / (1 + t)^2` with `t = e^-|x|`.
///
/// `x = +-Inf` gives 0 times `g`, NaN gives NaN.
#[inline(always)]
pub(crate) fn sigmoid_derivative_times<T: Float, S: Simd<T>>(x: Lanes<T, S>, g: Lanes<T, S>) -> Lanes<T, S> {
    product_with_decay(
        g,
        -x.abs(),
        x.all(-T::zero()),
        #[inline(always)]
        |t, _| {
            let factor = inverse(one_plus_squared(t));
            (factor, factor)
        },
    )
}

/// `g` times the derivative of [`silu`] at `x`.
#[inline(always)]
pub(crate) fn silu_derivative_times<T: Float, S: Simd<T>>(x: Lanes<T, S>, g: Lanes<T, S>) -> Lanes<T, S> {
    gated_derivative_times(x, x.all(-T::zero()), clamp(x, -T::EXP_PARTS_LIMIT, T::EXP_PARTS_LIMIT), g)
}

/// `g` times the derivative of `x / (1 + e^-w)` for `w = hi + lo`, with `t = e^-|w|`: `g ((1 + t) + x w' t) / (1 + t)^2`, and
/// for a negative `w` `g t ((1 + t) + x w') / (1 + t)^2`.
#[inline(always)]
pub(super) fn gated_derivative_times<T: Float, S: Simd<T>>(
    hi: Lanes<T, S>,
    lo: Lanes<T, S>,
    x_times_slope: Lanes<T, S>,
    g: Lanes<T, S>,
) -> Lanes<T, S> {
    product_with_decay(
        g,
        hi,
        lo,
        #[inline(always)]
        |t, _| {
            let (sum, inverse) = (t.all(T::one()) + t, inverse(one_plus_squared(t)));
            ((sum + x_times_slope) * inverse, x_times_slope.mul_add(t, sum) * inverse)
        },
    )
}

/// `(1 + t)^2`.
#[inline(always)]
pub(super) fn one_plus_squared<T: Float, S: Simd<T>>(t: Lanes<T, S>) -> Lanes<T, S> {
    t.mul_add(t.all(T::one() + T::one()) + t, t.all(T::one()))
}
