//! The entropy of the softmax of each row, from the logits, and its gradient.

use alloc::vec::Vec;

use crate::error::{Result, check_len, check_shape};
use crate::exponentials::row_exp;
use crate::finite::{Operand, Watch, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::{Kernel, outline_rare};
use crate::lanes::{Lanes, Mask};
use crate::logits::{
    LogitRowFormula, Logits, RowSum, Singly, apply_to_logits, below_max, distance, row_normalize, sum_with_exponents,
};
use crate::math;
use crate::rows::RowsSeen;
use crate::simd::Simd;
use crate::sweep::{each_block, sweep};
use crate::view::{MatMut, MatRef};

/// The entropy of the softmax of each row: `h[i] = -sum(p ln p)` with `p = softmax(x[i, ..])`, in nats.
///
/// `h` has an element for each row of `x`. Computed as `ln(sum(exp(x - max))) + sum(p (max - x))`, of which no term is
/// negative: within 4 ULP of the true value for rows up to 4096 long. A logit of `-inf` has probability 0 and adds
/// nothing; a row of them has the entropy 0. NaN gives NaN.
///
/// Gradient: [`softmax_entropy_backward`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if `h` has another length; [`Error::NonFinite`](crate::Error::NonFinite) if a
/// logit is NaN or `+inf`.
///
/// ```
/// use nanproof::{MatRef, softmax_entropy};
///
/// let mut h = [0.0_f64; 2];
/// softmax_entropy(MatRef::new(&[7.0, 7.0, 0.0, f64::NEG_INFINITY], 2, 2)?, &mut h)?;
/// assert_eq!(h, [2.0_f64.ln(), 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn softmax_entropy<T: Float>(x: MatRef<'_, T>, h: &mut [T]) -> Result<()> {
    const NAME: &str = "softmax_entropy";
    check_len(NAME, "h", h.len(), x.rows(), "the number of rows of x")?;
    let logits = Logits::plain(Some(x));
    if apply_to_logits(Singly(EntropyRow), logits, h, None)?.finite {
        return Ok(());
    }
    diagnose(NAME, logits.operands("x"), [Operand::slice("h", h)], overflow_or_invalid)
}

/// The gradient of [`softmax_entropy`]: `dx[i, j] = -dh[i] p[j] (ln p[j] + h[i])`, with `p = softmax(x[i, ..])`.
///
/// Computed as `dh p ((max - x) - sum(p (max - x)))`; the error is at most `5 u dh p ((max - x) + sum(p (max - x)))` with
/// `u = 2^-24` or `2^-53`, also where `p` underflows and the result does not. Entries of `-inf` get exactly 0, and the `dh`
/// of a row of `-inf` is not read.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the shapes do not fit; [`Error::NonFinite`](crate::Error::NonFinite) if a
/// logit is NaN or `+inf`, or a result is not finite.
///
/// ```
/// use nanproof::{MatMut, MatRef, softmax_entropy_backward};
///
/// let mut dx = [1.0_f32; 3];
/// let x = MatRef::new(&[2.0, 2.0, f32::NEG_INFINITY], 1, 3)?;
/// softmax_entropy_backward(x, &[1.0], MatMut::new(&mut dx, 1, 3)?)?;
/// assert_eq!(dx, [0.0; 3]); // even odds are as uncertain as can be
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn softmax_entropy_backward<T: Float>(x: MatRef<'_, T>, dh: &[T], mut dx: MatMut<'_, T>) -> Result<()> {
    const NAME: &str = "softmax_entropy_backward";
    check_len(NAME, "dh", dh.len(), x.rows(), "the number of rows of x")?;
    check_shape(NAME, "dx", dx.shape(), x.shape(), "the shape of x")?;
    let logits = Logits::plain(Some(x));
    if apply_to_logits(Singly(EntropyBackwardRow { dh }), logits, &mut [], Some(dx.reborrow()))?.finite {
        return Ok(());
    }
    let inputs = logits.operands("x").chain([logits.upstream("dh", dh)]);
    diagnose(NAME, inputs, [Operand::matrix("dx", dx.as_ref())], overflow_or_invalid)
}

