//! The error function, its complement, and the Gaussian error linear unit.
//!
//! Method of `erf`: near 0 a polynomial, elsewhere `1 - 2^p(|x|)`, with a polynomial for the logarithm of the
//! complement.
//!
//! Method of `erfc`: `erfc(t) = e^(-t^2) p(v) / (t + w)` for all `t >= 0`, with `v = (k - t) / (k + t)`: `p` is nearly
//! constant, so a polynomial reaches from 0 to where the function underflows, and its rounding counts little (M. M.
//! Shepherd, J. G. Laframboise, "Chebyshev approximation of (1 + 2x) exp(x^2) erfc x in 0 <= x < inf", Mathematics of
//! Computation 36, 1981, here with another weight). The square, the exponential, the quotient and their product are in
//! two terms.
//!
//! Method of `gelu` and its derivative: near 0 polynomials for the distribution function and the derivative; elsewhere
//! `gelu(-y) = e^(-y^2/2) p(v)` with `v = 1 / (y + s) - c`, the square in two terms and `v` small, and with its digits,
//! where `p` varies most; `gelu(y) = y + gelu(-y)`. The derivative at `-y` has another `p`, with the factor `y + s`,
//! and is 1 less that at `y`.

use super::exp::{Reduced, clamp, power, scale, scaled_product, scaled_product_of_sum};
use super::{near_inverse, polynomial, polynomial_of_pairs};
use crate::float::Float;
use crate::lanes::{Lanes, Mask};
use crate::simd::Simd;

/// What the error function needs to know of a type.
pub trait ErfConstants: Sized + 'static {
    /// `k` of the complement.
    const ERFC_MIDDLE: Self;
    /// `w` of the complement, near `sqrt(pi) / 2` so that `p` is flat at 0.
    const ERFC_SHIFT: Self;
    /// `p(0)` of the complement, rounded, and what it lacks.
    const ERFC_HEAD: [Self; 2];
    /// `(p(v) - p(0)) / v` of the complement. Interpolates at the Chebyshev nodes of `0 <= t <= 14` (f32), `38.5`
    /// (f64), by 60 digits; rounded. Error of `p`, relative: f32 2^-30.2, f64 2^-59.2.
    const ERFC_TAIL: &'static [Self];
    /// Where the two forms of `erf` meet.
    const ERF_EDGE: Self;
    /// `erf(x) / x - 1` in powers of `x^2`, as far as the edge. Minimax (Remez exchange, 60 digits); rounded, for f32
    /// with a search among the neighbours, as are the polynomials below. Error in `erf`, relative: f32 2^-26.6, f64
    /// 2^-56.6.
    const ERF_NEAR_ZERO: &'static [Self];
    /// `log2 erfc(-x)` from minus [`ERF_ONE_FROM`](Self::ERF_ONE_FROM) to minus the edge. Error in `erf`: f32 2^-28.7,
    /// f64 2^-57.6.
    const ERFC_LOG2: &'static [Self];
    /// `2^r` for `|r| <= 1/2`. Error, relative: f32 2^-27.5, f64 2^-58.2.
    const EXP2_BESIDE_ONE: &'static [Self];
    /// From it on `erf` rounds to 1.
    const ERF_ONE_FROM: Self;
    /// `s` of the normal tail.
    const NORMAL_SHIFT: Self;
    /// `c` of the normal tail.
    const NORMAL_MIDDLE: Self;
    /// Where the two forms of `gelu` meet.
    const GELU_EDGE: Self;
    /// The distribution function less 1/2, by `x`, in powers of `-x^2/2`, as far as the edge. Error in the function,
    /// relative: f32 2^-28.0, f64 2^-55.6.
    const NORMAL_NEAR_ZERO: &'static [Self];
    /// `p` of `gelu`, from the edge to where it underflows; for f64 the first three coefficients rounded one after
    /// another, and `c` chosen so that the first is nearly exact. Error, relative: f32 2^-26.5, f64 2^-54.6.
    const GELU_TAIL: &'static [Self];
    /// The derivative less 1/2, by `x`, in powers of `-x^2/2`, for `|x| <= 1`. Error in the derivative: f32 2^-27.9,
    /// f64 2^-59.9.
    const SLOPE_NEAR_ZERO: &'static [Self];
    /// `-p` of the derivative, from 1 to where it underflows. Error, relative: f32 2^-27.3, f64 2^-60.1.
    const SLOPE_TAIL: &'static [Self];
    /// From it on the product of the normal tail, or the density, with any finite number rounds to 0.
    const NORMAL_ZERO_FROM: Self;
}

