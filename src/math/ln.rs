//! The logarithm, rounded and in two terms.
//!
//! Method of the first: `x = 2^k (1 + g)` with `1 + g` in `[0.68, 1.36)`, and `ln(1 + g) = g - g^2/2 + g^3 p(g)`, of
//! which `k ln 2`, `g` and the square are summed with their errors (W. J. Cody, W. Waite, "Software Manual for the
//! Elementary Functions", 1980).
//!
//! Method of the second: `1 + g` in `[sqrt(1/2), sqrt(2))`, and with `t = g / (1 + g/2)` and `q = t^2/4`
//! `ln(1 + g) = t (1 + q/3 + q^2 r(q))`, the series of the inverse hyperbolic tangent, of which `t`, `q` and the
//! coefficient `1/3` are carried in two terms (W. J. Cody, W. Waite, "Software Manual for the Elementary Functions",
//! 1980; the arithmetic of two terms is T. J. Dekker's, Numerische Mathematik 18, 1971).

use super::ln_1p::exponent;
use super::{polynomial, polynomial_of_pairs, power_bits};
use crate::float::Float;
use crate::lanes::{Lanes, Mask};
use crate::simd::Simd;

/// What the logarithm in two terms needs to know of a type.
pub trait LnConstants: Sized + 'static {
    /// The least significand.
    const SQRT_HALF: Self;
    /// `1/3`, rounded.
    const THIRD: Self;
    /// `1/3 - THIRD`, rounded.
    const THIRD_LOW: Self;
    /// `r`: interpolates `(artanh(s)/s - 1 - q/3) / q^2`, `q = s^2`, at the Chebyshev nodes of `0 <= q <= 0.02946`;
    /// rounded. Error in the logarithm: f32 2^-38.4, f64 2^-66.3.
    const LN_TAIL: &'static [Self];
}

impl LnConstants for f32 {
    const SQRT_HALF: Self = core::f32::consts::FRAC_1_SQRT_2;
    const THIRD: Self = 0.333_333_34;
    const THIRD_LOW: Self = -9.934_108e-9;
    const LN_TAIL: &'static [Self] = &[0.2, 0.142_857_66, 0.111_023_74, 0.095_604_22];
}

impl LnConstants for f64 {
    const SQRT_HALF: Self = core::f64::consts::FRAC_1_SQRT_2;
    const THIRD: Self = 0.333_333_333_333_333_3;
    const THIRD_LOW: Self = 1.850_371_707_708_594e-17;
    const LN_TAIL: &'static [Self] = &[
        0.2,
        0.142_857_142_857_146_85,
        0.111_111_111_108_272_5,
        0.090_909_091_678_533_6,
        0.076_922_974_644_920_55,
        0.066_674_032_586_527_5,
        0.058_530_937_599_893_966,
        0.058_618_445_118_246_13,
    ];
}

/// `ln x`.
///
/// All `x`: +-0 give -Inf, 1 gives 0, +Inf gives +Inf; what is less than 0, and NaN, give NaN.
///
/// Largest error: f32 0.583 ULP, over all inputs, at 1.2685566; f64 0.59 ULP, sampled.
#[inline(always)]
pub(crate) fn ln<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    logarithm(
        x,
        #[inline(always)]
        |k, g| ln_of_reduced(k, g),
    )
}

/// A logarithm, of any base, of all `x`: that of `x = 2^k (1 + g)` is `of_reduced(k, g)`.
#[inline(always)]
pub(super) fn logarithm<T: Float, S: Simd<T>>(
    x: Lanes<T, S>,
    of_reduced: impl Fn(Lanes<T, S>, Lanes<T, S>) -> Lanes<T, S>,
) -> Lanes<T, S> {
    x.share(
        #[inline(always)]
        || {
            let (least, infinity) = (x.all(T::min_positive_value()), x.all(T::infinity()));
            let bias = x.all(T::from(T::BIAS).expect("a small integer"));
            let is_normal = least.le(x) & x.lt(infinity);
            if !(!is_normal).any() {
                let (k, g) = reduced(x, bias);
                return of_reduced(k, g);
            }
            // A subnormal is taken up first.
            let up = T::FRACTION_BITS.cast_signed() + 1;
            let raised_bias = bias + x.all(T::from(up).expect("a small integer"));
            let is_small = x.lt(least);
            let normal = is_small.select(x * x.all(power_bits(up)), x);
            let (k, g) = reduced(normal, is_small.select(raised_bias, bias));
            has_logarithm(x).select(of_reduced(k, g), at_pole(x))
        },
    )
}

