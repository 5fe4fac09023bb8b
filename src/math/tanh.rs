//! The hyperbolic tangent and its derivative.
//!
//! Method: both are rational in an exponential, which comes from the reduction of `exp` in two terms or two parts, so
//! that nothing cancels for small arguments and nothing underflows for large ones (K. C. Ng, `tanh` of fdlibm, 1993,
//! from `expm1` too; the corrected quotient is Dekker's, Numerische Mathematik 18, 1971).

use super::exp::{Reduced, exp_parts, scale, scaled_product};
use crate::float::Float;
use crate::lanes::Lanes;
use crate::simd::Simd;

/// What the hyperbolic tangent needs to know of a type.
pub trait TanhConstants: Sized + 'static {
    /// From it on `tanh x` rounds to 1.
    const TANH_ONE_FROM: Self;
}

impl TanhConstants for f32 {
    const TANH_ONE_FROM: Self = 9.02;
}

impl TanhConstants for f64 {
    const TANH_ONE_FROM: Self = 19.07;
}

/// `tanh x = t / (t + 2)` with `t = e^(2|x|) - 1`, and the sign of `x`.
///
/// All `x`; +-0 and subnormal numbers give themselves, +-Inf give +-1, NaN gives NaN.
///
/// `t` is the sum of `2^n - 1` and `2^n (e^r - 1)` in two terms; the quotient is corrected once by its residue, which
/// leaves about the error of one rounding.
///
/// Largest error: f32 0.616 ULP, over all inputs, at 0.17435408; f64 0.60 ULP, sampled.
#[inline(always)]
pub(crate) fn tanh<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    x.share(
        #[inline(always)]
        || {
            let (one, two) = (x.all(T::one()), x.all(T::one() + T::one()));
            let limit = x.all(T::TANH_ONE_FROM);
            let magnitude = x.abs();
            let clamped = limit.lt(magnitude).select(limit, magnitude);

            let reduced = Reduced::new(clamped + clamped, x.all(T::zero()));
            let tail = reduced.tail(reduced.low.mul_add(reduced.high, reduced.low));
            let power = reduced.power();
            let (sum, error) = (power - one).fast_two_sum(power * reduced.high);
            let (t, t_low) = sum.fast_two_sum(power.mul_add(tail, error));

            let (divisor, divisor_low) = two.two_sum(t);
            let divisor_low = divisor_low + t_low;
            let inverse = one / divisor;
            let quotient = t * inverse;
            let residue = quotient.mul_add(-divisor, t) + quotient.mul_add(-divisor_low, t_low);
            residue.mul_add(inverse, quotient).copy_sign(x)
        },
    )
}