impl ErfConstants for f32 {
    const ERFC_MIDDLE: Self = 3.0;
    const ERFC_SHIFT: Self = 0.871_604_9;
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
    const ERF_EDGE: Self = 0.84;
    const ERF_NEAR_ZERO: &'static [Self] =
        &[0.128_379_17, -0.376_125_78, 0.112_827_96, -0.026_806_487, 0.005_058_392, -0.000_635_931_44];
    const ERFC_LOG2: &'static [Self] =
        &[-0.000_135_495_9, 1.627_514_6, -0.918_184_94, 0.150_907_3, 0.032_542_594, 0.004_512_329, 0.000_295_348_1];
    const EXP2_BESIDE_ONE: &'static [Self] =
        &[1.0, core::f32::consts::LN_2, 0.240_226_46, 0.055_503_42, 0.009_618_565, 0.001_340_023_2, 0.000_153_462_34];
    const ERF_ONE_FROM: Self = 4.0;
    const NORMAL_SHIFT: Self = 2.5;
    const NORMAL_MIDDLE: Self = 0.25;
    const GELU_EDGE: Self = 0.8;
    const NORMAL_NEAR_ZERO: &'static [Self] =
        &[0.398_942_26, 0.132_979_97, 0.039_882_12, 0.009_416_399_5, 0.001_593_506_3];
    const GELU_TAIL: &'static [Self] = &[
        -0.308_671,
        1.125_98,
        5.093_766,
        8.577_976,
        -4.560_717_6,
        -24.398_1,
        28.055_91,
        53.193_943,
        -336.106_35,
        -631.779_3,
    ];
    const SLOPE_NEAR_ZERO: &'static [Self] =
        &[0.797_884_5, 0.531_921_7, 0.239_344_46, 0.075_842_89, 0.017_968_327, 0.002_783_646];
    const SLOPE_TAIL: &'static [Self] = &[
        0.098_158_19,
        -1.564_221_5,
        -2.251_96,
        -3.789_059_9,
        -0.999_658_17,
        6.046_431_5,
        0.078_235_81,
        -17.044_561,
        19.627_953,
        72.929_58,
    ];
    const NORMAL_ZERO_FROM: Self = 19.8;
}

