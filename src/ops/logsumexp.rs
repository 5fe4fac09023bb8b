//! Log-sum-exp along the rows of a matrix, and its gradient.

use alloc::vec::Vec;

use super::softmax::Softmax;
use crate::error::{Result, check_len, check_shape};
use crate::exponentials::{RowSums, row_exp};
use crate::finite::{Index, Operand, Watch, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::{Join, Kernel, outline_rare};
use crate::lanes::Lanes;
use crate::logits::{
    LogitFormula, LogitRowFormula, Logits, Raised, RowSum, Singly, apply_to_logits, below_max, row_normalize,
    row_normalize_scaled, sum_with_exponents,
};
use crate::math;
use crate::reduce::{TwoTerm, sum_terms};
use crate::rows::RowsSeen;
use crate::scaled::{Scaled, power};
use crate::simd::Simd;
use crate::sweep::sweep;
use crate::view::{MatMut, MatRef};

/// The logarithm of the sum of the exponentials of each row: `y[i] = ln(exp(x[i, 0]) + exp(x[i, 1]) + ...)`.
///
/// `y` has an element for each row of `x`. Within 2 ULP of the true value for rows up to 4096 long; where the maximum
/// is negative and nearly cancelled by the logarithm of the sum, within 2 ULP of the maximum. The log-sum-exp of an
/// empty row, one without entries or with `-inf` alone, is `-inf`, which is no fault. A logit of `+inf` gives `+inf`,
/// NaN gives NaN.
///
/// Gradient: [`logsumexp_backward`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if `y` has another length; [`Error::NonFinite`](crate::Error::NonFinite) if a
/// logit is NaN or `+inf`.
///
/// ```
/// use nanproof::{MatRef, logsumexp};
///
/// let x = [1000.0_f32, 1000.0, f32::NEG_INFINITY, f32::NEG_INFINITY];
/// let mut y = [0.0; 2];
/// logsumexp(MatRef::new(&x, 2, 2)?, &mut y)?;
/// assert_eq!(y, [1000.6932, f32::NEG_INFINITY]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn logsumexp<T: Float>(x: MatRef<'_, T>, y: &mut [T]) -> Result<()> {
    forward("logsumexp", Logits::plain(Some(x)), x, y)
}

/// The gradient of [`logsumexp`]: `dx[i, j] = dy[i] softmax(x)[i, j]`.
///
/// Computed from `x`, not from the result, whose rounding would be magnified. A row of `-inf` gets 0 and its `dy` is not read; where there are
/// entries of `+inf` they share `dy[i]` equally. Within 3 ULP of the true value for rows up to 4096 long, also where
/// `exp(x - max)` underflows and `dy` does not.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the shapes do not fit; [`Error::NonFinite`](crate::Error::NonFinite) if a
/// logit is NaN or `+inf`, or if a `dy` is not finite.
///
/// ```
/// use nanproof::{MatMut, MatRef, logsumexp_backward};
///
/// let mut dx = [0.0_f32; 2];
/// logsumexp_backward(MatRef::new(&[0.0, -100.0], 1, 2)?, &[1e10], MatMut::new(&mut dx, 1, 2)?)?;
/// assert_eq!(dx, [1e10, 3.7200762e-34]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn logsumexp_backward<T: Float>(x: MatRef<'_, T>, dy: &[T], dx: MatMut<'_, T>) -> Result<()> {
    backward("logsumexp_backward", Logits::plain(Some(x)), x, dy, dx)
}

/// [`logsumexp`] of logits that are scaled, biased or masked first: with the options of softmax, all but `empty`.
///
/// Gradient: [`logsumexp_backward_with`].
///
/// # Errors
/// As [`logsumexp`], for logits that are not masked, and as [`softmax_with`](crate::softmax_with).
///
/// ```
/// use nanproof::{MatRef, Softmax, logsumexp_with};
///
/// let (mut y, keep) = ([0.0_f64], [true, false]);
/// let options = Softmax { mask: Some(MatRef::new(&keep, 1, 2)?), ..Softmax::default() };
/// logsumexp_with(options, MatRef::new(&[3.0, f64::NAN], 1, 2)?, &mut y)?;
/// assert_eq!(y, [3.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn logsumexp_with<T: Float>(options: Softmax<'_, T>, x: MatRef<'_, T>, y: &mut [T]) -> Result<()> {
    const NAME: &str = "logsumexp";
    forward(NAME, options.logits(NAME, x.shape(), Some(x))?, x, y)
}

