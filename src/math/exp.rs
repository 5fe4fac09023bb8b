//! The exponential, its two-part form for products that would leave the range on the way, and `x 2^n`.
//!
//! Method: `x = n ln 2 + r` with `|r| <= ln(2)/2` and `r` in two terms, then
//! `e^r = 1 + r + r^2/2 + r^3 p(r)/2`, of which `1 + r` is summed without error and the rest added last
//! (W. J. Cody, W. Waite, "Software Manual for the Elementary Functions", 1980). The exponential alone, where it is normal,
//! takes `|r| <= ln(2)/16` and a power of two from a table (P. T. P. Tang, "Table-driven implementation of the exponential
//! function", ACM TOMS 15(2), 1989).

use super::{polynomial, polynomial_of_pairs, power_bits};
use crate::float::Float;
use crate::lanes::{Lanes, Mask};
use crate::simd::Simd;

/// What the exponential needs to know of a type.
pub trait ExpConstants: Sized + 'static {
    /// `1.5 * 2^(p-1)`: a number near it has its units in the last bits, so adding and subtracting it rounds to an
    /// integer, and the sum's last bits are that integer.
    const TO_INTEGER: Self;
    /// `1 / ln 2`.
    const LOG2_E: Self;
    /// `ln 2`, rounded: `x - n * LN2_HIGH` is exact, because both are multiples of the last bit of a number below 1/2.
    const LN2_HIGH: Self;
    /// `ln 2 - LN2_HIGH`, rounded.
    const LN2_LOW: Self;
    /// `p`. Minimax (Remez exchange, 60 digits) for `2 (e^r - 1 - r - r^2/2) / r^3` on `|r| <= 0.3468`, weighted to make
    /// the relative error of `e^r - 1` least; rounded, for f32 with a search among the neighbours. Error: f32 2^-30.9,
    /// f64 2^-59.0.
    const EXP_TAIL: &'static [Self];
    /// `q`. Minimax, as `p`, for `(e^r - 1 - r) / r^2`, weighted to make the relative error of `e^r` least. Error: f32
    /// 2^-30.3, f64 2^-60.8.
    const EXP_QUADRATIC: &'static [Self];
    /// Minimax, as `q`, for `(e^-r - 1 + r) / r^2`. Error: f32 2^-27.8, f64 2^-60.8.
    const DECAY: &'static [Self];
    /// `2^(j/8)`, rounded, less `j` eighths in the bits of the fraction, and what it lacks, relative to it.
    const EXP2_EIGHTHS: [[Self; 8]; 2];
    /// `(e^r - 1 - r) / r^2` for `|r| <= ln(2)/16`. Error in `e^r`: f32 2^-32.4, f64 2^-59.
    const EXP_SHORT: &'static [Self];
    /// Below it `e^x` rounds to 0.
    const EXP_ZERO_BELOW: Self;
    /// From it on `e^x` is at least twice the least normal number.
    const EXP_NORMAL_FROM: Self;
    /// Up to it the sum of exponents in `e^x` is right; beyond it `e^x` overflows.
    const EXP_INFINITE_ABOVE: Self;
    /// The greatest number whose exponential is finite.
    const EXP_FINITE_TO: Self;
    /// The greatest number whose power of two is finite.
    const EXP2_FINITE_TO: Self;
    /// Where `exp_parts` clamps: beyond any quotient of two finite numbers.
    const EXP_PARTS_LIMIT: Self;
}

impl ExpConstants for f32 {
    const TO_INTEGER: Self = 12_582_912.0;
    const LOG2_E: Self = core::f32::consts::LOG2_E;
    const LN2_HIGH: Self = core::f32::consts::LN_2;
    const LN2_LOW: Self = -1.904_654_2e-9;
    const EXP_TAIL: &'static [Self] = &[0.333_333_3, 0.083_332_96, 0.016_666_973, 0.002_786_753_5, 0.000_396_503_25];
    const EXP_QUADRATIC: &'static [Self] =
        &[0.5, 0.166_666_64, 0.041_666_564, 0.008_334_347, 0.001_392_390_5, 0.000_191_292_14];
    const DECAY: &'static [Self] = &[0.5, -0.166_664_88, 0.041_665_554, -0.008_372_283, 0.001_403_504_9];
    const EXP2_EIGHTHS: [[Self; 8]; 2] = [
        [1.0, 0.982_753_9, 0.969_603_54, 0.960_919_8, 0.957_106_77, 0.958_605_4, 0.965_896_4, 0.979_504_05],
        [
            0.0,
            -1.199_215_75e-8,
            3.193_418e-8,
            -3.099_072e-8,
            1.711_427_1e-8,
            5.233_334e-9,
            -1.471_960_5e-8,
            -6.128_259_7e-9,
        ],
    ];
    const EXP_SHORT: &'static [Self] = &[0.5, 0.166_680_26, 0.041_667_264];
    const EXP_ZERO_BELOW: Self = -104.0;
    const EXP_NORMAL_FROM: Self = -86.6;
    const EXP_INFINITE_ABOVE: Self = 89.0;
    const EXP_FINITE_TO: Self = 88.722_83;
    const EXP2_FINITE_TO: Self = 128.0_f32.next_down();
    const EXP_PARTS_LIMIT: Self = 700.0;
}

