//! The error function, its complement, and the Gaussian error linear unit, which is a product with the complement.
//!
//! Method: `erfc(t) = e^(-t^2) p(v) / (t + w)` for all `t >= 0`, with `v = (k - t) / (k + t)`: `p` is nearly constant, so a
//! polynomial reaches from 0 to where the function underflows, and its rounding counts little (M. M. Shepherd, J. G.
//! Laframboise, "Chebyshev approximation of (1 + 2x) exp(x^2) erfc x in 0 <= x < inf", Mathematics of Computation 36, 1981,
//! here with another weight). The square, the exponential, the quotient and their product are in two terms.

use super::exp::{Reduced, clamp, power, scaled_product, scaled_product_of_sum};
use super::polynomial;
use super::sigmoid::power_beside_one;
use crate::float::Float;
use crate::lanes::Lanes;
use crate::simd::Simd;

/// `numerator p(v) / (y + w)`, `v = (k - y) / (k + y)`: what is left of a tail when the exponential is taken out.
#[derive(Clone, Copy, Debug)]
pub struct Cofactor<T> {
    k: T,
    w: T,
    /// Rounded, and what it lacks.
    numerator: [T; 2],
}

/// What the error function needs to know of a type.
pub trait ErfConstants: Sized + 'static {
    /// `erfc(t) e^(t^2)`.
    const ERFC: Cofactor<Self>;
    /// `erfc(y / sqrt(2)) e^(y^2/2) / 2`, the tail of the normal distribution: `k` and `w` are `sqrt(2)` times those of
    /// [`ERFC`](Self::ERFC), `w`, near `sqrt(pi) / 2` so that `p` is flat at 0, to within f32 2^-34, f64 2^-62, because the numbers are a convergent of `sqrt(2)`.
    const NORMAL: Cofactor<Self>;
    /// `p(0)`, rounded, and what it lacks.
    const ERFC_HEAD: [Self; 2];
    /// `(p(v) - p(0)) / v`. Interpolates at the Chebyshev nodes of `0 <= t <= 14` (f32), `38.5` (f64), by 60 digits;
    /// rounded. Error of `p`, relative: f32 2^-30.2, f64 2^-59.2.
    const ERFC_TAIL: &'static [Self];
    /// `erf(x) / x - 1` in powers of `x^2`. Interpolates at the Chebyshev nodes of `0 <= x^2 <= 1/4`; rounded. Error in
    /// `erf`, relative: f32 2^-29.4, f64 2^-57.8.
    const ERF_NEAR_ZERO: &'static [Self];
    /// `1 / sqrt(2 pi)`.
    const NORMAL_DENSITY: Self;
    /// From it on the product of the normal tail, or the density, with any finite number rounds to 0.
    const NORMAL_ZERO_FROM: Self;
}

impl ErfConstants for f32 {
    const ERFC: Cofactor<Self> = Cofactor { k: 3.0, w: 0.871_604_9, numerator: [1.0, 0.0] };
    const NORMAL: Cofactor<Self> =
        Cofactor { k: 4.242_640_5, w: 1.232_635_5, numerator: [core::f32::consts::FRAC_1_SQRT_2, 1.210_161_7e-8] };
    const ERFC_HEAD: [Self; 2] = [0.693_021_7, 2.328_693_6e-8];
    const ERFC_TAIL: &'static [Self] = &[
        0.189_040_54,
        0.067_486_38,
        -0.009_038_605,
        -0.033_004_49,
        -0.025_091_467,
        -0.010_304_796,
        -0.001_517_844_9,
        0.000_737_686_47,
        0.000_347_514_96,
        -4.266_639_4e-5,
        -2.907_631_5e-5,
    ];
    const ERF_NEAR_ZERO: &'static [Self] =
        &[0.128_379_17, -0.376_126_08, 0.112_828_314, -0.026_757_732, 0.004_719_082_7];
    const NORMAL_DENSITY: Self = 0.398_942_3;
    const NORMAL_ZERO_FROM: Self = 19.8;
}