/// The gradient of [`logsumexp_with`]: `dx[i, j] = dy[i] scale p[i, j]` with the probabilities that
/// [`softmax_with`](crate::softmax_with) gives; 0 where a logit is masked. Within 4 ULP of the true value for rows up to 4096
/// long.
///
/// # Errors
/// As [`logsumexp_backward`] and [`logsumexp_with`].
///
/// ```
/// use nanproof::{MatMut, MatRef, Softmax, logsumexp_backward_with};
///
/// let (mut dx, keep) = ([9.0_f32; 2], [false, true]);
/// let options = Softmax { mask: Some(MatRef::new(&keep, 1, 2)?), scale: 0.5, ..Softmax::default() };
/// logsumexp_backward_with(options, MatRef::new(&[100.0, 1.0], 1, 2)?, &[3.0], MatMut::new(&mut dx, 1, 2)?)?;
/// assert_eq!(dx, [0.0, 1.5]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn logsumexp_backward_with<T: Float>(
    options: Softmax<'_, T>,
    x: MatRef<'_, T>,
    dy: &[T],
    dx: MatMut<'_, T>,
) -> Result<()> {
    const NAME: &str = "logsumexp_backward";
    backward(NAME, options.logits(NAME, x.shape(), Some(x))?, x, dy, dx)
}

fn forward<T: Float>(operation: &'static str, logits: Logits<'_, T>, x: MatRef<'_, T>, y: &mut [T]) -> Result<()> {
    check_len(operation, "y", y.len(), x.rows(), "the number of rows of x")?;
    let logits = Logits { is_relative: false, ..logits };
    let seen = apply_to_logits(LogSumExpRow, logits, y, None)?;
    let sank = |i: usize| y[i] == T::neg_infinity() && logits.has_logits(i);
    if seen.finite && (logits.is_plain() || !(0..y.len()).any(sank)) {
        return Ok(());
    }
    let is_allowed = |index, y: T| y == T::neg_infinity() && !matches!(index, Index::At(i) if logits.has_logits(i));
    let outputs = [logits.as_read(), Operand::slice("y", y).overlook(is_allowed)];
    diagnose(operation, logits.operands("x"), outputs, overflow_or_invalid)
}

fn backward<T: Float>(
    operation: &'static str,
    logits: Logits<'_, T>,
    x: MatRef<'_, T>,
    dy: &[T],
    mut dx: MatMut<'_, T>,
) -> Result<()> {
    check_len(operation, "dy", dy.len(), x.rows(), "the number of rows of x")?;
    check_shape(operation, "dx", dx.shape(), x.shape(), "the shape of x")?;
    let formula = LogSumExpBackwardRow { dy, scale: logits.scale };
    if apply_to_logits(Singly(formula), logits, &mut [], Some(dx.reborrow()))?.finite {
        return Ok(());
    }
    let inputs = logits.operands("x").chain([logits.upstream("dy", dy)]);
    diagnose(operation, inputs, [logits.as_read(), Operand::matrix("dx", dx.as_ref())], overflow_or_invalid)
}

/// The log-sum-exp of each row with weights that may be negative: `y[i] = ln |s|` and `sign[i]`, the sign of `s`, where
/// `s = sum_j b[i, j] exp(x[i, j])`.
///
/// An entry of weight 0 is not read. Where `s` is 0, as where all entries are `-inf`, the result is `-inf` with the sign 0,
/// which is no fault. No term over- or underflows, whatever the weights. The error is at most 2 ULP of the result and
/// `2 u sum(|b| exp(x)) / |s|` with `u = 2^-24` or `2^-53`: what terms of both signs cancel is lost, and where large terms
/// cancel to nothing so may be those that are much smaller.
///
/// Gradient: `dx[i, j] = dy[i] b[i, j] exp(x[i, j]) / s`: [`logsumexp_weighted_backward`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the shapes do not fit; [`Error::NonFinite`](crate::Error::NonFinite) if an
/// entry that is read is NaN or `+inf`, or a weight is not finite.
///
/// ```
/// use nanproof::{MatRef, logsumexp_weighted};
///
/// let (mut y, mut sign) = ([0.0_f64; 2], [0.0; 2]);
/// let (x, b) = ([-1000.0, -2.0, 0.0, 0.0], [1.0, 0.0, 1.0, -3.0]);
/// logsumexp_weighted(MatRef::new(&x, 2, 2)?, MatRef::new(&b, 2, 2)?, &mut y, &mut sign)?;
/// assert_eq!((y, sign), ([-1000.0, 2.0_f64.ln()], [1.0, -1.0]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn logsumexp_weighted<T: Float>(x: MatRef<'_, T>, b: MatRef<'_, T>, y: &mut [T], sign: &mut [T]) -> Result<()> {
    const NAME: &str = "logsumexp_weighted";
    check_shape(NAME, "b", b.shape(), x.shape(), "the shape of x")?;
    check_len(NAME, "y", y.len(), x.rows(), "the number of rows of x")?;
    check_len(NAME, "sign", sign.len(), x.rows(), "the number of rows of x")?;
    let signs = MatMut::new(sign, x.rows(), 1)?;
    if apply_to_logits(Singly(WeightedRow { b }), Logits::plain(Some(x)), y, Some(signs))?.finite {
        return Ok(());
    }
    let outputs = [Operand::slice("y", y).overlook(|_, y| y == T::neg_infinity())];
    diagnose(NAME, weighted_operands(x, b), outputs, overflow_or_invalid)
}

