//! `(x - mean) * factor`, which normalises a row: what it is in numbers of the type, and the pass that writes it.

use crate::finite::Watch;
use crate::float::{Float, Format};
use crate::kernel::Kernel;
use crate::lanes::Lanes;
use crate::long::Long;
use crate::reduce::TwoTerm;
use crate::scaled::{narrow, power, wide};
use crate::simd::Simd;
use crate::sweep::sweep;

/// `(x - mean) * factor`, in the order `(x * scale - mean) * factor` with a power of two as scale, and a factor of about
/// 1/8 so that what is subnormal is rounded once. Mean and factor in two terms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<T> {
    pub(crate) scale: T,
    pub(crate) mean: TwoTerm<T>,
    pub(crate) factor: TwoTerm<T>,
}

/// The factor, after scaling, is about `2^-FACTOR`.
pub(crate) const FACTOR: i32 = 4;

/// The scaled mean is at most this power of two: the scaled row does not overflow where its difference from it does not.
fn room<T: Float>() -> i32 {
    T::BIAS - 27
}

impl<T: Float> Line<T> {
    #[inline(never)]
    pub(crate) fn new(mean: Long, factor: Long) -> Self {
        let exponent = (-FACTOR - factor.log2()).max(mean.log2() - room::<T>()).clamp(2 - T::BIAS, T::BIAS - 2);
        Self { scale: power(-exponent), mean: mean.parts(-exponent), factor: factor.parts(exponent) }
    }

    pub(crate) fn nan() -> Self {
        let nan = TwoTerm { sum: T::nan(), error: T::nan() };
        Self { scale: T::one(), mean: nan, factor: nan }
    }

    /// The result for the lanes of `x`, within 1.5 ULP: where the first subtraction rounds, the second term of the mean
    /// is far below it.
    #[inline(always)]
    pub(crate) fn apply<S: Simd<T>>(self, x: Lanes<T, S>) -> Lanes<T, S> {
        let difference = x * x.all(self.scale) - x.all(self.mean.sum);
        let low = difference * x.all(self.factor.error) - x.all(self.mean.error * self.factor.sum);
        difference.mul_add(x.all(self.factor.sum), low)
    }
}

/// As many [`Line`]s as a block has lanes, in `f64`, whose digits are enough for `f32`.
pub(crate) struct Lines {
    scale: <f64 as Format>::Block,
    /// In two terms: it may be so near to the elements that one has not the digits.
    mean: [<f64 as Format>::Block; 2],
    factor: <f64 as Format>::Block,
}

impl Lines {
    /// Lines for rows of `T`, of a mean in two terms.
    #[inline(always)]
    pub(crate) fn new<T: Float, W: Simd<f64>>([mean, rest]: [Lanes<f64, W>; 2], factor: Lanes<f64, W>) -> Self {
        let for_factor = power_below(factor) * factor.all(power(FACTOR));
        let for_mean = inverse_power(power_below(mean + rest)) * mean.all(power(room::<T>()));
        let scale = scale_within_range::<T, W>(for_factor.smaller(for_mean));
        Self {
            scale: scale.store(),
            mean: [(mean * scale).store(), (rest * scale).store()],
            factor: (factor * inverse_power(scale)).store(),
        }
    }

    #[inline(always)]
    pub(crate) fn line<T: Float>(&self, i: usize) -> Line<T> {
        let [mean, rest] = &self.mean;
        Line {
            scale: narrow(self.scale[i]),
            mean: two_terms(TwoTerm { sum: mean[i], error: rest[i] }),
            factor: two_terms(TwoTerm { sum: self.factor[i], error: 0.0 }),
        }
    }
}

/// The largest power of two in a magnitude; 0 where it is subnormal.
#[inline(always)]
pub(crate) fn power_below<W: Simd<f64>>(x: Lanes<f64, W>) -> Lanes<f64, W> {
    x & x.all(f64::INFINITY)
}

/// The inverse of a power of two; of 0 the largest power of two.
#[inline(always)]
pub(crate) fn inverse_power<W: Simd<f64>>(x: Lanes<f64, W>) -> Lanes<f64, W> {
    // The exponent fields of a power and of its inverse sum up to that of 2^1023.
    x.all(power(1023)).int_sub(x)
}

/// A power of two within the range of those of `T` whose inverses have half of them.
#[inline(always)]
pub(crate) fn scale_within_range<T: Float, W: Simd<f64>>(scale: Lanes<f64, W>) -> Lanes<f64, W> {
    let end = T::BIAS - 2;
    scale.larger(scale.all(power(-end))).smaller(scale.all(power(end)))
}

#[inline(always)]
fn two_terms<T: Float>(x: TwoTerm<f64>) -> TwoTerm<T> {
    let sum: T = narrow(x.value());
    let error = narrow((x.sum - wide(sum)) + x.error);
    TwoTerm { sum, error: if sum.is_normal() { error } else { T::zero() } }
}

/// Writes `y = line(x) * weight + bias`; without weights `y = line(x)`.
#[derive(Debug)]
pub(crate) struct WriteLine<'a, T> {
    pub(crate) line: Line<T>,
    pub(crate) x: &'a [T],
    pub(crate) weight: &'a [T],
    pub(crate) bias: &'a [T],
    pub(crate) y: &'a mut [T],
}

impl<T: Float> Kernel for WriteLine<'_, T> {
    type Elem = T;
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> bool {
        let Self { line, x, weight, bias, y } = self;
        let mut watch = Watch::new(simd);
        if weight.is_empty() {
            sweep(
                simd,
                [x],
                [y],
                #[inline(always)]
                |[x], [_]| {
                    let y = line.apply(x);
                    watch.see(y);
                    [y]
                },
            );
        } else {
            sweep(
                simd,
                [x, weight, bias],
                [y],
                #[inline(always)]
                |[x, weight, bias], [_]| {
                    let y = line.apply(x).mul_add(weight, bias);
                    watch.see(y);
                    [y]
                },
            );
        }
        watch.all_finite()
    }
}