/// `-sum(p ln p)`.
#[derive(Clone, Copy, Debug)]
pub struct EntropyRow;

impl<T: Float> LogitRowFormula<T> for EntropyRow {
    const WORK: usize = 8;

    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        simd: S,
        _: usize,
        x: &[T],
        _: &mut [T],
        h: &mut T,
        exponentials: &mut Vec<T>,
    ) -> RowsSeen {
        exponentials.resize(x.len(), T::zero());
        let row = row_exp(simd, x, exponentials);
        *h = if row.is_empty() {
            T::zero()
        } else if row.is_plain() && row.is_max_unique() && is_faint(row.rest.value()) {
            faint_entropy(simd, x, row.max)
        } else {
            row.log(simd) + distance(simd, exponentials, x, row.max) / row.written_total(simd).value()
        };
        RowsSeen::finite(row.is_empty() || row.is_plain() && h.is_finite())
    }
}

/// Whether a sum of exponentials of differences, or of those times the differences, may have lost digits to terms that are
/// subnormal.
fn is_faint<T: Float>(sum: T) -> bool {
    sum < T::min_positive_value() / T::epsilon()
}

/// The differences from the maximum of what leaves the range in the product with any number start here.
fn out_of_reach<T: Float>() -> T {
    let two = T::one() + T::one();
    two * two * T::EXP_ZERO_BELOW
}

/// Whether an entry so far below the maximum that its probability may be subnormal is within reach.
#[inline(always)]
fn has_faint_exp<T: Float, S: Simd<T>>(simd: S, x: &[T], max: T) -> bool {
    let quarter = T::EXP_NORMAL_FROM * T::from(0.25).expect("a number"); // more than the logarithm of any number of entries
    let [greatest, least] = [max + (T::EXP_NORMAL_FROM - quarter), max + out_of_reach()].map(
        #[inline(always)]
        |x| Lanes::splat(simd, x),
    );
    let mut is_any = Mask::first(simd, 0);
    each_block(
        simd,
        x,
        T::neg_infinity(),
        #[inline(always)]
        |x| is_any = is_any | (least.lt(x) & x.lt(greatest)),
    );
    is_any.any()
}

/// The entropy where all but the maximum have a sum of exponentials so small that `ln(1 + sum) = sum`.
#[inline(always)]
fn faint_entropy<T: Float, S: Simd<T>>(simd: S, x: &[T], max: T) -> T {
    let (mut sum, mut exponent) = (T::zero(), T::zero());
    outline_rare(simd, FaintDistance { x, max, more: T::one(), sum: &mut sum, exponent: &mut exponent });
    math::scale(Lanes::splat(simd, sum), Lanes::splat(simd, exponent)).first()
}

/// The sum of `exp(x - max) (max - x + more)` over the entries below the maximum, and the exponent of the power of two that it
/// is multiplied by.
struct FaintDistance<'a, T> {
    x: &'a [T],
    max: T,
    more: T,
    sum: &'a mut T,
    exponent: &'a mut T,
}

impl<T: Float> Kernel for FaintDistance<'_, T> {
    type Elem = T;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) {
        let [more, least, zero] = [self.more, out_of_reach(), T::zero()].map(
            #[inline(always)]
            |x| Lanes::splat(simd, x),
        );
        let (sum, exponent) = sum_with_exponents(
            simd,
            [self.x],
            T::neg_infinity(),
            #[inline(always)]
            |[x]| {
                let (difference, error) = below_max(x, self.max);
                let (e, exponent) = math::exp_parts(difference, error);
                let (factor, power) = math::split_exponent(more - difference);
                let (product, low) = e.two_mul(factor);
                let low = low - e * math::scale(error, -power);
                let counts = least.lt(difference) & difference.lt(zero);
                ((counts.select(product, zero), counts.select(low, zero)), exponent + power)
            },
        );
        (*self.sum, *self.exponent) = (sum.value(), exponent);
    }
}