impl ErfConstants for f64 {
    const ERFC: Cofactor<Self> = Cofactor { k: 4.0, w: 0.863_837_935_496_121_6, numerator: [1.0, 0.0] };
    const NORMAL: Cofactor<Self> = Cofactor {
        k: 5.656_854_249_492_381,
        w: 1.221_651_324_070_99,
        numerator: [core::f64::consts::FRAC_1_SQRT_2, -4.833_646_656_726_457e-17],
    };
    const ERFC_HEAD: [Self; 2] = [0.666_343_159_139_167, 1.750_785_829_306_302_3e-17];
    const ERFC_TAIL: &'static [Self] = &[
        0.164_069_342_434_190_66,
        0.087_268_342_481_306,
        0.025_714_697_788_904_013,
        -0.010_874_595_508_238_563,
        -0.023_905_400_143_175_8,
        -0.021_777_398_799_313_088,
        -0.013_910_642_960_584_44,
        -0.006_621_589_095_454_512,
        -0.002_225_232_342_951_009_3,
        -0.000_386_804_373_919_422_96,
        7.089_129_023_419_044e-5,
        6.710_403_874_717_543e-5,
        1.289_200_020_359_252_5e-5,
        -4.539_472_939_669_367e-6,
        -2.706_019_347_180_181_7e-6,
        4.308_879_583_005_186e-8,
        3.775_687_407_384_103_4e-7,
        4.715_193_963_150_482e-8,
        -4.944_399_296_960_95e-8,
        -1.027_217_092_791_919_8e-8,
        6.445_359_906_122_479e-9,
        1.144_690_976_681_140_8e-9,
        -6.440_704_836_166_831e-10,
    ];
    const ERF_NEAR_ZERO: &'static [Self] = &[
        0.128_379_167_095_512_56,
        -0.376_126_389_031_834_76,
        0.112_837_916_709_253_53,
        -0.026_866_170_632_887_928,
        0.005_223_977_373_021_47,
        -0.000_854_829_775_367_496_6,
        0.000_120_533_351_243_537_41,
        -1.484_584_925_970_787e-5,
        1.472_586_548_055_674_4e-6,
    ];
    const NORMAL_DENSITY: Self = 0.398_942_280_401_432_7;
    const NORMAL_ZERO_FROM: Self = 54.0;
}

impl<T: Float> Cofactor<T> {
    /// In two terms, for `y >= 0`.
    #[inline(always)]
    fn at<S: Simd<T>>(self, y: Lanes<T, S>) -> (Lanes<T, S>, Lanes<T, S>) {
        y.share(
            #[inline(always)]
            || {
                let Self { k, w, numerator: [numerator, numerator_low] } = self;
                let v = (y.all(k) - y) / (y.all(k) + y);
                let [head, head_low] = T::ERFC_HEAD;
                let (p, error) = y.all(head).fast_two_sum(v * polynomial(v, T::ERFC_TAIL));
                let p_low = error + y.all(head_low);

                let (divisor, divisor_low) = y.two_sum(y.all(w));
                let inverse = y.all(T::one()) / divisor;
                let quotient = y.all(numerator) * inverse;
                let residue =
                    quotient.mul_add(-divisor, y.all(numerator)) + quotient.mul_add(-divisor_low, y.all(numerator_low));

                let (product, error) = p.two_mul(quotient);
                (product, p.mul_add(residue * inverse, p_low.mul_add(quotient, error)))
            },
        )
    }
}

/// The product of two numbers in two terms each, in two terms.
#[inline(always)]
fn product<T: Float, S: Simd<T>>(a: [Lanes<T, S>; 2], b: [Lanes<T, S>; 2]) -> (Lanes<T, S>, Lanes<T, S>) {
    let (high, error) = a[0].two_mul(b[0]);
    high.fast_two_sum(a[0].mul_add(b[1], a[1].mul_add(b[0], error)))
}

/// A number and what it was rounded by.
type TwoTerms<T, S> = (Lanes<T, S>, Lanes<T, S>);

/// `erfc(t) = (m + m_low) 2^n` for `t >= 0`.
#[inline(always)]
fn erfc_parts<T: Float, S: Simd<T>>(t: Lanes<T, S>) -> (TwoTerms<T, S>, Lanes<T, S>) {
    let (square, error) = t.two_mul(t);
    let reduced = Reduced::new(-square, -error);
    let (sum, tail) = reduced.significand();
    let (cofactor, cofactor_low) = T::ERFC.at(t);
    (product([cofactor, cofactor_low], [sum, tail]), reduced.n)
}