/// The gradient of [`logsumexp_weighted`] with respect to `x`: `dx[i, j] = dy[i] b[i, j] exp(x[i, j]) / s`.
///
/// An entry of weight 0 gets 0. Where `s` is 0 the gradient is 0, and `dy` is not read. The relative error is at most
/// `u (6 + 2 c)` with `u = 2^-24` or `2^-53` and `c` the sum of magnitudes over that of the sum.
///
/// # Errors
/// As [`logsumexp_weighted`], and if a result is not finite.
///
/// ```
/// use nanproof::{MatMut, MatRef, logsumexp_weighted_backward};
///
/// let (x, b, mut dx) = ([0.0_f64, 0.0], [1.0, -3.0], [0.0; 2]);
/// let (x, b) = (MatRef::new(&x, 1, 2)?, MatRef::new(&b, 1, 2)?);
/// logsumexp_weighted_backward(x, b, &[1.0], MatMut::new(&mut dx, 1, 2)?)?;
/// assert_eq!(dx, [-0.5, 1.5]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn logsumexp_weighted_backward<T: Float>(
    x: MatRef<'_, T>,
    b: MatRef<'_, T>,
    dy: &[T],
    mut dx: MatMut<'_, T>,
) -> Result<()> {
    const NAME: &str = "logsumexp_weighted_backward";
    check_shape(NAME, "b", b.shape(), x.shape(), "the shape of x")?;
    check_len(NAME, "dy", dy.len(), x.rows(), "the number of rows of x")?;
    check_shape(NAME, "dx", dx.shape(), x.shape(), "the shape of x")?;
    let formula = WeightedBackwardRow { b, dy };
    if apply_to_logits(Singly(formula), Logits::plain(Some(x)), &mut [], Some(dx.reborrow()))?.finite {
        return Ok(());
    }
    let is_empty = |i| x.row_iter(i).zip(b.row_iter(i)).all(|(&x, &b)| x == T::neg_infinity() || b.is_zero());
    let dy = Operand::slice("dy", dy).overlook(move |index, _| matches!(index, Index::At(i) if is_empty(i)));
    let inputs = weighted_operands(x, b).into_iter().chain([dy]);
    diagnose(NAME, inputs, [Operand::matrix("dx", dx.as_ref())], overflow_or_invalid)
}

/// The weights, and the entries that they make count.
fn weighted_operands<'a, T: Float>(x: MatRef<'a, T>, b: MatRef<'a, T>) -> [Operand<'a, T>; 2] {
    let unread = move |index, x: T| match index {
        Index::Cell(i, j) => x == T::neg_infinity() || b.get(i, j).is_some_and(|b| b.is_zero()),
        _ => false,
    };
    [Operand::matrix("x", x).overlook(unread), Operand::matrix("b", b)]
}

/// `ln(sum(exp(x)))`.
#[derive(Clone, Copy, Debug)]
pub struct LogSumExpRow;

