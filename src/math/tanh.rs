//! The hyperbolic tangent and its derivative.
//!
//! Method for `f32`: a polynomial for each of eight pieces, whose coefficients are looked up (P. T. P. Tang, "Table-lookup
//! algorithms for elementary functions and their error analysis", ARITH 10, 1991).
//!
//! Method for `f64`, and for the derivative: both are rational in an exponential, which comes from the reduction of `exp`
//! in two terms or two parts, so that nothing cancels for small arguments and nothing underflows for large ones (K. C. Ng,
//! `tanh` of fdlibm, 1993, from `expm1` too; the corrected quotient is Dekker's, Numerische Mathematik 18, 1971).

use super::exp::Reduced;
use super::inverse;
use super::sigmoid::{one_plus_squared, product_with_decay};
use crate::float::{Float, Format};
use crate::lanes::Lanes;
use crate::simd::Simd;

/// The hyperbolic tangent of a type, by the method that suits it.
pub trait TanhConstants: Sized + 'static {
    /// See [`tanh`].
    fn tanh_of<S: Simd<Self>>(x: Lanes<Self, S>) -> Lanes<Self, S>
    where
        Self: Float;
}

impl TanhConstants for f32 {
    #[inline(always)]
    fn tanh_of<S: Simd<Self>>(x: Lanes<Self, S>) -> Lanes<Self, S> {
        tanh_by_pieces(x)
    }
}

impl TanhConstants for f64 {
    #[inline(always)]
    fn tanh_of<S: Simd<Self>>(x: Lanes<Self, S>) -> Lanes<Self, S> {
        tanh_by_exponential(x)
    }
}

/// `tanh x`.
///
/// All `x`; +-0 and subnormal numbers give themselves, +-Inf give +-1, NaN gives NaN.
///
/// Largest error: f32 0.788 ULP, over all inputs, at 1.8182067; f64 0.62 ULP, sampled.
#[inline(always)]
pub(crate) fn tanh<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    x.share(
        #[inline(always)]
        || T::tanh_of(x),
    )
}

/// The pieces of `tanh_by_pieces`: where `1.08 - 1.6445 x` has one exponent and one first bit of the fraction, from 2 to
/// 16 and then from 1 to 2. In the last but one, which begins at 0, the centre is 0, and the linear term is not counted.
const CENTERS: [f32; 8] =
    [-0.898_412_9, -1.435_767_8, -2.448_841_6, -3.555_074_5, -5.546_148, -7.768_453, 0.0, -0.400_766_2];
/// `tanh` at the centres, which lie where it is nearly a number of the type.
const AT_CENTERS: [f32; 8] =
    [-0.715_524_2, -0.892_842_53, -0.985_182_9, -0.998_367_8, -0.999_969_54, -0.999_999_64, 0.0, -0.380_604_36];
/// The coefficients from the linear one on. Minimax (Lawson's algorithm), rounded one after another. Error, relative:
/// 2^-25.9.
const COEFFICIENTS: [[f32; 8]; 7] = [
    [0.488_025, 0.202_832_2, 0.029_414_851, 0.003_261_768_3, 6.086_244_3e-5, 7.155_394e-7, 0.0, 0.855_140_3],
    [0.349_194_47, 0.181_097_15, 0.028_978_486, 0.003_256_504_2, 6.100_305_5e-5, 7.166_386e-7, 0.0, 0.325_470_12],
    [
        0.087_195_92,
        0.094_081_62,
        0.018_739_702,
        0.002_163_699_6,
        4.101_425_3e-5,
        4.748_733_3e-7,
        -0.333_332_27,
        -0.161_172_58,
    ],
    [-0.054_071_587, 0.023_638_66, 0.008_813_658, 0.001_073_751_7, 1.991_351_7e-5, 2.329_422e-7, 0.0, -0.169_824_87],
    [
        -0.057_280_947,
        -0.005_785_022_4,
        0.003_118_113_8,
        0.000_425_430_95,
        7.366_059e-6,
        9.809_518e-8,
        0.133_234_16,
        0.008_167_063,
    ],
    [
        -0.013_633_830_5,
        -0.009_103_337,
        0.000_710_246_15,
        0.000_143_137_8,
        3.203_261_7e-6,
        3.826_488_3e-8,
        0.0,
        0.066_157_61,
    ],
    [
        0.012_658_365,
        -0.004_135_410_3,
        -2.346_128_7e-5,
        3.553_887_3e-5,
        1.201_104_3e-6,
        8.683_513e-9,
        -0.051_319_64,
        0.015_565_556,
    ],
];
/// The end of the last piece, where `tanh x` rounds to 1.
const END: f32 = 9.066;

/// For `-|x|`, which the limit and NaN pass through alike: `t + y p(y)` with the distance `y` from the centre of a piece.
///
/// Where the centre is 0, `t` is `y`, elsewhere the value at the centre; so the rest is small, and the sum all but rounds
/// once.
#[inline(always)]
fn tanh_by_pieces<S: Simd<f32>>(x: Lanes<f32, S>) -> Lanes<f32, S> {
    let below = x.all(-END).larger(x | x.all(-0.0));
    let place = below.mul_add(x.all(-1.6445), x.all(1.08));
    let piece = place.shr(f32::FRACTION_BITS - 1);

    let y = below - piece.lookup(&CENTERS);
    let [rest @ .., last] = &COEFFICIENTS;
    let mut sum = piece.lookup(last);
    for row in rest.iter().rev() {
        sum = sum.mul_add(y, piece.lookup(row));
    }
    let start = place.lt(x.all(1.5)).select(y, piece.lookup(&AT_CENTERS));
    sum.mul_add(y, start).copy_sign(x)
}

/// `t / (t + 2)` with `t = e^(2|x|) - 1`, and the sign of `x`.
///
/// `t` is the sum of `2^n - 1` and `2^n (e^r - 1)` in two terms; the quotient is corrected once by its residue, which
/// leaves about the error of one rounding.
#[inline(always)]
fn tanh_by_exponential<S: Simd<f64>>(x: Lanes<f64, S>) -> Lanes<f64, S> {
    const ONE_FROM: f64 = 19.07;
    let (one, two) = (x.all(1.0), x.all(2.0));
    let limit = x.all(ONE_FROM);
    let magnitude = x.abs();
    let clamped = limit.lt(magnitude).select(limit, magnitude);

    let reduced = Reduced::new(clamped + clamped, x.all(0.0));
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
}

/// `g` times the derivative of `tanh` at `x`: `g 4t / (1 + t)^2` with `t = e^(-2|x|)`.
///
/// All `x` and `g`. Taken from `x`, not from `tanh x`, which is 1 long before the derivative is 0; and with `t` in parts
/// where it underflows, so that the product is right there too. `x = +-Inf` gives 0 times `g`, NaN gives NaN.
///
/// Largest error: f32 3.32 ULP, over all `x` with one `g` each, at 2.767858; f64 2.6 ULP, sampled.
#[inline(always)]
pub(crate) fn tanh_derivative_times<T: Float, S: Simd<T>>(x: Lanes<T, S>, g: Lanes<T, S>) -> Lanes<T, S> {
    let magnitude = x.abs();
    product_with_decay(
        g,
        -(magnitude + magnitude),
        x.all(-T::zero()),
        #[inline(always)]
        |t, _| {
            let factor = inverse(one_plus_squared(t)) * t.all(T::from(4).expect("a small integer"));
            (factor, factor)
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
        worst_f32(251).assert_at_most(0.8);
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