impl ErfConstants for f64 {
    const ERFC_MIDDLE: Self = 4.0;
    const ERFC_SHIFT: Self = 0.863_837_935_496_121_6;
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
    const ERF_EDGE: Self = 0.84;
    const ERF_NEAR_ZERO: &'static [Self] = &[
        0.128_379_167_095_512_56,
        -0.376_126_389_031_834_1,
        0.112_837_916_709_357_64,
        -0.026_866_170_640_884_517,
        0.005_223_977_577_545_003,
        -0.000_854_832_386_344_352_8,
        0.000_120_552_026_023_928_44,
        -1.492_218_115_210_662_6e-5,
        1.640_242_486_728_567_3e-6,
        -1.572_027_359_598_574e-7,
        1.074_447_314_802_472_5e-8,
    ];
    const ERFC_LOG2: &'static [Self] = &[
        -4.714_674_013_183_898e-8,
        1.627_906_522_762_957,
        -0.918_450_644_806_913_2,
        0.148_262_491_328_541_94,
        0.027_583_760_785_551_303,
        -0.000_315_531_810_635_299_7,
        -0.002_450_794_609_434_754,
        -0.000_835_169_717_859_534_9,
        -1.697_589_139_441_487_7e-6,
        0.000_136_655_090_390_775_55,
        8.062_279_700_902_917e-5,
        2.937_187_418_443_561_5e-5,
        7.796_462_192_756_01e-6,
        1.566_351_045_656_300_7e-6,
        2.378_051_809_047_672_6e-7,
        2.656_858_722_874_335e-8,
        2.065_531_313_914_293e-9,
        9.988_773_214_298_855e-11,
        2.262_642_114_295_468e-12,
    ];
    const EXP2_BESIDE_ONE: &'static [Self] = &[
        1.0,
        core::f64::consts::LN_2,
        0.240_226_506_959_101_55,
        0.055_504_108_664_819_92,
        0.009_618_129_107_588_273,
        0.001_333_355_814_679_048_9,
        0.000_154_035_304_625_951_97,
        1.525_273_348_961_960_3e-5,
        1.321_543_304_747_663_8e-6,
        1.017_819_810_929_313_5e-7,
        7.074_113_201_554_213_5e-9,
        4.435_278_734_161_86e-10,
    ];
    const ERF_ONE_FROM: Self = 6.0;
    const NORMAL_SHIFT: Self = 2.5;
    const NORMAL_MIDDLE: Self = 0.249_023_437_5;
    const GELU_EDGE: Self = 0.8;
    const NORMAL_NEAR_ZERO: &'static [Self] = &[
        0.398_942_280_401_432_5,
        0.132_980_760_133_778_57,
        0.039_894_228_038_482_04,
        0.009_498_625_684_371_21,
        0.001_846_954_487_870_974_3,
        0.000_302_225_032_797_954_8,
        4.260_337_305_104_188e-5,
        5.224_313_141_423_826e-6,
        4.992_488_273_604_771e-7,
    ];
    const GELU_TAIL: &'static [Self] = &[
        -0.309_765_740_461_127_4,
        1.116_055_745_787_480_7,
        5.068_611_381_382_082,
        8.595_686_830_479_528,
        -4.441_816_109_302_364,
        -24.624_872_789_711_514,
        27.351_010_687_298_01,
        65.163_818_020_283_88,
        -194.512_649_677_558_64,
        27.978_280_985_715_16,
        836.349_191_466_887_8,
        -1_854.703_461_085_585,
        -17.093_399_426_430_89,
        9_945.736_698_618_56,
        -20_299.198_507_587_163,
        20_910.207_539_838_91,
        -361_446.449_632_202_04,
        -6_907_971.068_183_738,
        -46_111_674.970_756_1,
        -202_408_094.347_047_24,
        -539_612_069.114_471_9,
        -726_391_119.825_334_4,
        -272_877_714.023_660_84,
        197_764_184.485_900_8,
    ];
    const SLOPE_NEAR_ZERO: &'static [Self] = &[
        0.797_884_560_802_865_3,
        0.531_923_040_535_239_8,
        0.239_365_368_240_660_38,
        0.075_989_005_785_947_04,
        0.018_469_549_954_247_87,
        0.003_626_747_476_549_445_3,
        0.000_596_705_761_607_205_9,
        8.442_261_120_125_225e-5,
        1.045_461_443_778_833_5e-5,
        1.125_895_739_635_176_7e-6,
        8.890_693_121_071_79e-8,
    ];
    const SLOPE_TAIL: &'static [Self] = &[
        0.099_683_604_344_407_2,
        -1.559_833_965_416_732,
        -2.240_864_869_973_292_7,
        -3.785_114_284_552_576,
        -1.029_479_666_332_716_4,
        6.047_828_416_725_276_5,
        0.290_172_930_926_513_8,
        -16.522_756_526_611_253,
        17.052_945_092_157_817,
        33.526_949_972_770_74,
        -118.933_604_211_731_72,
        85.827_378_743_938_01,
        337.464_919_134_244_7,
        -1_180.494_206_758_793_8,
        -542.052_379_548_465_6,
        -19_568.199_252_113_227,
        -192_004.625_928_605,
        -911_568.638_840_869_9,
        -3_047_767.093_262_370_7,
        -5_324_274.498_941_947,
        761_744.611_285_341_6,
        16_488_714.990_997_918,
        16_723_733.238_175_742,
    ];
    const NORMAL_ZERO_FROM: Self = 54.0;
}