impl<T: Float> LogitFormula<T> for LogSumExpRow {
    const WORK: usize = 6;

    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        simd: S,
        _: usize,
        x: MatRef<'_, T>,
        y: MatMut<'_, T>,
        values: &mut [T],
        _: &mut Vec<T>,
    ) -> RowsSeen {
        let mut seen = RowsSeen::finite(true);
        RowSums::each::<true, S>(
            simd,
            x,
            y,
            |_| false,
            #[inline(always)]
            |_, e, _| e,
            #[inline(always)]
            |sums, rows, _| {
                let results = sums.log_sums(simd);
                let values = &mut values[rows];
                values.copy_from_slice(&results.store().as_ref()[..values.len()]);
                let mut watch = Watch::new(simd);
                watch.see(results);
                if !watch.all_finite() {
                    for (i, value) in values.iter().enumerate() {
                        seen.finite &= value.is_finite() || sums.row(i).is_empty();
                    }
                }
            },
        );
        seen
    }
}

/// `dy scale softmax(x)`.
#[derive(Clone, Copy, Debug)]
pub struct LogSumExpBackwardRow<'a, T> {
    dy: &'a [T],
    scale: T,
}

impl<T: Float> LogitRowFormula<T> for LogSumExpBackwardRow<'_, T> {
    const WORK: usize = 6;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, i: usize, x: &[T], dx: &mut [T], _: &mut T, _: &mut Vec<T>) -> RowsSeen {
        let row = row_exp(simd, x, dx);
        if row.is_empty() {
            dx.fill(T::zero());
            return RowsSeen { finite: true, empty: 1 };
        }
        let factor = self.dy[i] * self.scale;
        if factor.is_infinite() && self.dy[i].is_finite() && row.is_plain() {
            // The probability may bring it back.
            let (dy, scale) = (Scaled::new(self.dy[i], 0), Scaled::new(self.scale, 0));
            let power = T::from(dy.exponent + scale.exponent).unwrap_or_else(T::infinity);
            row_normalize_scaled(simd, x, &row, (dy.mantissa * scale.mantissa, power), dx);
            return RowsSeen::finite(dx.iter().all(|dx| dx.is_finite()));
        }
        row_normalize(simd, x, &row, factor, dx);
        RowsSeen::finite(row.is_plain() && factor.is_finite())
    }
}

/// A row of entries with weights, and their exponentials, where the maximum is over the entries whose weight is not 0.
struct WeightedEntries<'a, T> {
    b: &'a [T],
    /// `-inf` where the weight is 0.
    x: &'a [T],
    exponentials: &'a [T],
    row: RowSum<T>,
    /// The sum of `b` times the exponentials as they are written.
    written_sum: T,
    /// The sum of `b exp(x - max)`, right if the row is calm.
    sum: TwoTerm<T>,
    /// The least and the largest magnitude of the weights that are not 0.
    weights: [T; 2],
    /// The least entry that is not `-inf`.
    least: T,
}

/// What a row of entries with weights sums to.
enum Total<T> {
    /// Nothing.
    Zero,
    /// `sum 2^exponent exp(max)`.
    Sum { sum: TwoTerm<T>, exponent: T },
    /// No number, as an entry or a weight is none.
    Fault,
}

/// Whether a magnitude is so far from both ends of the range that sums of products of such numbers and of exponentials up to 1
/// lose nothing of weight, where one of the exponentials is 1.
fn is_calm<T: Float>(x: T) -> bool {
    let limit = power::<T>(T::BIAS / 4);
    limit.recip() <= x && x <= limit
}

impl<'a, T: Float> WeightedEntries<'a, T> {
    #[inline(always)]
    fn read<S: Simd<T>>(simd: S, x: &[T], b: MatRef<'_, T>, i: usize, scratch: &'a mut Vec<T>) -> Self {
        b.copy_row(i, scratch);
        scratch.resize(3 * x.len(), T::zero());
        let (b, rest) = scratch.split_at_mut(x.len());
        let (counted, exponentials) = rest.split_at_mut(x.len());
        let (zero, infinity) = (Lanes::zero(simd), Lanes::splat(simd, T::infinity()));
        let (mut lightest, mut heaviest, mut least) = (infinity, zero, infinity);
        sweep(
            simd,
            [x, b],
            [&mut *counted],
            #[inline(always)]
            |[x, b], [_]| {
                let (is_zero, weight) = (b.eq(zero), b.abs());
                let x = is_zero.select(-infinity, x);
                heaviest = weight.larger(heaviest);
                lightest = is_zero.select(lightest, weight.smaller(lightest));
                least = x.eq(-infinity).select(least, x.smaller(least));
                [x]
            },
        );
        let row = row_exp(simd, counted, exponentials);
        let written_sum = sum_terms(
            simd,
            [&*b, &*exponentials],
            #[inline(always)]
            |[b, e]| b.two_mul(e),
        );
        let smaller = |a, b| if a < b { a } else { b };
        let larger = |a, b| if a < b { b } else { a };
        let weights = [lightest.fold(smaller), heaviest.fold(larger)];
        let sum = row.in_units_of_max(simd, written_sum);
        Self {
            b,
            x: counted,
            exponentials,
            row,
            written_sum: written_sum.value(),
            sum,
            weights,
            least: least.fold(smaller),
        }
    }