impl ExpConstants for f64 {
    const TO_INTEGER: Self = 6_755_399_441_055_744.0;
    const LOG2_E: Self = core::f64::consts::LOG2_E;
    const LN2_HIGH: Self = core::f64::consts::LN_2;
    const LN2_LOW: Self = 2.319_046_813_846_299_6e-17;
    const EXP_TAIL: &'static [Self] = &[
        0.333_333_333_333_333_54,
        0.083_333_333_333_333_15,
        0.016_666_666_666_644_278,
        0.002_777_777_777_788_686_3,
        0.000_396_825_397_700_354_9,
        4.960_317_439_360_228e-5,
        5.511_449_039_632_342e-6,
        5.511_477_620_128_458e-7,
        5.021_745_232_626_297e-8,
        4.175_728_499_581_57e-9,
    ];
    const EXP_QUADRATIC: &'static [Self] = &[
        0.5,
        0.166_666_666_666_666_7,
        0.041_666_666_666_666_21,
        0.008_333_333_333_326_96,
        0.001_388_888_888_923_372_6,
        0.000_198_412_698_714_574_67,
        2.480_158_645_673_569_8e-5,
        2.755_725_998_134_563e-6,
        2.755_814_100_604_251e-7,
        2.510_323_776_255_227_3e-8,
        2.061_320_666_465_166_4e-9,
    ];
    const DECAY: &'static [Self] = &[
        0.5,
        -0.166_666_666_666_666_7,
        0.041_666_666_666_666_21,
        -0.008_333_333_333_326_96,
        0.001_388_888_888_923_372_6,
        -0.000_198_412_698_714_574_67,
        2.480_158_645_673_569_8e-5,
        -2.755_725_998_134_563e-6,
        2.755_814_100_604_251e-7,
        -2.510_323_776_255_227_3e-8,
        2.061_320_666_465_166_4e-9,
    ];
    const EXP2_EIGHTHS: [[Self; 8]; 2] = [
        [
            1.0,
            0.982_753_866_332_628_8,
            0.969_603_557_501_360_5,
            0.960_919_777_325_504_8,
            0.957_106_781_186_547_6,
            0.958_605_412_703_970_4,
            0.965_896_415_253_714_5,
            0.979_504_043_204_671_2,
        ],
        [
            0.0,
            -2.793_911_485_951_573_3e-17,
            3.348_462_333_625_152_4e-17,
            1.957_258_529_311_203_6e-17,
            -6.835_808_657_661_922e-17,
            5.154_830_117_078_678_3e-17,
            4.875_160_526_227_062e-17,
            1.790_126_907_604_513e-17,
        ],
    ];
    const EXP_SHORT: &'static [Self] = &[
        0.5,
        0.166_666_666_666_666_66,
        0.041_666_666_666_666_664,
        0.008_333_333_333_333_333,
        0.001_388_888_888_888_889,
        0.000_198_412_698_412_698_4,
        2.480_158_730_158_73e-5,
    ];
    const EXP_ZERO_BELOW: Self = -745.2;
    const EXP_NORMAL_FROM: Self = -707.5;
    const EXP_INFINITE_ABOVE: Self = 710.0;
    const EXP_FINITE_TO: Self = 709.782_712_893_383_9;
    const EXP2_FINITE_TO: Self = 1024.0_f64.next_down();
    const EXP_PARTS_LIMIT: Self = 5600.0;
}

/// An exponent `hi + lo = n ln 2 + (high + low)` with `|high + low| <= ln(2)/2` and `low` of the order of the
/// rounding error of `hi`.
#[derive(Clone, Copy)]
pub(super) struct Reduced<T: Float, S: Simd<T>> {
    /// A number whose last bits are the integer `n`.
    shifted: Lanes<T, S>,
    pub(super) n: Lanes<T, S>,
    pub(super) high: Lanes<T, S>,
    pub(super) low: Lanes<T, S>,
}

impl<T: Float, S: Simd<T>> Reduced<T, S> {
    #[inline(always)]
    pub(super) fn new(hi: Lanes<T, S>, lo: Lanes<T, S>) -> Self {
        let shift = hi.all(T::TO_INTEGER);
        let shifted = hi.mul_add(hi.all(T::LOG2_E), shift);
        let n = shifted - shift;
        let high = n.mul_add(hi.all(-T::LN2_HIGH), hi);
        let low = n.mul_add(hi.all(-T::LN2_LOW), lo);
        Self { shifted, n, high, low }
    }

    /// The same for the exponent `x ln 2`.
    #[inline(always)]
    pub(super) fn base_2(x: Lanes<T, S>) -> Self {
        let shift = x.all(T::TO_INTEGER);
        let shifted = x + shift;
        let n = shifted - shift;
        let r = x - n;
        let (high, error) = r.two_mul(x.all(T::LN2_HIGH));
        Self { shifted, n, high, low: r.mul_add(x.all(T::LN2_LOW), error) }
    }