/// The error function, `2 / sqrt(pi)` times the integral of `e^(-t^2)` from 0 to `x`.
///
/// All `x`; the sign of a zero is kept, `+-Inf` give +-1, NaN gives NaN.
#[inline(always)]
pub(crate) fn erf<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    let one = x.all(T::one());
    let magnitude = x.abs();
    // 1 - erf(6) is far below the last place of 1 in both types.
    let ((m, m_low), n) = erfc_parts(clamp(magnitude, T::zero(), T::from(6).expect("a small integer")));
    let power = power(n);
    let (rest, error) = one.fast_two_sum(-(m * power));
    let far = rest + m_low.mul_add(-power, error);
    let near = magnitude.mul_add(polynomial(x * x, T::ERF_NEAR_ZERO), magnitude);
    magnitude.lt(x.all(T::one() / (T::one() + T::one()))).select(near, far).copy_sign(x)
}

/// `1 - erf(x)`, without cancellation.
///
/// All `x`: `-Inf` gives 2, `+Inf` gives 0, NaN gives NaN; subnormal results are kept.
#[inline(always)]
pub(crate) fn erfc<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    let one = x.all(T::one());
    let ((m, m_low), n) = erfc_parts(clamp(x.abs(), T::zero(), T::NORMAL_ZERO_FROM));
    let tail = scaled_product_of_sum(one, (m, m_low), n);
    let far = x.lt(x.all(T::zero())).select(one + one - tail, tail);
    let (difference, error) = one.two_sum(-x);
    let near = difference + (error - x * polynomial(x * x, T::ERF_NEAR_ZERO));
    x.abs().lt(x.all(T::one() / (T::one() + T::one()))).select(near, far)
}

/// The normal tail and density at a point `y`.
struct Normal<T: Float, S: Simd<T>> {
    /// `|y|`, where it is not so large that all that follows rounds to 0.
    magnitude: Lanes<T, S>,
    /// The tail beyond `|y|` without its exponential.
    cofactor: (Lanes<T, S>, Lanes<T, S>),
    /// `e^(-y^2/2) = (m + m_low) 2^n`.
    m: (Lanes<T, S>, Lanes<T, S>),
    n: Lanes<T, S>,
}

impl<T: Float, S: Simd<T>> Normal<T, S> {
    #[inline(always)]
    fn new(y: Lanes<T, S>) -> Self {
        let magnitude = clamp(y.abs(), T::zero(), T::NORMAL_ZERO_FROM);
        let half = magnitude * y.all(T::one() / (T::one() + T::one()));
        let (half_square, error) = half.two_mul(magnitude);
        let reduced = Reduced::new(-half_square, -error);
        Self { magnitude, cofactor: T::NORMAL.at(magnitude), m: reduced.significand(), n: reduced.n }
    }
}

/// `x` times the distribution function of the normal distribution at `x`: the Gaussian error linear unit.
///
/// All `x`: `-Inf` gives 0, `+Inf` gives `+Inf`, NaN gives NaN. Right also where the distribution function underflows.
#[inline(always)]
pub(crate) fn gelu<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    let zero = x.all(T::zero());
    let Normal { cofactor: (cofactor, cofactor_low), m: (sum, tail), n, .. } = Normal::new(x);
    let (m, m_low) = product([cofactor, cofactor_low], [sum, tail]);
    let power = power_beside_one(n);
    let (rest, error) = x.all(T::one()).fast_two_sum(-(m * power));
    let rest_low = m_low.mul_add(-power, error);
    let negative = x.lt(zero);
    let factor = (negative.select(m, rest), negative.select(m_low, rest_low));
    let result = scaled_product_of_sum(x, factor, negative.select(n, zero));
    x.eq(-x.all(T::infinity())).select(zero, result)
}

/// `g` times the derivative of [`gelu`] at `x`: the distribution function and `x` times the density.
#[inline(always)]
pub(crate) fn gelu_derivative_times<T: Float, S: Simd<T>>(x: Lanes<T, S>, g: Lanes<T, S>) -> Lanes<T, S> {
    let zero = x.all(T::zero());
    let Normal { magnitude, cofactor: (cofactor, _), m: (sum, tail), n } = Normal::new(x);
    let below = magnitude.mul_add(x.all(-T::NORMAL_DENSITY), cofactor) * (sum + tail);
    let above = below.mul_add(-power_beside_one(n), x.all(T::one()));
    let negative = x.lt(zero);
    // The factor is below 2^5.
    let shift = x.all(T::from(5).expect("a small integer"));
    scaled_product(g, negative.select(below, above) * power(-shift), negative.select(n, zero) + shift)
}