    /// Whether the sum is right as it is. The weight of the maximum is then too large for what underflowed beside it to count.
    #[inline(always)]
    fn is_calm(&self) -> bool {
        self.row.is_plain() && self.weights.into_iter().all(is_calm) && self.sum.value().is_finite()
    }

    #[inline(always)]
    fn total<S: Simd<T>>(&self, simd: S) -> Total<T> {
        let (mut sum, mut exponent) = (self.sum, T::zero());
        if !self.is_calm() {
            if self.has_fault() {
                return Total::Fault;
            }
            if self.row.is_empty() {
                return Total::Zero;
            }
            outline_rare(simd, WideSum { terms: self.terms(), sum: &mut sum, exponent: &mut exponent });
        }
        if sum.value().is_zero() { Total::Zero } else { Total::Sum { sum, exponent } }
    }

    fn has_fault(&self) -> bool {
        let is_bad = |(x, b): (&T, &T)| !b.is_finite() || x.is_nan() || *x == T::infinity();
        self.x.iter().zip(self.b).any(is_bad)
    }

    fn terms(&self) -> WideTerms<'_, T> {
        WideTerms { x: self.x, b: self.b, max: self.row.max }
    }

    /// Whether no step of `dy (b exp(x - max) / sum)` underflows where the result does not, or overflows.
    #[inline(always)]
    fn has_calm_gradient(&self, dy: T, sum: TwoTerm<T>) -> bool {
        let (one, size) = (T::one(), sum.value().abs());
        let two = one + one;
        // Half the exponents of the normal exponentials, a quarter for the weights, and a quarter for the sum.
        let is_near = || self.least - self.row.max >= T::EXP_NORMAL_FROM / two;
        // By how much what underflowed is lifted.
        let is_lifted_little = || dy.abs() * ((self.weights[1] + one) / size + one) <= two + two;
        self.is_calm() && is_calm(size) && (is_near() || is_lifted_little())
    }
}

/// The terms of a row with an exponent each: entries of weight 0 are `-inf`.
#[derive(Clone, Copy)]
struct WideTerms<'a, T> {
    x: &'a [T],
    b: &'a [T],
    max: T,
}

impl<T: Float> WideTerms<'_, T> {
    /// `b exp(x - max)` as a product in two terms, between 1/2 and 4 in magnitude or 0, and the exponent of the power of two
    /// that it is multiplied by.
    #[inline(always)]
    fn term<S: Simd<T>>(&self, [x, b]: [Lanes<T, S>; 2]) -> Raised<T, S> {
        let (difference, error) = below_max(x, self.max);
        let (e, exponent) = math::exp_parts(difference, error);
        let (b, b_exponent) = math::split_exponent(b);
        (b.two_mul(e), exponent + b_exponent)
    }
}

/// The sum of a row in numbers that have an exponent of their own: it is that of the largest term.
struct WideSum<'a, T> {
    terms: WideTerms<'a, T>,
    sum: &'a mut TwoTerm<T>,
    exponent: &'a mut T,
}

impl<T: Float> Kernel for WideSum<'_, T> {
    type Elem = T;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) {
        let Self { terms, sum, exponent } = self;
        (*sum, *exponent) = sum_with_exponents(
            simd,
            [terms.x, terms.b],
            T::zero(),
            #[inline(always)]
            |entry| terms.term(entry),
        );
    }
}

/// `dy b exp(x - max) / (sum 2^exponent)`; returns whether all is finite.
struct WideGradient<'a, T> {
    terms: WideTerms<'a, T>,
    dy: T,
    sum: T,
    exponent: T,
    dx: &'a mut [T],
}