/// The gradient where a step may be subnormal: with exponents of their own. Returns whether all is finite.
struct FaintGradient<'a, T> {
    x: &'a [T],
    row: RowSum<T>,
    dh: T,
    dx: &'a mut [T],
}

impl<T: Float> Kernel for FaintGradient<'_, T> {
    type Elem = T;
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> bool {
        let Self { x, row, dh, dx } = self;
        let (mut sum, mut exponent) = (T::zero(), T::zero());
        FaintDistance { x, max: row.max, more: T::zero(), sum: &mut sum, exponent: &mut exponent }.run(simd);
        let (dh, up) = math::split_exponent(Lanes::splat(simd, dh));
        let weight = row.weight(simd, dh.first());
        // Differences are taken times a power of two that lifts what is subnormal to where it has all digits.
        let lift = T::from(T::BIAS / 2).expect("a small integer");
        let [distance, exponent, weight, weight_error, lift, least, zero, one] =
            [sum / row.total().value(), exponent, weight.sum, weight.error, lift, out_of_reach(), T::zero(), T::one()]
                .map(
                    #[inline(always)]
                    |x| Lanes::splat(simd, x),
                );
        let (lifting, lifted) = (math::scale(one, lift), math::scale(distance, exponent + lift));
        let mut watch = Watch::new(simd);
        sweep(
            simd,
            [x],
            [dx],
            #[inline(always)]
            |[x], [_]| {
                let (difference, error) = below_max(x, row.max);
                let (e, e_exponent) = math::exp_parts(difference, error);
                let p = e.mul_add(weight, e * weight_error);
                // Of the maximum it may be far below what a difference can be.
                let is_max = difference.eq(zero);
                let excess = is_max.select(-distance, (-difference).mul_add(lifting, -lifted));
                let power = e_exponent + up + is_max.select(exponent, -lift);
                let result = least.lt(difference).select(math::scale(p * excess, power), zero);
                watch.see(result);
                [result]
            },
        );
        watch.all_finite()
    }
}

/// `-dh p (ln p + h)`.
#[derive(Clone, Copy, Debug)]
pub struct EntropyBackwardRow<'a, T> {
    dh: &'a [T],
}

impl<T: Float> LogitRowFormula<T> for EntropyBackwardRow<'_, T> {
    const WORK: usize = 8;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, i: usize, x: &[T], dx: &mut [T], _: &mut T, _: &mut Vec<T>) -> RowsSeen {
        let row = row_exp(simd, x, dx);
        if row.is_empty() {
            dx.fill(T::zero());
            return RowsSeen::finite(true);
        }
        let (dh, distance) = (self.dh[i], distance(simd, dx, x, row.max) / row.written_total(simd).value());
        row_normalize(simd, x, &row, T::one(), dx);
        let mut watch = Watch::new(simd);
        let mut is_any_faint = Mask::first(simd, 0);
        let twice_least = T::min_positive_value() + T::min_positive_value();
        let [max, lanes_dh, lanes_distance, twice_least] = [row.max, dh, distance, twice_least].map(
            #[inline(always)]
            |x| Lanes::splat(simd, x),
        );
        sweep(
            simd,
            [x],
            [&mut *dx],
            #[inline(always)]
            |[x], [p]| {
                let is_faint = p.lt(twice_least);
                is_any_faint = is_any_faint | is_faint;
                let result = is_faint.select(Lanes::zero(simd), lanes_dh * (p * ((max - x) - lanes_distance)));
                watch.see(result);
                [result]
            },
        );
        if !row.is_plain() || !dh.is_finite() {
            return RowsSeen::finite(false);
        }
        // Most often what is faint is `-inf`.
        let is_rounded = is_any_faint.any() && has_faint_exp(simd, x, row.max);
        RowsSeen::finite(if is_rounded || !distance.is_zero() && is_faint(distance) {
            outline_rare(simd, FaintGradient { x, row, dh, dx })
        } else {
            watch.all_finite()
        })
    }
}
