//! The exponentials of a row up to a factor that they share: what a quotient of them needs, in fewer operations than the
//! exponential itself.
//!
//! Method: that of [`exp`](super::exp) with a table, of the difference to a pivot near the maximum of the row. That difference
//! is rounded only to find the `n` nearest to it in units of `ln(2) / 8`; pivot and `n ln(2) / 8` are multiples of so large a
//! number that their sum is exact, and then taken from the entry at once (W. J. Cody, W. Waite, 1980). The table is of
//! `K 2^(j/8)`, with a factor `K` that makes all of its numbers round to almost themselves: no second table of what they lack.

use super::polynomial;
use crate::float::Float;
use crate::lanes::Lanes;
use crate::simd::Simd;

/// What [`RelativeExp`] needs to know of a type.
pub trait RelativeExpConstants: Sized {
    /// `ln(2) / 8` in two terms, the first a multiple of what pivots are multiples of.
    const LN2_EIGHTH: [Self; 2];
    /// `K 2^(j/8)`, less `j` eighths in the bits of the fraction. Searched for: of all `K` in f32, of the 2^28 that follow 1
    /// in f64, the one with the smallest of the largest rounding errors: 0.056 and 0.041 of half a unit in the last place.
    const RELATIVE_EIGHTHS: [Self; 8];
}

impl RelativeExpConstants for f32 {
    const LN2_EIGHTH: [Self; 2] = [0.086_669_92, -2.652_430_5e-5];
    const RELATIVE_EIGHTHS: [Self; 8] =
        [1.186_161_5, 1.168_518_3, 1.160_591_7, 1.163_261_2, 1.177_485_7, 1.204_311_1, 1.244_877_9, 1.212_714_9];
}

impl RelativeExpConstants for f64 {
    const LN2_EIGHTH: [Self; 2] = [0.086_643_397_569_787_34, 2.058_243_697_862_135_3e-13];
    const RELATIVE_EIGHTHS: [Self; 8] = [
        1.000_000_034_917_262_9,
        0.982_753_885_371_401_4,
        0.969_603_578_263_289_2,
        0.960_919_799_966_548_6,
        0.957_106_805_876_780_9,
        0.958_605_439_628_860_8,
        0.965_896_444_615_515_7,
        0.979_504_075_223_942_4,
    ];
}

/// `x -> 2 K e^(x - pivot)` for the entries of a row, the pivot being so near the maximum that this gives something between 2
/// and 3. Entry minus pivot rounds to the same where both are shifted by a number and that is exact: then so are the results.
#[derive(Clone, Copy)]
pub(crate) struct RelativeExp<T: Float, S: Simd<T>> {
    pivot: Lanes<T, S>,
}

impl<T: Float, S: Simd<T>> RelativeExp<T, S> {
    /// For rows with these maxima, one a lane, less than [`far_from`] in size.
    #[inline(always)]
    pub(crate) fn new(max: Lanes<T, S>) -> Self {
        // What is added to it and taken from it comes out as a multiple of its last place.
        let grid = max.all(T::from(6 * (T::BIAS + 1)).expect("a small integer"));
        Self { pivot: (max + grid) - grid }
    }

    /// For a row with this pivot.
    #[inline(always)]
    pub(crate) fn with_pivot(simd: S, pivot: T) -> Self {
        Self { pivot: Lanes::splat(simd, pivot) }
    }

    #[inline(always)]
    pub(crate) fn pivots(self) -> T::Block {
        self.pivot.store()
    }

    /// The exponentials of entries of the row; `small` is called for those of which some are below the normal numbers.
    ///
    /// Largest error: 0.59 ULP, sampled; 1.6 where the result is below the normal numbers or nearly. NaN gives NaN.
    #[inline(always)]
    pub(crate) fn of<const N: usize>(
        self,
        x: [Lanes<T, S>; N],
        small: impl FnOnce(&mut [Lanes<T, S>; N]),
    ) -> [Lanes<T, S>; N] {
        let mut results = x;
        let mut least = x[0] - self.pivot;
        for (result, x) in results.iter_mut().zip(x) {
            least = (x - self.pivot).smaller(least);
            *result = self.normal(x);
        }
        if least.lt(least.all(normal_from())).any() {
            let mut others = least.lt(least);
            for (result, x) in results.iter_mut().zip(x) {
                let difference = x - self.pivot;
                let is_zero = difference.lt(x.all(T::EXP_ZERO_BELOW));
                *result = is_zero.select(x.all(T::zero()), *result);
                others = others | (difference.lt(x.all(normal_from())) & !is_zero);
            }
            if others.any() {
                small(&mut results);
            }
        }
        results
    }

