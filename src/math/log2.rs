//! The logarithm to base 2.
//!
//! Method: `x = 2^k (1 + g)` and the polynomial of the natural logarithm, of whose terms `g - g^2/2` is multiplied by
//! `1 / ln 2` in two terms, and the product added to `k`, with the errors of all three steps.

use super::ln::logarithm;
use super::polynomial_of_pairs;
use crate::float::Float;
use crate::lanes::Lanes;
use crate::simd::Simd;

/// What the logarithm to base 2 needs to know of a type.
pub trait Log2Constants: Sized + 'static {
    /// `1 / ln 2 - LOG2_E`, rounded.
    const LOG2_E_LOW: Self;
    /// The polynomial of the natural logarithm, `LN_1P_TAIL`, over `ln 2`: rounded, for f32 with a search among the
    /// neighbours, which makes the error of f32 0.015 ULP at the most.
    const LOG2_TAIL: &'static [Self];
}

impl Log2Constants for f32 {
    const LOG2_E_LOW: Self = 1.925_963e-8;
    const LOG2_TAIL: &'static [Self] = &[
        0.480_898_23,
        -0.360_671_43,
        0.288_550_97,
        -0.240_617_45,
        0.205_778_66,
        -0.176_289_5,
        0.162_554_98,
        -0.183_386_98,
        0.142_050_67,
    ];
}

impl Log2Constants for f64 {
    const LOG2_E_LOW: Self = 2.035_527_374_093_103_3e-17;
    const LOG2_TAIL: &'static [Self] = &[
        0.480_898_346_962_987_06,
        -0.360_673_760_222_272_65,
        0.288_539_008_178_171_5,
        -0.240_449_173_472_222_64,
        0.206_099_291_490_424_16,
        -0.180_336_881_111_955_64,
        0.160_299_454_425_201_13,
        -0.144_269_449_181_682_2,
        0.131_153_835_680_835_55,
        -0.120_226_316_465_521_79,
        0.110_984_136_239_083_49,
        -0.103_016_844_013_453_05,
        0.096_038_037_444_700_56,
        -0.090_540_363_381_231_17,
        0.086_540_384_362_184_59,
        -0.077_837_853_379_560_31,
        0.063_873_068_195_264_67,
        -0.077_437_881_282_646_56,
        0.115_350_716_861_037_3,
        -0.079_271_874_093_029_42,
    ];
}

/// `log2 x`.
///
/// All `x`: powers of two give whole numbers, +-0 give -Inf, +Inf gives +Inf; what is less than 0, and NaN, give NaN.
///
/// Largest error: f32 0.577 ULP, over all inputs, at 1.3998419; f64 0.60 ULP, sampled.
#[inline(always)]
pub(crate) fn log2<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    logarithm(
        x,
        #[inline(always)]
        |k, g| log2_of_reduced(k, g),
    )
}

/// `k + log2(1 + g)`.
#[inline(always)]
fn log2_of_reduced<T: Float, S: Simd<T>>(k: Lanes<T, S>, g: Lanes<T, S>) -> Lanes<T, S> {
    let log2_e = g.all(T::LOG2_E);
    let half = g * g.all(-T::one() / (T::one() + T::one()));
    let parabola = half.mul_add(g, g);
    let rest = half.mul_add(g, g - parabola);
    let (product, error) = parabola.two_mul(log2_e);
    let (sum, carry) = k.fast_two_sum(product);
    let small = rest.mul_add(log2_e, parabola.mul_add(g.all(T::LOG2_E_LOW), carry + error));
    // Far from 1 what the cube is rounded by counts.
    let (square, square_low) = g.two_mul(g);
    let (cube, cube_low) = square.two_mul(g);
    let p = g.mul_add(polynomial_of_pairs(g, &T::LOG2_TAIL[1..]), g.all(T::LOG2_TAIL[0]));
    let small = square_low.mul_add(g, cube_low).mul_add(p, small);
    sum + cube.mul_add(p, small)
}