    /// `carry + high^2/2 + r^3 p(r)/2`.
    ///
    /// Half the square of `high` is the largest term, so it goes last, into the fused multiply-add that makes it exact.
    #[inline(always)]
    pub(super) fn tail(self, carry: Lanes<T, S>) -> Lanes<T, S> {
        let Self { high, low, .. } = self;
        let r = high + low;
        let half = high * r.all(T::one() / (T::one() + T::one()));
        // Not r * r, which counts the rounding of r twice.
        let half_square = half.mul_add(high, low * high);
        half.mul_add(high, (half_square * r).mul_add(polynomial(r, T::EXP_TAIL), carry))
    }

    /// `e^r` in two terms: `1 + high` rounded, and the rest, in which `low (1 + high)` is what `low` adds to the first
    /// two terms of the series.
    #[inline(always)]
    pub(super) fn significand(self) -> (Lanes<T, S>, Lanes<T, S>) {
        let (sum, error) = self.high.all(T::one()).fast_two_sum(self.high);
        (sum, self.tail(self.low.mul_add(sum, error)))
    }

    /// The bits of `x 2^n`, where that is a normal number.
    #[inline(always)]
    pub(super) fn scale(self, x: Lanes<T, S>) -> Lanes<T, S> {
        x.int_add(self.shifted.shl(T::FRACTION_BITS))
    }

    /// `2^n`, where that is a normal number.
    #[inline(always)]
    pub(super) fn power(self) -> Lanes<T, S> {
        self.scale(self.n.all(T::one()))
    }
}

/// `e^x`.
///
/// All `x`. Overflows to +Inf as the rounded true value does; `e^-Inf = 0`, `e^+Inf = +Inf`, NaN gives NaN. Subnormal
/// results are rounded once.
///
/// Largest error: f32 0.543 ULP, over all inputs, at 87.698868; f64 0.55 ULP, sampled.
#[inline(always)]
pub(crate) fn exp<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    x.share(
        #[inline(always)]
        || {
            let (normal, is_normal) = (Eighths::new(x).exp(), has_normal_exp(x));
            if is_normal.all() {
                return normal;
            }
            is_normal.select(normal, exp_of_reduced(x, Reduced::new(x, x.all(T::zero()))))
        },
    )
}

/// An exponent that is the logarithm of `2^n s[j]`, with `s[j]` near `2^(j/8)`, and `high + low`, of about `ln(2)/16` at the
/// most.
#[derive(Clone, Copy)]
pub(super) struct Eighths<T: Float, S: Simd<T>> {
    /// A number whose last bits are the integer `8n + j`.
    shifted: Lanes<T, S>,
    high: Lanes<T, S>,
    low: Lanes<T, S>,
}

impl<T: Float, S: Simd<T>> Eighths<T, S> {
    #[inline(always)]
    fn new(x: Lanes<T, S>) -> Self {
        let eight = T::from(8).expect("a small integer");
        let shift = x.all(T::TO_INTEGER);
        let shifted = x.mul_add(x.all(T::LOG2_E * eight), shift);
        let eighths = shifted - shift;
        let high = eighths.mul_add(x.all(-T::LN2_HIGH / eight), x);
        let [_, errors] = &T::EXP2_EIGHTHS;
        Self { shifted, high, low: eighths.mul_add(x.all(-T::LN2_LOW / eight), shifted.lookup(errors)) }
    }

    /// The same for the exponent `x ln 2`.
    #[inline(always)]
    pub(super) fn base_2(x: Lanes<T, S>) -> Self {
        let eight = T::from(8).expect("a small integer");
        let shift = x.all(T::TO_INTEGER);
        let shifted = x.mul_add(x.all(eight), shift);
        let r = (shifted - shift).mul_add(x.all(-T::one() / eight), x);
        let (high, error) = r.two_mul(x.all(T::LN2_HIGH));
        let [_, errors] = &T::EXP2_EIGHTHS;
        Self { shifted, high, low: r.mul_add(x.all(T::LN2_LOW), error) + shifted.lookup(errors) }
    }

    /// The exponential, where it is normal, as is its inverse: `2^n s[j] (1 + g)` with `g` so small that the sum all but rounds
    /// once.
    #[inline(always)]
    pub(super) fn exp(self) -> Lanes<T, S> {
        let Self { shifted, high, low } = self;
        let [significands, _] = &T::EXP2_EIGHTHS;
        let r = high + low;
        let growth = high + (r * r).mul_add(polynomial(r, T::EXP_SHORT), low);
        let power = shifted.lookup(significands).int_add(shifted.shl(T::FRACTION_BITS - 3));
        growth.mul_add(power, power)
    }
}

/// `e^(hi + lo)` for a sum in two terms, `|lo| <= ulp(hi) / 2`: with the rounding error of `hi`, the error is that of
/// [`exp`] and not `|hi|` times as large.
///
/// As [`exp`]; `lo` counts for nothing where `hi` is infinite or far out of range.
///
/// Largest error: f32 0.551 ULP, over all `hi` with one `lo` each, at 27.40546 - 8.633238e-7; f64 0.55 ULP, sampled.
#[inline(always)]
pub(crate) fn exp_of_sum<T: Float, S: Simd<T>>(hi: Lanes<T, S>, lo: Lanes<T, S>) -> Lanes<T, S> {
    hi.share(
        #[inline(always)]
        || exp_of_reduced(hi, Reduced::new(hi, lo)),
    )
}