/// `g` times the derivative of `tanh` at `x`: `g 4t / (1 + t)^2` with `t = e^(-2|x|)`.
///
/// All `x` and `g`. Taken from `x`, not from `tanh x`, which is 1 long before the derivative is 0; and with `t` in parts,
/// so that the product is right where `t` underflows. `x = +-Inf` gives 0 times `g`, NaN gives NaN.
///
/// Largest error: f32 3.32 ULP, over all `x` with one `g` each, at 2.767858; f64 2.6 ULP, sampled.
#[inline(always)]
pub(crate) fn tanh_derivative_times<T: Float, S: Simd<T>>(x: Lanes<T, S>, g: Lanes<T, S>) -> Lanes<T, S> {
    x.share(
        #[inline(always)]
        || {
            let (one, two) = (x.all(T::one()), x.all(T::one() + T::one()));
            let magnitude = x.abs();
            let (m, n) = exp_parts(-(magnitude + magnitude), x.all(T::zero()));
            let t = scale(m, n);
            let square = t.mul_add(two + t, one);
            scaled_product(g, m / square, n + two)
        },
    )
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::math::oracle::{self, Double, Function, Worst, value};

    struct Tanh;

    impl<T: Float> Function<T> for Tanh {
        #[inline(always)]
        fn apply<S: Simd<T>>(&self, x: Lanes<T, S>, _: Lanes<T, S>) -> Lanes<T, S> {
            tanh(x)
        }
    }

    struct Derivative;

    impl<T: Float> Function<T> for Derivative {
        #[inline(always)]
        fn apply<S: Simd<T>>(&self, x: Lanes<T, S>, g: Lanes<T, S>) -> Lanes<T, S> {
            tanh_derivative_times(x, g)
        }
    }

    fn worst_f32(step: u32) -> Worst {
        oracle::worst_f32(&Tanh, step, |_| 0.0, |x, _| x.tanh())
    }

    /// With an upstream gradient that makes the product overflow, underflow and be anything between.
    fn worst_derivative_f32(step: u32) -> Worst {
        let upstream = |x: f32| {
            let bits = x.to_bits().wrapping_mul(0x9e37_79b1);
            let g = f32::from_bits(bits ^ bits >> 15);
            if g.is_finite() { g } else { 1.0 }
        };
        let oracle = |x: f64, g: f64| {
            let t = (-2.0 * x.abs()).exp();
            g * (4.0 * t / ((1.0 + t) * (1.0 + t)))
        };
        oracle::worst_f32(&Derivative, step, upstream, oracle)
    }

    #[test]
    fn error_f32() {
        worst_f32(251).assert_at_most(0.7);
        worst_derivative_f32(251).assert_at_most(4.0);
    }

    #[test]
    #[ignore = "all 2^32 inputs: a minute"]
    fn error_f32_everywhere() {
        worst_f32(1).assert_at_most(0.7);
    }

    #[test]
    #[ignore = "all 2^32 inputs: a minute"]
    fn derivative_error_f32_everywhere() {
        worst_derivative_f32(1).assert_at_most(4.0);
    }

    #[test]
    fn error_f64() {
        let one = Double::new(1.0);
        let usual = oracle::uniform(1).map(|x| 20.0 * x);
        let near_zero = oracle::uniform(2).map(|x| x - 0.5);
        let tiny = oracle::uniform(3).map(|x| 2_f64.powf(-900.0 * x));
        let x: Vec<f64> = [usual.take(60_000).collect::<Vec<_>>(), near_zero.take(60_000).collect()]
            .into_iter()
            .chain([tiny.take(20_000).collect()])
            .flatten()
            .collect();
        let mut worst = Worst::default();
        for (&x, got) in x.iter().zip(oracle::apply(&Tanh, &x, &x)) {
            let t = oracle::exp_m1(Double::new(2.0 * x));
            worst.meet(oracle::ulps_f64(got, t / (t + one + one), 0), (x, got));
        }
        worst.assert_at_most(0.7);

        let x: Vec<f64> = oracle::uniform(4).map(|x| 1000.0 * x * x - 10.0).take(60_000).collect();
        let g: Vec<f64> = oracle::uniform(5).map(|x| 2_f64.powf(1800.0 * x - 900.0)).take(60_000).collect();
        let mut worst = Worst::default();
        for ((&x, &g), got) in x.iter().zip(&g).zip(oracle::apply(&Derivative, &x, &g)) {
            let (m, n) = oracle::exp(Double::new(-2.0 * x.abs()));
            let sum = m.times(2_f64.powi(n)) + one;
            worst.meet(oracle::ulps_f64(got, Double::new(g) * (m / (sum * sum)), n + 2), (x, g));
        }
        worst.assert_at_most(4.0);
    }

    #[test]
    fn special_values() {
        fn check<T: Float>(tanh: impl Fn(T) -> T, derivative: impl Fn(T, T) -> T) {
            let (one, zero, infinity, tiny) = (T::one(), T::zero(), T::infinity(), T::from_bits(1));
            for same in [zero, tiny, T::min_positive_value(), one / T::max_value()] {
                assert_eq!(tanh(same).to_bits(), same.to_bits(), "tanh({same:e})");
                assert_eq!(tanh(-same).to_bits(), (-same).to_bits(), "tanh({:e})", -same);
                assert_eq!(derivative(same, one), one);
                assert_eq!(derivative(one - one, same), same);
            }
            for large in [infinity, T::max_value()] {
                assert_eq!(tanh(large), one);
                assert_eq!(tanh(-large), -one);
                assert_eq!(derivative(large, T::max_value()), zero);
                assert_eq!(derivative(-large, T::max_value()), zero);
            }
            assert!(tanh(T::nan()).is_nan() && tanh(-T::nan()).is_nan());
            assert!(derivative(T::nan(), one).is_nan() && derivative(T::nan(), zero).is_nan());
            assert!(derivative(zero, T::nan()).is_nan() && derivative(infinity, T::nan()).is_nan());
            assert_eq!(derivative(zero, T::max_value()), T::max_value());
            assert_eq!(derivative(one, infinity), infinity);
            assert_eq!(derivative(one, -infinity), -infinity);
        }
        check::<f32>(|x| value(&Tanh, x, 0.0), |x, g| value(&Derivative, x, g));
        check::<f64>(|x| value(&Tanh, x, 0.0), |x, g| value(&Derivative, x, g));
        // The derivative alone is below the smallest number.
        let (x, g) = (60.0_f32, 1e38_f32);
        assert_eq!(value(&Derivative, x, g), (4.0 * f64::from(g) * (-120.0_f64).exp()) as f32);
    }

    #[test]
    fn same_bits() {
        let g = oracle::of_every_size::<f32>(100_000, 6);
        let x = oracle::of_every_size::<f32>(100_000, 5);
        oracle::assert_same_bits(&Tanh, &x, &x);
        oracle::assert_same_bits(&Derivative, &x, &g);
        let x: Vec<f32> = oracle::uniform(7).map(|x| 100.0 * (x as f32 - 0.5)).take(100_000).collect();
        oracle::assert_same_bits(&Tanh, &x, &x);
        oracle::assert_same_bits(&Derivative, &x, &g);
        let g = oracle::of_every_size::<f64>(20_000, 9);
        let x = oracle::of_every_size::<f64>(20_000, 8);
        oracle::assert_same_bits(&Tanh, &x, &x);
        oracle::assert_same_bits(&Derivative, &x, &g);
        let x: Vec<f64> = oracle::uniform(10).map(|x| 1000.0 * (x - 0.5)).take(20_000).collect();
        oracle::assert_same_bits(&Tanh, &x, &x);
        oracle::assert_same_bits(&Derivative, &x, &g);
    }
}
