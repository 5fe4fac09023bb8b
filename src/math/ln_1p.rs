//! The logarithm of `1 + u`.
//!
//! Method: `1 + u = 2^k (1 + g)` with `1 + g` in `[0.68, 1.36)` and `g` in two terms, then
//! `ln(1 + g) = g - g^2/2 + g^3 p(g)`, of which `k ln 2`, `g` and the square are summed with their errors
//! (W. J. Cody, W. Waite, "Software Manual for the Elementary Functions", 1980; the two-term `1 + u` as in W. Kahan's
//! `log1p`).

use super::{polynomial, power_bits};
use crate::float::Float;
use crate::lanes::Lanes;
use crate::simd::Simd;

/// What the logarithm needs to know of a type.
pub trait Ln1pConstants: Sized + 'static {
    /// The least significand; the greatest is below twice that. It makes the error the same at both ends, which
    /// `sqrt(1/2)` does not.
    const LEAST_SIGNIFICAND: Self;
    /// `ln 2` to so few bits that its product with any exponent is exact.
    const LN2_SHORT: Self;
    /// `ln 2 - LN2_SHORT`, rounded.
    const LN2_REST: Self;
    /// `p`. Minimax (Remez exchange, 60 digits) for `(ln(1 + g) - g + g^2/2) / g^3` on `[-0.32, 0.36]`, weighted to make
    /// the relative error of `ln(1 + g)` least; rounded, for f32 with a search among the neighbours. Error: f32 2^-30.1,
    /// f64 2^-57.6.
    const LN_1P_TAIL: &'static [Self];
}

impl Ln1pConstants for f32 {
    const LEAST_SIGNIFICAND: Self = 0.68;
    const LN2_SHORT: Self = 0.693_145_75;
    const LN2_REST: Self = 1.428_606_8e-6;
    const LN_1P_TAIL: &'static [Self] = &[
        0.333_333_25,
        -0.249_998_39,
        0.200_008_29,
        -0.166_783_27,
        0.142_634_91,
        -0.122_194_54,
        0.112_674_266,
        -0.127_113_6,
        0.098_462,
    ];
}

impl Ln1pConstants for f64 {
    const LEAST_SIGNIFICAND: Self = 0.68;
    const LN2_SHORT: Self = 0.693_147_180_559_890_3;
    const LN2_REST: Self = 5.497_923_018_708_371e-14;
    const LN_1P_TAIL: &'static [Self] = &[
        0.333_333_333_333_332_8,
        -0.250_000_000_000_022_04,
        0.200_000_000_000_262_6,
        -0.166_666_666_660_240_33,
        0.142_857_142_811_989_83,
        -0.125_000_000_693_726_1,
        0.111_111_114_880_125_62,
        -0.099_999_961_941_219_32,
        0.090_908_911_421_793_51,
        -0.083_334_532_287_184_15,
        0.076_928_341_121_001_57,
        -0.071_405_834_978_108_66,
        0.066_568_494_881_304_65,
        -0.062_757_797_604_573_3,
        0.059_985_223_425_222_23,
        -0.053_953_088_610_880_64,
        0.044_273_437_133_260_825,
        -0.053_675_849_079_602_225,
        0.079_955_024_167_796_55,
        -0.054_947_076_025_286_31,
    ];
}

/// `ln(1 + u)`.
///
/// All `u`: 0 gives 0 with its sign, +Inf gives +Inf, -1 gives -Inf, what is less than -1, and NaN, give NaN.
///
/// Largest error: f32 0.583 ULP, over all inputs, at 0.36166868; f64 0.59 ULP, sampled.
#[inline(always)]
pub(crate) fn ln_1p<T: Float, S: Simd<T>>(u: Lanes<T, S>) -> Lanes<T, S> {
    let (zero, one, infinity) = (u.all(T::zero()), u.all(T::one()), u.all(T::infinity()));
    let (sum, rest) = ln_1p_terms(u, zero);
    // Infinity and NaN have no reduced form; 0 keeps its sign.
    let result = (u.lt(infinity) & !u.eq(zero)).select(sum + rest, u);
    let outside = u.eq(-one).select(-infinity, u.all(T::nan()));
    u.le(-one).select(outside, result)
}

/// `ln(1 + u + low)` as an unevaluated sum, for finite `u > -1` and `|low| <= ulp(u) / 2`.
#[inline(always)]
pub(super) fn ln_1p_terms<T: Float, S: Simd<T>>(u: Lanes<T, S>, low: Lanes<T, S>) -> (Lanes<T, S>, Lanes<T, S>) {
    u.share(
        #[inline(always)]
        || {
            let one = u.all(T::one());
            let (w, error) = one.two_sum(u);
            let error = error + low;
            // The exponent field of w / 0.68, right because the fraction only carries into it.
            let field_mask = u.all(T::infinity());
            let field = w.int_add(one.int_sub(u.all(T::LEAST_SIGNIFICAND))) & field_mask;
            let power_of_two = field.int_sub(one);
            let k = exponent(field, u.all(T::from(T::BIAS).expect("a small integer")));
            let m = w.int_sub(power_of_two);
            // Far beyond the last place of w the 1 has no weight left, and 2^-k is no longer a number.
            let has_weight = u.lt(u.all(power(T::FRACTION_BITS + 4)));
            let c = has_weight.select(error * one.int_sub(power_of_two), u.all(T::zero()));

            let (g, g_low) = (m - one).fast_two_sum(c);
            let half = g * u.all(T::one() / (T::one() + T::one()));
            let (square, square_low) = half.two_mul(g);
            let (difference, rest) = g.fast_two_sum(-square);
            let (sum, carry) = (k * u.all(T::LN2_SHORT)).fast_two_sum(difference);

            let cube = square * (g + g);
            // g_low / (1 + g), by 1 - g + g^2 - g^3.
            let low = g_low.mul_add(-(difference - square + cube), g_low);
            let small = low + (rest - square_low);
            let small = k.mul_add(u.all(T::LN2_REST), small) + carry;
            (sum, cube.mul_add(polynomial(g, T::LN_1P_TAIL), small))
        },
    )
}