/// The exponential of a reduced argument that is near `hi`.
#[inline(always)]
pub(super) fn exp_of_reduced<T: Float, S: Simd<T>>(hi: Lanes<T, S>, reduced: Reduced<T, S>) -> Lanes<T, S> {
    let (sum, tail) = reduced.significand();
    let result = reduced.scale(sum + tail);
    if has_normal_exp(hi).all() {
        return result;
    }
    // The exponent of the greatest results is out of range where the significand is below 1: half of it is not.
    let half = result.int_sub(hi.all(T::min_positive_value()));
    let result = with_small_results(hi, reduced, sum, tail, half + half);
    hi.le(hi.all(T::EXP_INFINITE_ABOVE)).select(result, hi + hi.all(T::infinity()))
}

/// [`exp_of_sum`] for `hi <= 0`, or NaN, in fewer operations.
///
/// Largest error: that of [`normal_exp`].
#[inline(always)]
pub(crate) fn exp_of_difference<T: Float, S: Simd<T>>(hi: Lanes<T, S>, lo: Lanes<T, S>) -> Lanes<T, S> {
    hi.share(
        #[inline(always)]
        || {
            let result = normal_exp(hi, lo);
            if !hi.lt(hi.all(T::EXP_NORMAL_FROM)).any() {
                return result;
            }
            let reduced = Reduced::new(hi, lo);
            let (sum, tail) = reduced.significand();
            with_small_results(hi, reduced, sum, tail, result)
        },
    )
}

/// [`exp_of_sum`] where it is normal, as is its inverse; NaN where `hi` is: `1 + high` is not split, which a softmax can
/// spare.
///
/// Largest error: f32 0.84 ULP, over every 251st `hi` with one `lo` each; f64 0.84 ULP, sampled.
#[inline(always)]
pub(crate) fn normal_exp<T: Float, S: Simd<T>>(hi: Lanes<T, S>, lo: Lanes<T, S>) -> Lanes<T, S> {
    // As `Reduced::new`, but the last bits of `shifted` are the exponent field of 2^n.
    let shift = hi.all(T::TO_INTEGER + T::from(T::BIAS).expect("a small integer"));
    let shifted = hi.mul_add(hi.all(T::LOG2_E), shift);
    let n = shifted - shift;
    let high = n.mul_add(hi.all(-T::LN2_HIGH), hi);
    let low = n.mul_add(hi.all(-T::LN2_LOW), lo);
    let r = high + low;
    let growth = high + (r * r).mul_add(polynomial_of_pairs(r, T::EXP_QUADRATIC), low); // e^r - 1
    let power = shifted.shl(T::FRACTION_BITS);
    growth.mul_add(power, power)
}

/// `e^-(hi + lo) = 2^n (1 + growth)`, where that is normal, as `2^n` and the growth in two terms, which is between -0.3 and
/// 0.42; a `lo` of -0 costs nothing.
///
/// Error, relative to `1 + growth`: f32 2^-25.6, f64 2^-54.6.
#[inline(always)]
pub(super) fn decay<T: Float, S: Simd<T>>(hi: Lanes<T, S>, lo: Lanes<T, S>) -> (Lanes<T, S>, [Lanes<T, S>; 2]) {
    // With the bias in it, the last bits of the sum are those of an exponent.
    let shift = hi.all(T::TO_INTEGER + T::from(T::BIAS).expect("a small integer"));
    let shifted = hi.mul_add(hi.all(-T::LOG2_E), shift);
    let n = shifted - shift;
    let r = n.mul_add(hi.all(T::LN2_LOW), n.mul_add(hi.all(T::LN2_HIGH), hi) + lo);
    (shifted.shl(T::FRACTION_BITS), [-r, r * r * polynomial(r, T::DECAY)])
}

/// Whether [`normal_exp`] gives the exponential of `x`.
#[inline(always)]
pub(crate) fn has_normal_exp<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Mask<T, S> {
    x.abs().le(x.all(-T::EXP_NORMAL_FROM))
}

/// `result`, but where the exponential is subnormal or 0.
#[inline(always)]
pub(super) fn with_small_results<T: Float, S: Simd<T>>(
    hi: Lanes<T, S>,
    reduced: Reduced<T, S>,
    sum: Lanes<T, S>,
    tail: Lanes<T, S>,
    mut result: Lanes<T, S>,
) -> Lanes<T, S> {
    let zero = hi.lt(hi.all(T::EXP_ZERO_BELOW));
    let small = hi.lt(hi.all(T::EXP_NORMAL_FROM)) & !zero;
    if small.any() {
        result = small.select(small_result(reduced, sum, tail), result);
    }
    zero.select(hi.all(T::zero()), result)
}