/// `p(v) / (t + w)` in two terms, for `t >= 0`.
#[inline(always)]
fn cofactor<T: Float, S: Simd<T>>(t: Lanes<T, S>) -> TwoTerms<T, S> {
    t.share(
        #[inline(always)]
        || {
            let (one, middle) = (t.all(T::one()), t.all(T::ERFC_MIDDLE));
            let v = (middle - t) / (middle + t);
            let [head, head_low] = T::ERFC_HEAD;
            let (p, error) = t.all(head).fast_two_sum(v * polynomial(v, T::ERFC_TAIL));
            let p_low = error + t.all(head_low);

            let (divisor, divisor_low) = t.two_sum(t.all(T::ERFC_SHIFT));
            let inverse = one / divisor;
            let residue = inverse.mul_add(-divisor, one) - inverse * divisor_low;

            let (product, error) = p.two_mul(inverse);
            (product, p.mul_add(residue * inverse, p_low.mul_add(inverse, error)))
        },
    )
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
    let (cofactor, cofactor_low) = cofactor(t);
    (product([cofactor, cofactor_low], [sum, tail]), reduced.n)
}

/// The error function, `2 / sqrt(pi)` times the integral of `e^(-t^2)` from 0 to `x`.
///
/// All `x`; the sign of a zero is kept, `+-Inf` give +-1, NaN gives NaN.
///
/// Largest error: f32 1.387 ULP, over all inputs, at 0.8402355; f64 1.45 ULP, sampled.
#[inline(always)]
pub(crate) fn erf<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    x.share(
        #[inline(always)]
        || {
            let square = x * x;
            let far = x.all(T::one()) - erfc_beside_one(below_zero(x, T::ERF_ONE_FROM));
            let near = polynomial(square, T::ERF_NEAR_ZERO).mul_add(x, x);
            let is_far = x.all(T::ERF_EDGE * T::ERF_EDGE).le(square);
            is_far.select(far | x & x.all(-T::zero()), near)
        },
    )
}

/// `-|x|`, or minus the limit if it is less, also for NaN.
#[inline(always)]
fn below_zero<T: Float, S: Simd<T>>(x: Lanes<T, S>, limit: T) -> Lanes<T, S> {
    (x | x.all(-T::zero())).larger(x.all(-limit))
}

/// `erfc(-x)` to as many digits as count beside 1, for `x` between the limits of its logarithm.
#[inline(always)]
fn erfc_beside_one<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    let shift = x.all(T::TO_INTEGER);
    let log = polynomial_of_pairs(x, T::ERFC_LOG2);
    let shifted = log + shift;
    let r = log - (shifted - shift);
    polynomial_of_pairs(r, T::EXP2_BESIDE_ONE).int_add(shifted.shl(T::FRACTION_BITS))
}

/// `1 - erf(x)`, without cancellation.
///
/// All `x`: `-Inf` gives 2, `+Inf` gives 0, NaN gives NaN; subnormal results are kept.
///
/// Largest error: f32 1.081 ULP, over all inputs, at 0.5143312; f64 1.14 ULP, sampled.
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

/// A point `-y` below 0, as far as where all that follows rounds to 0.
struct Below<T: Float, S: Simd<T>> {
    point: Lanes<T, S>,
    /// `-y^2/2`, rounded.
    half_square: Lanes<T, S>,
    /// `-y^2/2`.
    exponent: Reduced<T, S>,
    /// `1 / (y + s) - c`.
    v: Lanes<T, S>,
}