/// `2^n`.
#[inline(always)]
fn power<T: Float>(n: u32) -> T {
    power_bits(n.cast_signed())
}

/// What the exponent field of a positive number holds, less a bias.
#[inline(always)]
pub(super) fn exponent<T: Float, S: Simd<T>>(bits: Lanes<T, S>, bias: Lanes<T, S>) -> Lanes<T, S> {
    // The field as an integer in the last bits of a number whose units they are.
    let units = bits.all(power(T::FRACTION_BITS));
    (bits.shr(T::FRACTION_BITS) | units) - (units + bias)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::math::oracle::{self, Function, Worst, value};

    struct Ln1p;

    impl<T: Float> Function<T> for Ln1p {
        #[inline(always)]
        fn apply<S: Simd<T>>(&self, x: Lanes<T, S>, _: Lanes<T, S>) -> Lanes<T, S> {
            ln_1p(x)
        }
    }

    fn worst_f32(step: u32) -> Worst {
        let oracle = |u: f64, _| if u > -1.0 { u.ln_1p() } else { f64::NAN };
        let ignored = |_| 0.0;
        oracle::worst_f32(&InRange, step, ignored, oracle)
    }

    /// NaN where nothing is promised.
    struct InRange;

    impl<T: Float> Function<T> for InRange {
        #[inline(always)]
        fn apply<S: Simd<T>>(&self, x: Lanes<T, S>, _: Lanes<T, S>) -> Lanes<T, S> {
            x.le(-x.all(T::one())).select(x.all(T::nan()), ln_1p(x))
        }
    }

    #[test]
    fn error_f32() {
        worst_f32(251).assert_at_most(0.6);
    }

    #[test]
    #[ignore = "all 2^32 inputs: a minute"]
    fn error_f32_everywhere() {
        worst_f32(1).assert_at_most(0.6);
    }

    #[test]
    fn error_f64() {
        let small = oracle::uniform(1).map(|x| 2.0 * x - 0.9);
        let near_zero = oracle::uniform(2).map(|x| (x - 0.5) * 2_f64.powi(-20));
        let large = oracle::uniform(3).map(|x| 2_f64.powf(1023.9 * x));
        let tiny = oracle::uniform(4).map(|x| 2_f64.powf(-900.0 * x));
        let u: Vec<f64> = [small.take(60_000).collect::<Vec<_>>(), near_zero.take(60_000).collect()]
            .into_iter()
            .chain([large.take(60_000).collect(), tiny.take(20_000).collect()])
            .flatten()
            .collect();
        let mut worst = Worst::default();
        for (&u, got) in u.iter().zip(oracle::apply(&Ln1p, &u, &u)) {
            worst.meet(oracle::ulps_f64(got, oracle::ln_1p(u), 0), (u, got));
        }
        worst.assert_at_most(0.6);
    }

    #[test]
    fn special_values() {
        fn check<T: Float>(value: impl Fn(T) -> T) {
            let tiny = T::from_bits(1);
            for same in [T::zero(), -T::zero(), tiny, -tiny, T::min_positive_value(), T::infinity()] {
                assert_eq!(value(same).to_bits(), same.to_bits(), "ln_1p({same:e})");
            }
            assert!(value(T::nan()).is_nan());
            assert!(value(-T::nan()).is_nan());
        }
        check::<f32>(|u| value(&Ln1p, u, 0.0));
        check::<f64>(|u| value(&Ln1p, u, 0.0));
        assert_eq!(value(&Ln1p, f32::MAX, 0.0), 88.722_84);
        assert_eq!(value(&Ln1p, f64::MAX, 0.0), 709.782_712_893_384);
    }

    #[test]
    fn same_bits() {
        let u = oracle::of_every_size::<f32>(100_000, 5);
        oracle::assert_same_bits(&Ln1p, &u, &u);
        let u: Vec<f32> = oracle::uniform(6).map(|x| 4.0 * x as f32 - 1.0).take(100_000).collect();
        oracle::assert_same_bits(&Ln1p, &u, &u);
        let u = oracle::of_every_size::<f64>(20_000, 7);
        oracle::assert_same_bits(&Ln1p, &u, &u);
        let u: Vec<f64> = oracle::uniform(8).map(|x| 4.0 * x - 1.0).take(20_000).collect();
        oracle::assert_same_bits(&Ln1p, &u, &u);
    }
}
