//! The angle of a point.
//!
//! Method: with the quotient `q <= 1` of the two magnitudes, or `q = (lo - hi) / (lo + hi)` where that is nearer to 0,
//! `atan q = q + q^3 p(q^2)`, and the angle is so many eighths of a turn less or more that. What `q` is rounded by counts
//! with the derivative `1 / (1 + q^2)`; the eighths are in two terms (W. J. Cody, W. Waite, "Software Manual for the
//! Elementary Functions", 1980; the remainder of a quotient: P. Markstein, "Computation of elementary functions on the IBM
//! RISC System/6000 processor", 1990).

use super::{polynomial_of_pairs, power_bits};
use crate::float::Float;
use crate::lanes::Lanes;
use crate::simd::Simd;

/// What the angle needs to know of a type.
pub trait Atan2Constants: Sized + 'static {
    /// `tan(pi/8)`.
    const TAN_SIXTEENTH: Self;
    /// `pi/4` in so few digits that three times that is exact.
    const EIGHTH_SHORT: Self;
    /// `pi/4 - EIGHTH_SHORT`, rounded.
    const EIGHTH_REST: Self;
    /// `p`. Minimax (Remez exchange, 50 digits) for `(atan q - q) / q^3` on `|q| <= tan(pi/8)`, weighted to make the
    /// relative error of `atan q` least; rounded one after the other, those that follow fitted again. Error: f32 2^-30.4,
    /// f64 2^-59.4.
    const ATAN_TAIL: &'static [Self];
}

impl Atan2Constants for f32 {
    const TAN_SIXTEENTH: Self = 0.414_213_57;
    const EIGHTH_SHORT: Self = 0.785_398_24;
    const EIGHTH_REST: Self = -8.146_034e-8;
    const ATAN_TAIL: &'static [Self] = &[-0.333_333_16, 0.199_985_28, -0.142_443_9, 0.105_991_45, -0.060_899_653];
}

impl Atan2Constants for f64 {
    const TAN_SIXTEENTH: Self = 0.414_213_562_373_095_03;
    const EIGHTH_SHORT: Self = core::f64::consts::FRAC_PI_4; // whose last three bits are 0
    const EIGHTH_REST: Self = 3.061_616_997_868_383e-17;
    const ATAN_TAIL: &'static [Self] = &[
        -0.333_333_333_333_332,
        0.199_999_999_999_536_5,
        -0.142_857_142_801_955_9,
        0.111_111_107_832_365_9,
        -0.090_908_977_488_666_14,
        0.076_920_600_380_659_84,
        -0.066_631_019_679_237_76,
        0.058_478_742_300_587_38,
        -0.050_392_386_425_088_406,
        0.038_062_954_496_266_795,
        -0.017_905_546_537_947_747,
    ];
}

/// `atan2(y, x)`.
///
/// All `y` and `x`, with the special values of IEEE 754: the angle has the sign of `y`, a zero or an infinity counts with
/// its sign, `atan2(0, 0) = 0`, `atan2(Inf, Inf) = pi/4`; NaN if an operand is. Subnormal results are rounded once.
///
/// Largest error: f32 0.652 ULP, f64 0.653 ULP; sampled.
#[inline(always)]
pub(crate) fn atan2<T: Float, S: Simd<T>>(y: Lanes<T, S>, x: Lanes<T, S>) -> Lanes<T, S> {
    let (zero, sign_bit) = (x.all(T::zero()), x.all(-T::zero()));
    let [one, two, three, four] = [1, 2, 3, 4].map(|n| x.all(T::from(n).expect("a small integer")));
    let is_steep = x.abs().lt(y.abs());
    let is_left = one.copy_sign(x).lt(zero);
    let (lo, hi) = in_range(is_steep.select(x, y).abs(), is_steep.select(y, x).abs());
    let is_diagonal = (hi * x.all(T::TAN_SIXTEENTH)).lt(lo);

    // Counted from the axis or diagonal that is nearest.
    let on_axis = is_steep.select(two, is_left.select(four, zero));
    let eighths = is_diagonal.select(is_left.select(three, one), on_axis);
    let (q, rest) = arctangent(is_diagonal.select(hi, zero), is_diagonal.select(lo, zero), lo, hi);
    let sense = (x & sign_bit) ^ is_steep.select(sign_bit, zero);
    let (sum, error) = (eighths * x.all(T::EIGHTH_SHORT)).fast_two_sum(q ^ sense);
    let angle = sum + (error + eighths.mul_add(x.all(T::EIGHTH_REST), rest ^ sense));
    angle.copy_sign(y)
}