/// `(sum + tail) 2^n` where that is subnormal, rounded once to a multiple of the smallest number, or little larger.
///
/// Scaled so that the smallest number is the last place in [2, 4), and added to 2: what the bits have grown by is the
/// result's bits.
#[inline(always)]
fn small_result<T: Float, S: Simd<T>>(reduced: Reduced<T, S>, sum: Lanes<T, S>, tail: Lanes<T, S>) -> Lanes<T, S> {
    let two = sum.all(T::one() + T::one());
    let scale = reduced.scale(sum.all(power_bits(T::BIAS)));
    let (rounded, error) = two.fast_two_sum(sum * scale);
    let subnormal = (rounded + tail.mul_add(scale, error)).int_sub(two);

    let significand = sum + tail;
    let normal = reduced.scale(significand);
    (significand * scale).lt(two).select(subnormal, normal)
}

/// `(m, n)` with `m 2^n = e^(hi + lo)`, `m` in (0.7, 1.42) and `n` integral, for products of which no factor may over-
/// or underflow: see [`scale`] and [`scaled_product`].
///
/// `|lo| <= ulp(hi) / 2`. `hi` is clamped to +-700 in f32, +-5600 in f64: what is beyond leaves the range in any
/// product with one finite factor. `hi = -Inf` gives `m = 0`, +Inf gives `m = +Inf`, NaN gives `m = NaN` and `n = NaN`.
///
/// Error of `m`: that of [`exp_of_sum`].
#[inline(always)]
pub(crate) fn exp_parts<T: Float, S: Simd<T>>(hi: Lanes<T, S>, lo: Lanes<T, S>) -> (Lanes<T, S>, Lanes<T, S>) {
    hi.share(
        #[inline(always)]
        || {
            let infinity = hi.all(T::infinity());
            // What comes with an infinite difference is NaN.
            let lo = hi.abs().le(hi.all(T::EXP_PARTS_LIMIT)).select(lo, hi.all(T::zero()));
            let reduced = Reduced::new(clamp(hi, -T::EXP_PARTS_LIMIT, T::EXP_PARTS_LIMIT), lo);
            let (sum, tail) = reduced.significand();
            let m = hi.eq(-infinity).select(hi.all(T::zero()), sum + tail);
            (hi.eq(infinity).select(infinity, m), reduced.n)
        },
    )
}

/// `x 2^n`, `n` integral and of any size.
///
/// Exact, unless the true value overflows or is subnormal; that is rounded once. NaN gives NaN.
#[inline(always)]
pub(crate) fn scale<T: Float, S: Simd<T>>(x: Lanes<T, S>, n: Lanes<T, S>) -> Lanes<T, S> {
    x.share(
        #[inline(always)]
        || {
            let (least, greatest) = (T::from(1 - T::BIAS), T::from(T::BIAS));
            let (least, greatest) = (least.expect("a small integer"), greatest.expect("a small integer"));
            let last = clamp(n, least, greatest);
            let mut y = x;
            if (n.lt(n.all(least)) | n.all(greatest).lt(n)).any() {
                // The numbers of a type span less than three times what one factor can do. The last factor is the extreme one
                // where there are others, so what they make subnormal or infinite comes to 0 or infinity in any case.
                let rest = n - last;
                let middle = clamp(rest, least, greatest);
                y = y * power(clamp(rest - middle, least, greatest)) * power(middle);
            }
            y * power(last)
        },
    )
}

/// `(m, n)` with `m 2^n = x`, `1 <= |m| < 2` and `n` integral; 0, Inf and NaN stay as they are, with `n = 0`.
#[inline(always)]
pub(crate) fn split_exponent<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> (Lanes<T, S>, Lanes<T, S>) {
    x.share(
        #[inline(always)]
        || {
            let (zero, one) = (x.all(T::zero()), x.all(T::one()));
            let has_none = x.eq(zero) | !(x.abs().lt(x.all(T::infinity())));
            // A subnormal is taken up first.
            let is_small = x.abs().lt(x.all(T::min_positive_value()));
            let up = x.all(T::from(T::FRACTION_BITS + 1).expect("a small integer"));
            let normal = is_small.select(x * power(up), x);
            // The exponent field, as the last bits of a number whose units are there.
            let field = normal.abs().shr(T::FRACTION_BITS) | x.all(T::TO_INTEGER);
            let bias = T::from(T::BIAS).expect("a small integer");
            let exponent = field - x.all(T::TO_INTEGER + bias) - is_small.select(up, zero);
            let exponent_bits = normal.abs().shr(T::FRACTION_BITS).shl(T::FRACTION_BITS);
            let mantissa = normal.int_sub(exponent_bits).int_add(one);
            (has_none.select(x, mantissa), has_none.select(zero, exponent))
        },
    )
}