/// `k` and `g` with `2^k (1 + g) = x / 2^b` for a normal `x > 0`, where `b` is what `bias` has above that of the type.
#[inline(always)]
fn reduced<T: Float, S: Simd<T>>(x: Lanes<T, S>, bias: Lanes<T, S>) -> (Lanes<T, S>, Lanes<T, S>) {
    let (one, least) = (x.all(T::one()), x.all(T::LEAST_SIGNIFICAND));
    let fraction_mask = x.all(T::min_positive_value()).int_sub(x.all(T::from_bits(1)));
    // The bits of x / 0.68, as far as the exponent goes, and the fraction counted from 0.68.
    let bits = x.int_add(one.int_sub(least));
    (exponent(bits, bias), (bits & fraction_mask).int_add(least) - one)
}

/// `k ln 2 + ln(1 + g)`.
#[inline(always)]
fn ln_of_reduced<T: Float, S: Simd<T>>(k: Lanes<T, S>, g: Lanes<T, S>) -> Lanes<T, S> {
    let short = g.all(T::LN2_SHORT);
    let linear = k.mul_add(short, g);
    let carry = g - k.mul_add(-short, linear);
    let half = g * g.all(-T::one() / (T::one() + T::one()));
    let sum = half.mul_add(g, linear);
    let rest = half.mul_add(g, linear - sum);
    let small = k.mul_add(g.all(T::LN2_REST), carry + rest);
    sum + (g * g * g).mul_add(polynomial_of_pairs(g, T::LN_1P_TAIL), small)
}

/// Whether the logarithm is a finite number.
#[inline(always)]
fn has_logarithm<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Mask<T, S> {
    x.all(T::zero()).lt(x) & x.lt(x.all(T::infinity()))
}

/// The logarithm of 0 and `+Inf`, elsewhere NaN.
#[inline(always)]
fn at_pole<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    let infinity = x.all(T::infinity());
    x.eq(x.all(T::zero())).select(-infinity, x.eq(infinity).select(x, x.all(T::nan())))
}

/// `ln(1 + u)` as an unevaluated sum, the first term of which is the sum rounded.
///
/// All `u`; as [`ln_parts`] of `1 + u`, but that 0 keeps its sign.
///
/// Largest error of the first term: f32 0.504 ULP, sampled, at 136874928; f64 0.502 ULP, sampled.
#[cfg(test)] // until the vector functions are public
#[inline(always)]
pub(crate) fn ln_1p_parts<T: Float, S: Simd<T>>(u: Lanes<T, S>) -> (Lanes<T, S>, Lanes<T, S>) {
    let (w, error) = u.all(T::one()).two_sum(u);
    let (hi, lo) = ln_parts(w, error);
    (u.eq(u.all(T::zero())).select(u, hi), lo)
}