/// Magnitudes with the same quotient, of which the greater can be doubled and is not so small that last bits of a
/// remainder would be lost. The quotient of two infinities counts as 1, that of two zeros as 0.
#[inline(always)]
fn in_range<T: Float, S: Simd<T>>(lo: Lanes<T, S>, hi: Lanes<T, S>) -> (Lanes<T, S>, Lanes<T, S>) {
    let (one, infinity) = (lo.all(T::one()), lo.all(T::infinity()));
    let both_infinite = lo.eq(infinity) & hi.eq(infinity);
    let (lo, hi) = (both_infinite.select(one, lo), (both_infinite | hi.eq(lo.all(T::zero()))).select(one, hi));
    let up = 4 * (T::FRACTION_BITS.cast_signed() + 1);
    let is_small = hi.lt(one.all(power_bits(up + 1 - T::BIAS)));
    let is_large = one.all(power_bits(T::BIAS - 1)).le(hi);
    let scale = is_small.select(one.all(power_bits(up)), is_large.select(one.all(power_bits(-2)), one));
    (lo * scale, hi * scale)
}

/// `atan((lo - less) / (hi + more))` as an unevaluated sum, the first term of which is the quotient; `less` is 0 or not
/// below `lo`, `more` not above `hi`.
#[inline(always)]
fn arctangent<T: Float, S: Simd<T>>(
    less: Lanes<T, S>,
    more: Lanes<T, S>,
    lo: Lanes<T, S>,
    hi: Lanes<T, S>,
) -> (Lanes<T, S>, Lanes<T, S>) {
    let (dividend, dividend_low) = (-less).fast_two_sum(lo);
    let (divisor, divisor_low) = hi.fast_two_sum(more);
    let q = dividend / divisor;
    let remainder = (-q).mul_add(divisor, dividend) + (-q).mul_add(divisor_low, dividend_low);
    let error = remainder / q.mul_add(dividend, divisor);
    // A smaller quotient is its arctangent, and its remainder may not be exact.
    let least = q.all(power_bits(-T::FRACTION_BITS.cast_signed() - 1));
    let error = least.le(q.abs()).select(error, q.all(T::zero()));
    let square = q * q;
    (q, (q * square).mul_add(polynomial_of_pairs(square, T::ATAN_TAIL), error))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::math::oracle::{self, Function, Worst, value};
    use crate::reference;

    struct Atan2;

    impl<T: Float> Function<T> for Atan2 {
        #[inline(always)]
        fn apply<S: Simd<T>>(&self, y: Lanes<T, S>, x: Lanes<T, S>) -> Lanes<T, S> {
            atan2(y, x)
        }
    }

    /// Every `step`-th `y` with an `x` of like size: within so many powers of two.
    fn worst_f32(step: u32, spread: i32) -> Worst {
        let near = |y: f32| {
            let mix = y.to_bits().wrapping_mul(0x9e37_79b1);
            let factor =
                2_f32.powi((mix >> 8) as i32 % (2 * spread + 1) - spread) * (1.0 + (mix >> 9) as f32 / 8_388_608.0);
            if mix & 1 == 0 { y * factor } else { -(y * factor) }
        };
        oracle::worst_f32(&Atan2, step, near, f64::atan2)
    }

    fn worst_f64(y: &[f64], x: &[f64]) -> Worst {
        let mut worst = Worst::default();
        for ((&y, &x), got) in y.iter().zip(x).zip(oracle::apply(&Atan2, y, x)) {
            worst.meet(reference::ulp_error(got, reference::atan2(y, x)), (y, x));
        }
        worst
    }

    #[test]
    fn error_f32() {
        for spread in [0, 1, 3, 30, 120] {
            worst_f32(1009, spread).assert_at_most(0.66);
        }
    }

    #[test]
    #[ignore = "2^33 pairs: minutes"]
    fn error_f32_everywhere() {
        for spread in [1, 30] {
            worst_f32(1, spread).assert_at_most(0.66);
        }
    }

    /// Points all around, near the axes and the diagonals, of any size, and with quotients at the ends of the range: so
    /// many of each.
    fn check_f64(count: usize) {
        let angles = oracle::uniform(1).map(|turn| (core::f64::consts::TAU * turn).sin_cos());
        let (y, x): (Vec<_>, Vec<_>) = angles.take(count).unzip();
        worst_f64(&y, &x).assert_at_most(0.66);
        let tiny = |x: &[f64]| x.iter().map(|x| x * 2_f64.powi(-1060)).collect::<Vec<_>>();
        worst_f64(&tiny(&y), &tiny(&x)).assert_at_most(0.66);
        let huge = |x: &[f64]| x.iter().map(|x| x * f64::MAX).collect::<Vec<_>>();
        worst_f64(&huge(&y), &huge(&x)).assert_at_most(0.66);
        let near = |power: i32| oracle::uniform(2).map(move |x| (x - 0.5) * 2_f64.powi(power)).take(count);
        for power in [-2, -20, -50, -56, -1010, -1060] {
            let (axis, beside) = (y.iter().map(|y| y.signum()).collect::<Vec<_>>(), near(power).collect::<Vec<_>>());
            worst_f64(&axis, &beside).assert_at_most(0.66);
            worst_f64(&beside, &axis).assert_at_most(0.66);
            let diagonal: Vec<_> = axis.iter().zip(&beside).map(|(axis, beside)| axis + beside).collect();
            worst_f64(&axis, &diagonal).assert_at_most(0.66);
        }
        let (y, x) = (oracle::of_every_size::<f64>(count, 3), oracle::of_every_size::<f64>(count, 17));
        let (y, x): (Vec<_>, Vec<_>) = y.into_iter().zip(x).filter(|(y, x)| y.is_finite() && x.is_finite()).unzip();
        worst_f64(&y, &x).assert_at_most(0.66);
    }

    #[test]
    fn error_f64() {
        check_f64(8_000);
    }

    #[test]
    #[ignore = "many points: a minute"]
    fn error_f64_of_many() {
        check_f64(500_000);
    }

    #[test]
    fn special_values() {
        fn check<T: Float>(atan2: impl Fn(T, T) -> T) {
            let sizes = [T::zero(), T::one(), T::infinity()];
            let numbers: Vec<T> = sizes.into_iter().flat_map(|x| [x, -x]).collect();
            for &y in &numbers {
                for &x in &numbers {
                    let want = y.to_f64().unwrap_or(0.0).atan2(x.to_f64().unwrap_or(0.0));
                    let want = T::from(want).unwrap_or(T::zero());
                    assert_eq!(atan2(y, x).to_bits(), want.to_bits(), "atan2({y:e}, {x:e}) = {:e}", atan2(y, x));
                }
                assert!(atan2(y, T::nan()).is_nan() && atan2(T::nan(), y).is_nan(), "{y:e}");
            }
            let (tiny, largest, quarter) = (T::from_bits(1), T::max_value(), atan2(T::one(), T::zero()));
            assert_eq!((atan2(tiny, largest), atan2(tiny, -largest)), (T::zero(), quarter + quarter));
            assert_eq!((atan2(largest, tiny), atan2(-largest, -tiny)), (quarter, -quarter));
            assert_eq!((atan2(-tiny, T::one()), atan2(tiny, tiny)), (-tiny, atan2(largest, largest)));
        }
        check::<f32>(|y, x| value(&Atan2, y, x));
        check::<f64>(|y, x| value(&Atan2, y, x));
    }

    #[test]
    fn same_bits() {
        let (y, x) = (oracle::of_every_size::<f32>(100_000, 5), oracle::of_every_size::<f32>(100_000, 11));
        oracle::assert_same_bits(&Atan2, &y, &x);
        let (y, x) = (oracle::of_every_size::<f64>(20_000, 5), oracle::of_every_size::<f64>(20_000, 11));
        oracle::assert_same_bits(&Atan2, &y, &x);
    }
}