    /// The exponential, where it is normal.
    #[inline(always)]
    fn normal(self, x: Lanes<T, S>) -> Lanes<T, S> {
        let [ln2_high, ln2_low] = T::LN2_EIGHTH;
        x.share(
            #[inline(always)]
            || {
                let shift = x.all(T::TO_INTEGER + eight()); // its last bits make the results twice as large
                let shifted = (x - self.pivot).mul_add(x.all(T::LOG2_E * eight()), shift);
                let eighths = shifted - shift;
                let high = x - eighths.mul_add(x.all(ln2_high), self.pivot);
                let r = eighths.mul_add(x.all(-ln2_low), high);
                let growth = (r * r).mul_add(polynomial(r, T::EXP_SHORT), r); // e^r - 1
                let power = shifted.lookup(&T::RELATIVE_EIGHTHS).int_add(shifted.shl(T::FRACTION_BITS - 3));
                growth.mul_add(power, power)
            },
        )
    }

    /// `result`, but the exponential where it is below the normal numbers: rounded once.
    #[inline(always)]
    pub(crate) fn with_small(self, x: Lanes<T, S>, result: Lanes<T, S>) -> Lanes<T, S> {
        let (difference, error) = x.two_sum(-self.pivot);
        let (e, exponent) = super::exp_parts(difference, error);
        let is_small = difference.lt(x.all(normal_from()));
        is_small.select(super::scale(e * x.all(factor()), exponent), result)
    }

    /// What the maxima of the rows give, in two terms.
    #[inline(always)]
    pub(crate) fn of_max(self, max: Lanes<T, S>) -> (Lanes<T, S>, Lanes<T, S>) {
        let (one, factor) = (max.all(T::one()), max.all(factor()));
        let offset = max - self.pivot; // so small that its cube counts for nothing
        let (sum, error) = one.fast_two_sum(offset);
        let tail = (offset * offset).mul_add(one / (one + one), error);
        let (product, error) = sum.two_mul(factor);
        (product, tail.mul_add(factor, error))
    }

    /// By how much the rounded exponentials of the maxima are too small: often they are most of the sum.
    #[inline(always)]
    pub(crate) fn lack_of_max(self, max: Lanes<T, S>) -> Lanes<T, S> {
        let (of_max, rest) = self.of_max(max);
        (of_max - self.normal(max)) + rest
    }
}

/// From here on a maximum is too large for a [`RelativeExp`]; but its difference to every entry that counts is exact (Sterbenz).
pub(crate) fn far_from<T: Float>() -> T {
    T::from(2 * T::BIAS).expect("a small integer")
}

/// No result of a [`RelativeExp`] is larger.
pub(crate) fn limit<T: Float>() -> T {
    T::one() + T::one() + T::one()
}

/// `2 K`.
fn factor<T: Float>() -> T {
    T::RELATIVE_EIGHTHS[0] + T::RELATIVE_EIGHTHS[0]
}

/// From here on, above the pivot, a result is above the least normal number.
fn normal_from<T: Float>() -> T {
    T::EXP_NORMAL_FROM - T::from(1.3).expect("a number") // not quite the logarithm of twice the factor
}

fn eight<T: Float>() -> T {
    T::from(8).expect("a small integer")
}

#[cfg(test)]
mod tests {
    extern crate std;

    use alloc::vec::Vec;

    use super::super::oracle::{self, Double, Function, Worst, value};
    use super::*;

    /// Of an entry and the maximum of its row.
    struct Relative;

    impl<T: Float> Function<T> for Relative {
        #[inline(always)]
        fn apply<S: Simd<T>>(&self, x: Lanes<T, S>, max: Lanes<T, S>) -> Lanes<T, S> {
            let exp = RelativeExp::new(max);
            let [result] = exp.of([x], |results| results[0] = exp.with_small(x, results[0]));
            result
        }
    }