/// `ln(x + error)` as an unevaluated sum, the first term of which is the sum rounded; `error` is 0 or what `x`, not
/// subnormal, was rounded by.
///
/// All `x`, as [`ln`]; the second term is 0 where the first is not finite.
///
/// Largest error of the sum, relative: f32 2^-34, f64 2^-62; sampled.
#[inline(always)]
pub(crate) fn ln_parts<T: Float, S: Simd<T>>(x: Lanes<T, S>, error: Lanes<T, S>) -> (Lanes<T, S>, Lanes<T, S>) {
    x.share(
        #[inline(always)]
        || {
            let (zero, one, infinity) = (x.all(T::zero()), x.all(T::one()), x.all(T::infinity()));
            let half = x.all(T::one() / (T::one() + T::one()));
            // A subnormal is taken up first.
            let is_small = x.lt(x.all(T::min_positive_value()));
            let up = T::FRACTION_BITS.cast_signed() + 1;
            let normal = is_small.select(x * x.all(power_bits(up)), x);
            // The exponent field of x / sqrt(1/2), right because the fraction only carries into it.
            let field = normal.int_add(one.int_sub(x.all(T::SQRT_HALF))) & infinity;
            let power_of_two = field.int_sub(one);
            let bias = x.all(T::from(T::BIAS).expect("a small integer"));
            let raised_bias = x.all(T::from(T::BIAS + up).expect("a small integer"));
            let k = exponent(field, is_small.select(raised_bias, bias));
            let m = normal.int_sub(power_of_two);
            // Far out the error has no weight, and 2^-k is no number.
            let has_weight = x.lt(x.all(power_bits(T::FRACTION_BITS.cast_signed() + 4))) & !is_small;
            let c = has_weight.select(error * one.int_sub(power_of_two), zero);

            let (g, g_low) = (m - one).fast_two_sum(c);
            let (d, d_low) = one.fast_two_sum(g * half);
            let d_low = g_low.mul_add(half, d_low);
            let inverse = one / d;
            let t = g * inverse;
            let t_low = ((-t).mul_add(d, g) + (-t).mul_add(d_low, g_low)) * inverse;
            let s = t * half;
            let (q, q_low) = s.two_mul(s);
            let q_low = s.mul_add(t_low, q_low);
            let (p, p_low) = x.all(T::THIRD).fast_two_sum(q * polynomial(q, T::LN_TAIL));
            let p_low = p_low + x.all(T::THIRD_LOW);
            let (w, w_low) = q.two_mul(p);
            let w_low = q.mul_add(p_low, q_low.mul_add(p, w_low));
            let (v, v_low) = t.two_mul(w);
            let v_low = t.mul_add(w_low, t_low.mul_add(w, v_low));

            let (a, a_error) = (k * x.all(T::LN2_SHORT)).fast_two_sum(t);
            let (b, b_error) = a.fast_two_sum(v);
            let rest = (a_error + b_error) + (t_low + v_low);
            let (hi, lo) = b.fast_two_sum(k.mul_add(x.all(T::LN2_REST), rest));

            let has_logarithm = has_logarithm(x);
            (has_logarithm.select(hi, at_pole(x)), has_logarithm.select(lo, zero))
        },
    )
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::math::oracle::{self, Double, Function, Worst, value};

    struct Ln;

    impl<T: Float> Function<T> for Ln {
        #[inline(always)]
        fn apply<S: Simd<T>>(&self, x: Lanes<T, S>, _: Lanes<T, S>) -> Lanes<T, S> {
            ln(x)
        }
    }

    /// The first term of two.
    struct High;

    impl<T: Float> Function<T> for High {
        #[inline(always)]
        fn apply<S: Simd<T>>(&self, x: Lanes<T, S>, _: Lanes<T, S>) -> Lanes<T, S> {
            ln_parts(x, x.all(T::zero())).0
        }
    }

    struct Low;

    impl<T: Float> Function<T> for Low {
        #[inline(always)]
        fn apply<S: Simd<T>>(&self, x: Lanes<T, S>, _: Lanes<T, S>) -> Lanes<T, S> {
            ln_parts(x, x.all(T::zero())).1
        }
    }

    struct Ln1p;

    impl<T: Float> Function<T> for Ln1p {
        #[inline(always)]
        fn apply<S: Simd<T>>(&self, x: Lanes<T, S>, _: Lanes<T, S>) -> Lanes<T, S> {
            ln_1p_parts(x).0
        }
    }

    fn worst_f32(step: u32) -> Worst {
        oracle::worst_f32(&Ln, step, |_| 0.0, |x, _| x.ln())
    }

    fn worst_1p_f32(step: u32) -> Worst {
        oracle::worst_f32(&Ln1p, step, |_| 0.0, |u, _| u.ln_1p())
    }

    #[test]
    fn error_f32() {
        worst_f32(251).assert_at_most(0.59);
        worst_1p_f32(251).assert_at_most(0.505);
    }

    #[test]
    #[ignore = "all 2^32 inputs: a minute"]
    fn error_f32_everywhere() {
        worst_f32(1).assert_at_most(0.59);
    }

    #[test]
    #[ignore = "all 2^32 inputs: a minute"]
    fn error_of_1p_f32_everywhere() {
        worst_1p_f32(1).assert_at_most(0.505);
    }

    /// Relative, in powers of two.
    #[test]
    fn error_of_parts() {
        let x: Vec<f32> = oracle::of_every_size::<f32>(200_000, 1).into_iter().filter(|&x| x > 0.0).collect();
        let near: Vec<f32> = oracle::uniform(2).map(|x| 0.5 + x as f32).take(100_000).collect();
        for x in [x, near] {
            let mut worst = Worst::default();
            let parts = oracle::apply(&High, &x, &x).into_iter().zip(oracle::apply(&Low, &x, &x));
            for (&x, (hi, lo)) in x.iter().zip(parts).filter(|(x, _)| x.is_finite()) {
                let want = f64::from(x).ln();
                let error = (f64::from(hi) + f64::from(lo) - want).abs() / want.abs().max(f64::MIN_POSITIVE);
                worst.meet(error, (x.into(), hi.into()));
            }
            worst.assert_at_most(2_f64.powi(-34));
        }
        let x: Vec<f64> = oracle::of_every_size::<f64>(100_000, 3).into_iter().filter(|&x| x > 0.0).collect();
        let near: Vec<f64> = oracle::uniform(4).map(|x| 0.5 + x).take(100_000).collect();
        for x in [x, near] {
            let (mut worst, mut rounded) = (Worst::default(), Worst::default());
            let parts = oracle::apply(&High, &x, &x).into_iter().zip(oracle::apply(&Low, &x, &x));
            for (&x, (hi, lo)) in x.iter().zip(parts).filter(|(x, _)| x.is_finite()) {
                let want = oracle::ln(x);
                let error = ((hi - want.0) + (lo - want.1)).abs() / want.0.abs().max(f64::MIN_POSITIVE);
                worst.meet(error, (x, hi));
                rounded.meet(oracle::ulps_f64(hi, want, 0), (x, hi));
            }
            worst.assert_at_most(2_f64.powi(-62));
            rounded.assert_at_most(0.501);
        }
    }

    #[test]
    fn error_f64() {
        let x: Vec<f64> = oracle::of_every_size::<f64>(100_000, 8).into_iter().filter(|&x| x > 0.0).collect();
        let near: Vec<f64> = oracle::uniform(9).map(|x| 0.5 + x).take(200_000).collect();
        for x in [x, near] {
            let mut worst = Worst::default();
            for (&x, got) in x.iter().zip(oracle::apply(&Ln, &x, &x)).filter(|(x, _)| x.is_finite()) {
                worst.meet(oracle::ulps_f64(got, oracle::ln(x), 0), (x, got));
            }
            worst.assert_at_most(0.59);
        }
    }

    #[test]
    fn error_of_1p_f64() {
        let small = oracle::uniform(5).map(|x| 2.0 * x - 0.9).take(60_000);
        let near_zero = oracle::uniform(6).map(|x| (x - 0.5) * 2_f64.powi(-20)).take(60_000);
        let large = oracle::uniform(7).map(|x| 2_f64.powf(1023.9 * x)).take(60_000);
        let u: Vec<f64> = small.chain(near_zero).chain(large).collect();
        let mut worst = Worst::default();
        for (&u, got) in u.iter().zip(oracle::apply(&Ln1p, &u, &u)) {
            worst.meet(oracle::ulps_f64(got, oracle::ln_1p(u), 0), (u, got));
        }
        worst.assert_at_most(0.502);
    }

    #[test]
    fn special_values() {
        fn check<T: Float>(ln: impl Fn(T) -> T, low: impl Fn(T) -> T, ln_1p: impl Fn(T) -> T) {
            let (zero, one, infinity) = (T::zero(), T::one(), T::infinity());
            for (x, want) in [(one, zero), (zero, -infinity), (-zero, -infinity), (infinity, infinity)] {
                assert_eq!(ln(x).to_bits(), want.to_bits(), "ln({x:e})");
                assert!(low(x).is_zero());
            }
            for x in [-one, -infinity, T::nan(), -T::nan(), -T::from_bits(1)] {
                assert!(ln(x).is_nan() && low(x).is_zero(), "ln({x:e})");
            }
            let tiny = T::from_bits(1);
            for same in [zero, -zero, tiny, -tiny, T::min_positive_value(), infinity] {
                assert_eq!(ln_1p(same).to_bits(), same.to_bits(), "ln_1p({same:e})");
            }
            assert_eq!(ln_1p(-one), -infinity);
            assert!(ln_1p(-one - one).is_nan() && ln_1p(T::nan()).is_nan() && ln_1p(-infinity).is_nan());
        }
        check::<f32>(|x| value(&Ln, x, 0.0), |x| value(&Low, x, 0.0), |x| value(&Ln1p, x, 0.0));
        check::<f64>(|x| value(&Ln, x, 0.0), |x| value(&Low, x, 0.0), |x| value(&Ln1p, x, 0.0));
        assert_eq!(value(&Ln, f64::from_bits(1), 0.0), -744.440_071_921_381_2);
        assert_eq!(oracle::ln(2.0).0, Double::new(core::f64::consts::LN_2).0);
    }

    #[test]
    fn same_bits() {
        let x = oracle::of_every_size::<f32>(100_000, 5);
        oracle::assert_same_bits(&Ln, &x, &x);
        oracle::assert_same_bits(&High, &x, &x);
        oracle::assert_same_bits(&Low, &x, &x);
        oracle::assert_same_bits(&Ln1p, &x, &x);
        let x = oracle::of_every_size::<f64>(20_000, 7);
        oracle::assert_same_bits(&Ln, &x, &x);
        oracle::assert_same_bits(&High, &x, &x);
        oracle::assert_same_bits(&Low, &x, &x);
        oracle::assert_same_bits(&Ln1p, &x, &x);
    }
}