/// `a m 2^n` for `m` in [1/16, 4) or 0, Inf, NaN: rounded for the product and, if subnormal, once more; no over- or
/// underflow on the way.
#[inline(always)]
pub(crate) fn scaled_product<T: Float, S: Simd<T>>(a: Lanes<T, S>, m: Lanes<T, S>, n: Lanes<T, S>) -> Lanes<T, S> {
    a.share(
        #[inline(always)]
        || {
            // A small `a` is taken up, so that the product is normal; a large one down, so that it is finite.
            let up = T::from(T::FRACTION_BITS + 8).expect("a small integer");
            let down = -(T::one() + T::one());
            let shift = a.abs().lt(a.all(T::one())).select(a.all(up), a.all(down));
            scale(a * (m * power(shift)), n - shift)
        },
    )
}

/// [`scaled_product`] of a factor in two terms, `m + m_low`, which costs no rounding of its own.
#[inline(always)]
pub(super) fn scaled_product_of_sum<T: Float, S: Simd<T>>(
    a: Lanes<T, S>,
    (m, m_low): (Lanes<T, S>, Lanes<T, S>),
    n: Lanes<T, S>,
) -> Lanes<T, S> {
    a.share(
        #[inline(always)]
        || {
            let up = T::from(T::FRACTION_BITS + 8).expect("a small integer");
            let down = -(T::one() + T::one());
            let shift = a.abs().lt(a.all(T::one())).select(a.all(up), a.all(down));
            let factor = power(shift);
            let product = a.mul_add(m * factor, a * (m_low * factor));
            // An infinity times the second term may be NaN.
            scale(a.abs().lt(a.all(T::infinity())).select(product, a * m), n - shift)
        },
    )
}

/// `2^n` for integral `n` whose power is a normal number.
#[inline(always)]
pub(super) fn power<T: Float, S: Simd<T>>(n: Lanes<T, S>) -> Lanes<T, S> {
    let bias = T::from(T::BIAS).expect("a small integer");
    (n + n.all(T::TO_INTEGER + bias)).shl(T::FRACTION_BITS)
}

