//! Log-sum-exp along the rows of a matrix, and its gradient.

use alloc::vec::Vec;

use super::softmax::Softmax;
use crate::error::{Result, check_len, check_shape};
use crate::finite::{Index, Operand, Watch, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::Join;
use crate::lanes::Lanes;
use crate::logits::{LogitFormula, LogitRowFormula, Logits, RowSums, Singly, apply_to_logits, row_exp, row_normalize};
use crate::math;
use crate::reduce::{TwoTerm, sum_terms};
use crate::rows::RowsSeen;
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
    const NAME: &str = "logsumexp_with";
    forward(NAME, options.logits(NAME, x.shape(), Some(x))?, x, y)
}

/// The gradient of [`logsumexp_with`]: `dx[i, j] = dy[i] scale p[i, j]` with the probabilities that
/// [`softmax_with`](crate::softmax_with) gives; 0 where a logit is masked.
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
    const NAME: &str = "logsumexp_backward_with";
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
/// An entry of weight 0 is not read. Where `s` is 0 the result is `-inf` with the sign 0, which is no fault. The error is
/// at most 2 ULP of the result and `2 u sum(|b| exp(x)) / |s|` with `u = 2^-24` or `2^-53`: what terms of both signs
/// cancel is lost.
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
/// An entry of weight 0 gets 0. Where `s` is 0 the gradient is 0, and `dy` is not read.
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
    let inputs = weighted_operands(x, b).into_iter().chain([Operand::slice("dy", dy)]);
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
            #[inline(always)]
            |sums, first, _| {
                let logs = sums.logs(simd);
                for (i, value) in values[first..].iter_mut().enumerate().take(sums.len()) {
                    let sum = sums.row(i);
                    *value = sum.max + logs.as_ref()[i];
                    seen.finite &= value.is_finite() || sum.is_empty();
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
        row_normalize(simd, x, row, factor, dx);
        RowsSeen::finite(row.is_plain() && factor.is_finite())
    }
}

/// A row of `b exp(x - max)`, where the maximum is over the entries whose weight is not 0.
struct Terms<T> {
    max: T,
    /// Their sum.
    sum: TwoTerm<T>,
    finite: bool,
}

impl<T: Float> Terms<T> {
    /// Writes the terms of a row to `terms`; `counted` is room for the entries that count.
    #[inline(always)]
    fn write<S: Simd<T>>(simd: S, x: &[T], weight: impl Fn(usize) -> T, scratch: &mut Vec<T>) -> Self {
        let len = x.len();
        scratch.clear();
        scratch.extend((0..len).map(|j| if weight(j).is_zero() { T::neg_infinity() } else { x[j] }));
        scratch.resize(2 * len, T::zero());
        let (counted, terms) = scratch.split_at_mut(len);
        let row = row_exp(simd, counted, terms);
        let exponentials = terms;
        // The weights take the place of the entries, which are done with.
        counted.iter_mut().enumerate().for_each(|(j, b)| *b = weight(j));
        let sum = sum_terms(
            simd,
            [&*counted, &*exponentials],
            #[inline(always)]
            |[b, e]| b.two_mul(e),
        );
        for (e, &b) in exponentials.iter_mut().zip(&*counted) {
            *e = *e * b;
        }
        Self { max: row.max, sum, finite: row.is_empty() || row.is_plain() }
    }

    fn is_zero(&self) -> bool {
        self.finite && self.sum.value().is_zero()
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
        let terms = Terms::write(simd, x, |j| self.b.get(i, j).unwrap_or_else(T::zero), scratch);
        if terms.is_zero() {
            *value = T::neg_infinity();
            sign.fill(T::zero());
            return RowsSeen { finite: true, empty: 1 };
        }
        let sum = terms.sum.value();
        sign.fill(if sum.is_nan() { sum } else { sum.signum() });
        let (total, error) = terms.sum.magnitude();
        let (log, rest) = math::ln_parts(Lanes::splat(simd, total), Lanes::splat(simd, error));
        *value = if terms.finite {
            let log = TwoTerm { sum: log.first(), error: rest.first() };
            TwoTerm { sum: terms.max, error: T::zero() }.join(log).value()
        } else {
            terms.max + sum.abs()
        };
        RowsSeen::finite(terms.finite && value.is_finite())
    }
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
        let terms = Terms::write(simd, x, |j| self.b.get(i, j).unwrap_or_else(T::zero), scratch);
        if terms.is_zero() {
            dx.fill(T::zero());
            return RowsSeen { finite: true, empty: 1 };
        }
        let (dy, sum) = (Lanes::splat(simd, self.dy[i]), Lanes::splat(simd, terms.sum.value()));
        let mut watch = Watch::new(simd);
        sweep(
            simd,
            [&scratch[x.len()..]],
            [dx],
            #[inline(always)]
            |[term], [_]| {
                let zero = Lanes::zero(simd);
                let result = term.eq(zero).select(zero, dy * (term / sum));
                watch.see(result);
                [result]
            },
        );
        RowsSeen::finite(terms.finite && watch.all_finite())
    }
}