impl<T: Float, S: Simd<T>> Below<T, S> {
    #[inline(always)]
    fn new(x: Lanes<T, S>) -> Self {
        let one = x.all(T::one());
        let point = below_zero(x, T::NORMAL_ZERO_FROM);
        let half = point * x.all(-T::one() / (T::one() + T::one()));
        let (half_square, error) = half.two_mul(point);

        let inverse = near_inverse(x.all(T::NORMAL_SHIFT) - point);
        let residue = inverse.mul_add(point, inverse.mul_add(x.all(-T::NORMAL_SHIFT), one));
        // The residue goes to the difference, which has the digits to take it.
        let v = inverse.mul_add(residue, inverse - x.all(T::NORMAL_MIDDLE));
        Self { point, half_square, exponent: Reduced::new(half_square, error), v }
    }

    /// `p(v)`, of which `p(0)` is the largest part.
    #[inline(always)]
    fn polynomial(&self, coefficients: &[T]) -> Lanes<T, S> {
        let (&head, tail) = coefficients.split_first().expect("a polynomial has coefficients");
        self.v.mul_add(polynomial_by_length(self.v, tail), self.v.all(head))
    }

    /// `f e^r` for the exponent `n ln 2 + r`.
    #[inline(always)]
    fn times_significand(&self, f: Lanes<T, S>) -> Lanes<T, S> {
        let Reduced { high, low, .. } = self.exponent;
        let r = high + low;
        let growth = high + (r * r).mul_add(polynomial_by_length(r, T::EXP_QUADRATIC), low); // e^r - 1
        growth.mul_add(f, f)
    }

    /// Where `m 2^n`, for `m` of at least 1/16, may be less than the least normal number.
    #[inline(always)]
    fn is_small(&self) -> Mask<T, S> {
        let n = self.exponent.n;
        n.lt(n.all(T::from(5 - T::BIAS).expect("a small integer")))
    }
}

/// In pairs where there are so many that waiting for the steps costs more than the registers that pairs take.
#[inline(always)]
fn polynomial_by_length<T: Float, S: Simd<T>>(x: Lanes<T, S>, coefficients: &[T]) -> Lanes<T, S> {
    if coefficients.len() > 10 { polynomial_of_pairs(x, coefficients) } else { polynomial(x, coefficients) }
}

/// `x` times the distribution function of the normal distribution at `x`: the Gaussian error linear unit.
///
/// All `x`: `-Inf` gives 0, `+Inf` gives `+Inf`, NaN gives NaN. Right also where the distribution function underflows.
///
/// Largest error: f32 1.972 ULP, over all inputs, at -1.3107718; f64 1.82 ULP, sampled.
#[inline(always)]
pub(crate) fn gelu<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    x.share(
        #[inline(always)]
        || {
            let below = Below::new(x);
            let m = below.times_significand(below.polynomial(T::GELU_TAIL));
            let half = x.all(T::one() / (T::one() + T::one()));
            let near = x * x.mul_add(polynomial(below.half_square, T::NORMAL_NEAR_ZERO), half);
            let is_far = below.point.le(x.all(-T::GELU_EDGE));
            // NaN stays NaN, and -0 goes with the tails that round to 0.
            let above = x.all(-T::zero()).larger(x);
            let result = is_far.select(above + below.exponent.scale(m), near);
            if !below.is_small().any() {
                return result;
            }
            let tail = x.eq(-x.all(T::infinity())).select(x.all(T::zero()), scale(m, below.exponent.n));
            is_far.select(above + tail, near)
        },
    )
}