/// `x` within limits; NaN stays NaN.
#[inline(always)]
pub(crate) fn clamp<T: Float, S: Simd<T>>(x: Lanes<T, S>, low: T, high: T) -> Lanes<T, S> {
    let (low, high) = (x.all(low), x.all(high));
    let x = x.lt(low).select(low, x);
    high.lt(x).select(high, x)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::math::oracle::{self, Double, Function, Worst, value};

    struct Exp;

    impl<T: Float> Function<T> for Exp {
        #[inline(always)]
        fn apply<S: Simd<T>>(&self, x: Lanes<T, S>, _: Lanes<T, S>) -> Lanes<T, S> {
            exp(x)
        }
    }

    struct ExpOfSum;

    impl<T: Float> Function<T> for ExpOfSum {
        #[inline(always)]
        fn apply<S: Simd<T>>(&self, hi: Lanes<T, S>, lo: Lanes<T, S>) -> Lanes<T, S> {
            exp_of_sum(hi, lo)
        }
    }

    struct ExpOfDifference;

    impl<T: Float> Function<T> for ExpOfDifference {
        #[inline(always)]
        fn apply<S: Simd<T>>(&self, hi: Lanes<T, S>, lo: Lanes<T, S>) -> Lanes<T, S> {
            let negative_or_nan = !hi.all(T::zero()).lt(hi);
            negative_or_nan.select(exp_of_difference(hi, lo), exp_of_sum(hi, lo))
        }
    }

    /// The parts put together again.
    struct Parts;

    impl<T: Float> Function<T> for Parts {
        #[inline(always)]
        fn apply<S: Simd<T>>(&self, hi: Lanes<T, S>, lo: Lanes<T, S>) -> Lanes<T, S> {
            let (m, n) = exp_parts(hi, lo);
            scale(m, n)
        }
    }

    struct Scale;

    impl<T: Float> Function<T> for Scale {
        #[inline(always)]
        fn apply<S: Simd<T>>(&self, x: Lanes<T, S>, n: Lanes<T, S>) -> Lanes<T, S> {
            scale(x, n)
        }
    }

    /// `g e^x`.
    struct Product;

    impl<T: Float> Function<T> for Product {
        #[inline(always)]
        fn apply<S: Simd<T>>(&self, x: Lanes<T, S>, g: Lanes<T, S>) -> Lanes<T, S> {
            let (m, n) = exp_parts(x, x.all(T::zero()));
            scaled_product(g, m, n)
        }
    }

    /// A number without pattern from -1 to 1 for each `x`.
    fn scatter(x: f32) -> f32 {
        let bits = x.to_bits().wrapping_mul(0x9e37_79b1);
        (bits ^ bits >> 15) as f32 * 2_f32.powi(-31) - 1.0
    }

    /// Up to half the last place of `x`.
    fn low_part(x: f32) -> f32 {
        if x.abs() < 1e30 { (x.abs().next_up() - x.abs()) * 0.5 * scatter(x) } else { 0.0 }
    }

    fn worst_exp(step: u32) -> Worst {
        oracle::worst_f32(&Exp, step, |_| 0.0, |x, _| x.exp())
    }

    fn worst_exp_of_sum(step: u32) -> Worst {
        oracle::worst_f32(&ExpOfSum, step, low_part, |hi, lo| (hi + lo).exp())
    }

    fn worst_exp_of_difference(step: u32) -> Worst {
        oracle::worst_f32(&ExpOfDifference, step, low_part, |hi, lo| (hi + lo).exp())
    }

    #[test]
    fn error_f32() {
        worst_exp(251).assert_at_most(0.55);
        worst_exp_of_sum(251).assert_at_most(0.551);
        worst_exp_of_difference(251).assert_at_most(0.84);
    }

    #[test]
    #[ignore = "all 2^32 inputs: a minute"]
    fn error_f32_everywhere() {
        worst_exp(1).assert_at_most(0.55);
    }

    #[test]
    #[ignore = "all 2^32 inputs: a minute"]
    fn error_of_sum_f32_everywhere() {
        worst_exp_of_sum(1).assert_at_most(0.551);
    }

    #[test]
    #[ignore = "all 2^32 inputs: a minute"]
    fn error_of_difference_f32_everywhere() {
        worst_exp_of_difference(1).assert_at_most(0.84);
    }

    #[test]
    fn error_of_parts_f32() {
        oracle::worst_f32(&Parts, 1009, low_part, |hi, lo| (hi + lo).exp()).assert_at_most(1.0);
        let upstream = |x: f32| (scatter(x) * 126.0).exp2();
        oracle::worst_f32(&Product, 1009, upstream, |x, g| g * x.exp()).assert_at_most(1.5);
    }

    #[test]
    fn error_f64() {
        let all = oracle::uniform(1).map(|x| 1455.0 * x - 745.2);
        let near_zero = oracle::uniform(2).map(|x| 2.0 * x - 1.0);
        let subnormal = oracle::uniform(3).map(|x| -707.0 - 38.0 * x);
        let hi: Vec<f64> = [all.take(80_000).collect::<Vec<_>>(), near_zero.take(80_000).collect()]
            .into_iter()
            .chain([subnormal.take(40_000).collect()])
            .flatten()
            .filter(|&x| x < 709.78)
            .collect();
        let place = |x: f64| x.abs().next_up() - x.abs();
        let lo: Vec<f64> = hi.iter().zip(oracle::uniform(4)).map(|(&x, y)| place(x) * (y - 0.5)).collect();

        let mut worst = [Worst::default(); 4];
        let results = oracle::apply(&Exp, &hi, &lo).into_iter().zip(oracle::apply(&ExpOfSum, &hi, &lo));
        for ((&hi, &lo), (got, got_of_sum)) in hi.iter().zip(&lo).zip(results) {
            let (m, n) = oracle::exp(Double::new(hi));
            worst[0].meet(oracle::ulps_f64(got, m, n), (hi, 0.0));
            let (m, n) = oracle::exp(Double(hi, lo));
            worst[1].meet(oracle::ulps_f64(got_of_sum, m, n), (hi, lo));
        }
        for ((&hi, &lo), got) in hi.iter().zip(&lo).zip(oracle::apply(&Parts, &hi, &lo)) {
            let (m, n) = oracle::exp(Double(hi, lo));
            worst[2].meet(oracle::ulps_f64(got, m, n), (hi, lo));
        }
        for ((&hi, &lo), got) in hi.iter().zip(&lo).zip(oracle::apply(&ExpOfDifference, &hi, &lo)) {
            let (m, n) = oracle::exp(Double(hi, lo));
            worst[3].meet(oracle::ulps_f64(got, m, n), (hi, lo));
        }
        worst[0].assert_at_most(0.55);
        worst[1].assert_at_most(0.55);
        worst[2].assert_at_most(1.0);
        worst[3].assert_at_most(0.84);
    }

    #[test]
    fn special_values() {
        fn check<T: Float>(value: impl Fn(T, T) -> T) {
            let (zero, one, infinity) = (T::zero(), T::one(), T::infinity());
            for x in [zero, -zero, T::from_bits(1), -T::min_positive_value()] {
                assert_eq!(value(x, zero), one, "e^{x:e}");
            }
            for x in [infinity, T::max_value(), T::from(5e4).unwrap()] {
                assert_eq!(value(x, zero), infinity, "e^{x:e}");
                assert_eq!(value(-x, zero).to_bits(), 0, "e^{:e}", -x);
            }
            // The rounding error of an infinite difference is NaN and counts for nothing.
            assert_eq!(value(-infinity, T::nan()).to_bits(), 0);
            for nan in
                [T::nan(), -T::nan(), T::from_bits(T::infinity().to_bits() + 1), T::from_bits(T::ABS_MASK.to_bits())]
            {
                assert!(value(nan, zero).is_nan(), "{:x}", nan.to_bits());
            }
        }
        check::<f32>(|x, y| value(&ExpOfSum, x, y));
        check::<f64>(|x, y| value(&ExpOfSum, x, y));
        check::<f32>(|x, y| value(&ExpOfDifference, x, y));
        check::<f64>(|x, y| value(&ExpOfDifference, x, y));
        check::<f32>(|x, y| value(&Parts, x, y));
        check::<f64>(|x, y| value(&Parts, x, y));
    }

    #[test]
    fn ends_of_the_range() {
        // The low part decides about overflow.
        assert_eq!(value(&ExpOfSum, 88.722_84_f32, 0.0), f32::INFINITY);
        assert_eq!(value(&ExpOfSum, 88.722_84_f32, -3e-6), 3.402_814_3e38);
        assert_eq!(value(&ExpOfSum, -103.972_09_f32, 0.0), 0.0);
        assert_eq!(value(&ExpOfSum, -103.972_07_f32, 0.0), f32::from_bits(1));
        assert_eq!(value(&Exp, 709.782_712_893_383_9_f64, 0.0), 1.797_693_134_862_068_8e308);
        assert_eq!(value(&Exp, 709.782_712_893_384_1_f64, 0.0), f64::INFINITY);
        assert_eq!(value(&Exp, -745.133_219_101_941_1_f64, 0.0), f64::from_bits(1));
        assert_eq!(value(&Exp, -745.133_219_101_941_2_f64, 0.0), 0.0);
    }

    /// The definition, in exact arithmetic and one rounding.
    fn scale_reference(x: f32, n: f32) -> f32 {
        (f64::from(x) * 2_f64.powf(f64::from(n))) as f32
    }

    #[test]
    fn scale_rounds_once() {
        let x = oracle::of_every_size::<f32>(400_000, 5);
        let n: Vec<f32> = oracle::uniform(6).map(|x| (600.0 * x as f32).round() - 300.0).take(x.len()).collect();
        for ((&x, &n), got) in x.iter().zip(&n).zip(oracle::apply(&Scale, &x, &n)) {
            let want = scale_reference(x, n);
            assert!(
                got.to_bits() == want.to_bits() || (x.is_nan() && got.is_nan()),
                "{x:e} 2^{n} = {got:e}, not {want:e}"
            );
        }
        for (x, n, want) in [
            (1.0, 1023.0, 2_f64.powi(1023)),
            (f64::from_bits(1), 2097.0, 2_f64.powi(1023)),
            (2_f64.powi(1023), -2097.0, f64::from_bits(1)),
            (f64::MAX, -2098.0, f64::from_bits(1)),
            (f64::MAX, -2099.0, 0.0),
            (1.0, 5000.0, f64::INFINITY),
            (-1.0, -5000.0, -0.0),
            (0.0, 5000.0, 0.0),
            (3.0, -1075.0, f64::from_bits(2)),
            (f64::INFINITY, -5000.0, f64::INFINITY),
        ] {
            assert_eq!(value(&Scale, x, n).to_bits(), f64::to_bits(want), "{x:e} 2^{n}");
        }
    }

    #[test]
    fn a_product_leaves_the_range_only_at_its_end() {
        // e^x alone is 0, or the product with g is subnormal, or infinite, on the way.
        let cases =
            [(-150.0_f32, 1e38_f32), (-80.0, 1e-9), (100.0, 1e-30), (150.0, 1e-38), (0.3, 1e-45), (-0.3, 3.4e38)];
        for (x, g) in cases {
            let got = value(&Product, x, g);
            let want = f64::from(g) * f64::from(x).exp();
            assert!(oracle::ulps_f32(got, want) <= 1.5, "{g:e} e^{x} = {got:e}, not {want:e}");
        }
        assert_eq!(value(&Product, 88.8_f32, f32::MAX), f32::INFINITY);
        assert_eq!(value(&Product, f32::NEG_INFINITY, f32::MAX), 0.0);
        assert!(value(&Product, f32::NEG_INFINITY, f32::NAN).is_nan());
        assert!(value(&Product, f32::NAN, 0.0).is_nan());
    }

    #[test]
    fn same_bits() {
        let y = oracle::of_every_size::<f32>(100_000, 6);
        let x = oracle::of_every_size::<f32>(100_000, 5);
        oracle::assert_same_bits(&Exp, &x, &y);
        oracle::assert_same_bits(&Product, &x, &y);
        let x: Vec<f32> = oracle::uniform(7).map(|x| 200.0 * x as f32 - 106.0).take(100_000).collect();
        let low: Vec<f32> = x.iter().map(|&x| low_part(x)).collect();
        oracle::assert_same_bits(&ExpOfSum, &x, &low);
        oracle::assert_same_bits(&ExpOfDifference, &x, &low);
        oracle::assert_same_bits(&Parts, &x, &low);
        oracle::assert_same_bits(&Product, &x, &y);

        let y = oracle::of_every_size::<f64>(20_000, 9);
        let x = oracle::of_every_size::<f64>(20_000, 8);
        oracle::assert_same_bits(&Exp, &x, &y);
        oracle::assert_same_bits(&Product, &x, &y);
        let x: Vec<f64> = oracle::uniform(10).map(|x| 1460.0 * x - 748.0).take(20_000).collect();
        let low: Vec<f64> = x.iter().map(|&x| x * 2_f64.powi(-54)).collect();
        oracle::assert_same_bits(&ExpOfSum, &x, &low);
        oracle::assert_same_bits(&ExpOfDifference, &x, &low);
        oracle::assert_same_bits(&Parts, &x, &low);
        oracle::assert_same_bits(&Product, &x, &y);
    }
}