impl<T: Float> Kernel for WideGradient<'_, T> {
    type Elem = T;
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> bool {
        let Self { terms, dx, .. } = self;
        let [(dy, up), (sum, down)] = [self.dy, self.sum].map(
            #[inline(always)]
            |x| math::split_exponent(Lanes::splat(simd, x)),
        );
        let (zero, power) = (Lanes::zero(simd), up - down - Lanes::splat(simd, self.exponent));
        let mut watch = Watch::new(simd);
        sweep(
            simd,
            [terms.x, terms.b],
            [dx],
            #[inline(always)]
            |entry, [_]| {
                let ((product, _), exponent) = terms.term(entry);
                let result = math::scale(dy * (product / sum), exponent + power);
                let result = product.eq(zero).select(zero, result);
                watch.see(result);
                [result]
            },
        );
        watch.all_finite()
    }
}

/// `ln |sum(b exp(x))|`, and the sign.
#[derive(Clone, Copy, Debug)]
pub struct WeightedRow<'a, T> {
    b: MatRef<'a, T>,
}

impl<T: Float> LogitRowFormula<T> for WeightedRow<'_, T> {
    const WORK: usize = 10;

    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        simd: S,
        i: usize,
        x: &[T],
        sign: &mut [T],
        value: &mut T,
        scratch: &mut Vec<T>,
    ) -> RowsSeen {
        let entries = WeightedEntries::read(simd, x, self.b, i, scratch);
        match entries.total(simd) {
            Total::Zero => {
                *value = T::neg_infinity();
                sign.fill(T::zero());
                RowsSeen { finite: true, empty: 1 }
            }
            Total::Sum { sum, exponent } => {
                *value = log(simd, entries.row.max, sum, exponent);
                sign.fill(sum.value().signum());
                RowsSeen::finite(value.is_finite())
            }
            Total::Fault => {
                let sum = entries.sum.value();
                *value = entries.row.max + sum.abs();
                sign.fill(if sum.is_nan() { sum } else { sum.signum() });
                RowsSeen::finite(false)
            }
        }
    }
}

/// `max + ln |sum 2^exponent|`.
#[inline(always)]
fn log<T: Float, S: Simd<T>>(simd: S, max: T, sum: TwoTerm<T>, exponent: T) -> T {
    let (total, error) = sum.magnitude();
    let (log, rest) = math::ln_parts(Lanes::splat(simd, total), Lanes::splat(simd, error));
    let log = TwoTerm { sum: log.first(), error: rest.first() };
    let (power, rest) = Lanes::splat(simd, exponent).two_mul(Lanes::splat(simd, T::LN2_HIGH));
    let power = TwoTerm { sum: power.first(), error: rest.first() + exponent * T::LN2_LOW };
    TwoTerm { sum: max, error: T::zero() }.join(power).join(log).value()
}

/// `dy b exp(x) / sum(b exp(x))`.
#[derive(Clone, Copy, Debug)]
pub struct WeightedBackwardRow<'a, T> {
    b: MatRef<'a, T>,
    dy: &'a [T],
}

impl<T: Float> LogitRowFormula<T> for WeightedBackwardRow<'_, T> {
    const WORK: usize = 10;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, i: usize, x: &[T], dx: &mut [T], _: &mut T, scratch: &mut Vec<T>) -> RowsSeen {
        let entries = WeightedEntries::read(simd, x, self.b, i, scratch);
        let (dy, total) = (self.dy[i], entries.total(simd));
        let sum = match total {
            Total::Zero => {
                dx.fill(T::zero());
                return RowsSeen { finite: true, empty: 1 };
            }
            Total::Sum { sum, exponent } if !entries.has_calm_gradient(dy, sum) => {
                let (terms, sum) = (entries.terms(), sum.value());
                return RowsSeen::finite(outline_rare(simd, WideGradient { terms, dy, sum, exponent, dx }));
            }
            Total::Sum { .. } | Total::Fault => entries.written_sum,
        };
        let (dy, sum) = (Lanes::splat(simd, dy), Lanes::splat(simd, sum));
        let mut watch = Watch::new(simd);
        sweep(
            simd,
            [entries.b, entries.exponentials],
            [dx],
            #[inline(always)]
            |[b, e], [_]| {
                let (zero, term) = (Lanes::zero(simd), b * e);
                let result = term.eq(zero).select(zero, dy * (term / sum));
                watch.see(result);
                [result]
            },
        );
        RowsSeen::finite(matches!(total, Total::Sum { .. }) && watch.all_finite())
    }
}