/// `g` times the derivative of [`gelu`] at `x`: the distribution function and `x` times the density.
///
/// Largest error: f32 3.40 ULP, over every third input, at -6.1542068; around its zero, -0.75, in units of the last
/// place of 1: 0.6.
#[inline(always)]
pub(crate) fn gelu_derivative_times<T: Float, S: Simd<T>>(x: Lanes<T, S>, g: Lanes<T, S>) -> Lanes<T, S> {
    x.share(
        #[inline(always)]
        || {
            let one = x.all(T::one());
            let below = Below::new(x);
            let p = below.polynomial(T::SLOPE_TAIL);
            let m = below.times_significand(p.mul_add(below.point, p * x.all(-T::NORMAL_SHIFT)));
            let tail = below.exponent.scale(m);
            let negative = x.lt(x.all(T::zero()));
            let far = negative.select(tail, one - tail);
            let half = x.all(T::one() / (T::one() + T::one()));
            let near = x.mul_add(polynomial(below.half_square, T::SLOPE_NEAR_ZERO), half);
            let result = g * one.le(x.abs()).select(far, near);

            let is_small = below.is_small() & x.eq(x);
            if !is_small.any() {
                return result;
            }
            // `m` is below 2^5.
            let shift = x.all(T::from(5).expect("a small integer"));
            let product = scaled_product(g, m * power(-shift), below.exponent.n + shift);
            is_small.select(negative.select(product, g), result)
        },
    )
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use core::f64::consts::FRAC_1_SQRT_2;

    use super::*;
    use crate::math::oracle::{self, Function};

    enum Of {
        Erf,
        Erfc,
        Gelu,
        /// The derivative of `gelu`; NaN around its zero, where it has digits only beside 1.
        Slope,
    }

    impl<T: Float> Function<T> for Of {
        #[inline(always)]
        fn apply<S: Simd<T>>(&self, x: Lanes<T, S>, y: Lanes<T, S>) -> Lanes<T, S> {
            match self {
                Self::Erf => erf(x),
                Self::Erfc => erfc(x),
                Self::Gelu => gelu(x),
                Self::Slope => {
                    let quarter = x.all(T::NORMAL_MIDDLE);
                    let is_near_zero = x.lt(-quarter) & (-quarter - x.all(T::one())).lt(x);
                    is_near_zero.select(x.all(T::nan()), gelu_derivative_times(x, y))
                }
            }
        }
    }

    fn slope(x: f64) -> f64 {
        if -1.25 < x && x < -0.25 || x.is_nan() {
            return f64::NAN;
        }
        let density = (-0.5 * x * x).exp() * (0.5 * FRAC_1_SQRT_2 * core::f64::consts::FRAC_2_SQRT_PI);
        0.5 * libm::erfc(-x * FRAC_1_SQRT_2) + if density > 0.0 { x * density } else { 0.0 }
    }

    fn errors_f32(step: u32) {
        let worst = |f: Of, oracle: fn(f64) -> f64| oracle::worst_f32(&f, step, |_| 1.0, |x, _| oracle(x));
        worst(Of::Erf, libm::erf).assert_at_most(1.39);
        worst(Of::Erfc, libm::erfc).assert_at_most(1.1);
        let gelu = |x: f64| if x == f64::NEG_INFINITY { 0.0 } else { 0.5 * x * libm::erfc(-x * FRAC_1_SQRT_2) };
        worst(Of::Gelu, gelu).assert_at_most(1.97);
        worst(Of::Slope, slope).assert_at_most(3.6);
    }

    #[test]
    fn error_f32() {
        errors_f32(1009);
    }

    #[test]
    #[ignore = "all 2^32 inputs four times: some minutes"]
    fn error_f32_everywhere() {
        errors_f32(1);
    }

    #[test]
    fn same_bits() {
        for f in [Of::Erf, Of::Erfc, Of::Gelu, Of::Slope] {
            let x = oracle::of_every_size::<f32>(20_000, 1);
            let near: Vec<f32> = oracle::uniform(2).map(|x| 32.0 * x as f32 - 16.0).take(50_000).collect();
            oracle::assert_same_bits(&f, &x, &x);
            oracle::assert_same_bits(&f, &near, &near);
            let x = oracle::of_every_size::<f64>(5_000, 3);
            let near: Vec<f64> = oracle::uniform(4).map(|x| 80.0 * x - 40.0).take(10_000).collect();
            oracle::assert_same_bits(&f, &x, &x);
            oracle::assert_same_bits(&f, &near, &near);
        }
    }
}