    /// What the rounded exponential of the maximum lacks.
    struct Lack;

    impl<T: Float> Function<T> for Lack {
        #[inline(always)]
        fn apply<S: Simd<T>>(&self, max: Lanes<T, S>, _: Lanes<T, S>) -> Lanes<T, S> {
            RelativeExp::new(max).lack_of_max(max)
        }
    }

    fn pivot<T: Float>(max: T) -> T {
        let grid = T::from(6 * (T::BIAS + 1)).unwrap();
        (max + grid) - grid
    }

    /// Entries down to `range` below maxima of every size up to the limit.
    fn entries<T: Float>(count: usize, range: f64) -> [Vec<T>; 2] {
        let limit = far_from::<T>().to_f64().unwrap() * 0.999;
        let sizes = oracle::uniform(1).zip(oracle::uniform(2)).map(|(x, size)| (x - 0.5) * (-20.0 * size).exp2());
        let max: Vec<T> = sizes.map(|x| T::from(2.0 * limit * x).unwrap()).take(count).collect();
        let below = oracle::uniform(3).map(|x| T::from(range * x * x).unwrap());
        [max.iter().zip(below).map(|(&max, below)| max - below).collect(), max]
    }

    #[test]
    fn error_f32() {
        let [x, max] = entries::<f32>(2_000_000, 105.0);
        let mut worst = [Worst::default(); 2];
        for ((&x, &max), got) in x.iter().zip(&max).zip(oracle::apply(&Relative, &x, &max)) {
            let want = f64::from(factor::<f32>()) * (f64::from(x) - f64::from(pivot(max))).exp();
            let worst = &mut worst[usize::from(got < 1.4 * f32::MIN_POSITIVE)];
            worst.meet(oracle::ulps_f32(got, want), (f64::from(x), f64::from(max)));
        }
        worst[0].assert_at_most(0.6);
        worst[1].assert_at_most(1.6);
    }

    #[test]
    fn error_f64() {
        let [x, max] = entries::<f64>(200_000, 746.0);
        let mut worst = [Worst::default(); 2];
        for ((&x, &max), got) in x.iter().zip(&max).zip(oracle::apply(&Relative, &x, &max)) {
            let difference = Double::new(x) - Double::new(pivot(max));
            let (m, n) = oracle::exp(difference);
            let worst = &mut worst[usize::from(got < 1.4 * f64::MIN_POSITIVE)];
            worst.meet(oracle::ulps_f64(got, m * Double::new(factor::<f64>()), n), (x, max));
        }
        worst[0].assert_at_most(0.6);
        worst[1].assert_at_most(1.6);
    }

    #[test]
    fn what_the_maximum_lacks() {
        let [_, max] = entries::<f32>(100_000, 0.0);
        let rounded = oracle::apply(&Relative, &max, &max);
        for ((&max, lack), rounded) in max.iter().zip(oracle::apply(&Lack, &max, &max)).zip(rounded) {
            let want = f64::from(factor::<f32>()) * (f64::from(max) - f64::from(pivot(max))).exp();
            let error = f64::from(rounded) + f64::from(lack) - want;
            assert!(error.abs() <= 2_f64.powi(-44), "{max:e}: {error:e}");
        }
    }

    #[test]
    fn special_values() {
        fn check<T: Float>(value: impl Fn(T, T) -> T) {
            for max in [T::zero(), T::one(), -T::one(), far_from::<T>() * T::from(-0.9).unwrap()] {
                assert_eq!(value(T::neg_infinity(), max).to_bits(), 0);
                assert_eq!(value(-T::max_value(), max).to_bits(), 0);
                assert_eq!(value(max + T::EXP_ZERO_BELOW - T::one(), max).to_bits(), 0);
                assert!(value(T::nan(), max).is_nan());
            }
            assert_eq!(value(T::one(), T::one()), factor::<T>());
        }
        check::<f32>(|x, max| value(&Relative, x, max));
        check::<f64>(|x, max| value(&Relative, x, max));
    }

    #[test]
    fn same_bits() {
        let [x, max] = entries::<f32>(100_000, 110.0);
        oracle::assert_same_bits(&Relative, &x, &max);
        let [x, max] = entries::<f64>(20_000, 750.0);
        oracle::assert_same_bits(&Relative, &x, &max);
    }
}
