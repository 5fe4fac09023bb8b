//! Softmax and log-softmax along the rows of a matrix, and their gradients.

use crate::error::{Result, check_shape};
use crate::finite::{Index, Operand, Watch, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::lanes::Lanes;
use crate::math;
use crate::reduce::sum_terms;
use crate::rows::{RowFormula, RowsSeen, apply, row_exp, row_normalize};
use crate::scaled::power;
use crate::simd::Simd;
use crate::sweep::sweep;
use crate::view::{MatMut, MatRef};

/// What softmax gives for a row whose every entry is `-inf`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EmptyRow {
    /// Zeros: nothing has any probability.
    #[default]
    Zeros,
    /// The same for every entry, with the sum 1.
    Uniform,
}

/// Options of [`softmax_with`].
///
/// ```
/// use nanproof::{EmptyRow, MatMut, MatRef, Softmax, softmax_with};
///
/// let x = [f32::NEG_INFINITY; 4];
/// let mut y = [0.0; 4];
/// let options = Softmax { empty: EmptyRow::Uniform };
/// softmax_with(options, MatRef::new(&x, 1, 4)?, MatMut::new(&mut y, 1, 4)?)?;
/// assert_eq!(y, [0.25; 4]);
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Softmax {
    /// What a row of `-inf` gives.
    pub empty: EmptyRow,
}

/// Softmax of each row: `y[i, j] = exp(x[i, j]) / sum(exp(x[i, ..]))`. Returns how many rows were empty, that is all
/// `-inf`; they give zeros.
///
/// `x` and `y` have one shape. Within 2 ULP of the true value for rows up to 4096 long: `x - max` is taken exactly, as
/// a sum of two numbers. A logit of `-inf` has probability 0; `+inf` shares the probability with its like; NaN makes
/// its row NaN.
///
/// Gradient: [`softmax_backward`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the shapes differ; [`Error::NonFinite`](crate::Error::NonFinite) if a logit
/// is NaN or `+inf`.
///
/// ```
/// use nanproof::{MatMut, MatRef, softmax};
///
/// let x = [1000.0_f32, 1000.0, f32::NEG_INFINITY, 0.0];
/// let mut y = [0.0; 4];
/// let empty = softmax(MatRef::new(&x, 1, 4)?, MatMut::new(&mut y, 1, 4)?)?;
/// assert_eq!((y, empty), ([0.5, 0.5, 0.0, 0.0], 0));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn softmax<T: Float>(x: MatRef<'_, T>, y: MatMut<'_, T>) -> Result<usize> {
    softmax_with(Softmax::default(), x, y)
}

/// [`softmax`] with [options](Softmax).
///
/// # Errors
/// As [`softmax`].
///
/// ```
/// use nanproof::{MatMut, MatRef, Softmax, softmax_with};
///
/// let mut y = [0.0_f64; 2];
/// softmax_with(Softmax::default(), MatRef::new(&[0.0, 0.0], 1, 2)?, MatMut::new(&mut y, 1, 2)?)?;
/// assert_eq!(y, [0.5; 2]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn softmax_with<T: Float>(options: Softmax, x: MatRef<'_, T>, y: MatMut<'_, T>) -> Result<usize> {
    check_shape("softmax", "y", y.shape(), x.shape(), "the shape of x")?;
    let one = [T::one()];
    let seen = apply(SoftmaxRow { options }, [x, MatRef::with_strides(&one, x.rows(), 1, 0, 1)?], y)?;
    if !seen.finite {
        diagnose("softmax", [Operand::matrix("x", x).overlook(is_masked)], [], overflow_or_invalid)?;
    }
    Ok(seen.empty)
}

/// The gradient of [`softmax`]: `dx = p (dp - sum(p dp))` in each row, from the probabilities `p`.
///
/// An entry of probability 0 gets exactly 0 and its `dp` is not read. The sum is exact but for its last rounding;
/// the error is at most `u p (2 |dp| + 3 |sum|)` with `u = 2^-24` or `2^-53` (and, where products
/// underflow, `p` times as many smallest subnormals as the row is long).
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the shapes differ; [`Error::NonFinite`](crate::Error::NonFinite) if a
/// result is not finite.
///
/// ```
/// use nanproof::{MatMut, MatRef, softmax_backward};
///
/// let mut dx = [0.0_f32; 3];
/// let p = MatRef::new(&[0.5, 0.5, 0.0], 1, 3)?;
/// softmax_backward(p, MatRef::new(&[1.0, 0.0, f32::NAN], 1, 3)?, MatMut::new(&mut dx, 1, 3)?)?;
/// assert_eq!(dx, [0.25, -0.25, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn softmax_backward<T: Float>(p: MatRef<'_, T>, dp: MatRef<'_, T>, mut dx: MatMut<'_, T>) -> Result<()> {
    const NAME: &str = "softmax_backward";
    check_shape(NAME, "dx", dx.shape(), p.shape(), "the shape of p")?;
    check_shape(NAME, "dp", dp.shape(), p.shape(), "the shape of p")?;
    if apply(SoftmaxBackwardRow, [p, dp], dx.reborrow())?.finite {
        return Ok(());
    }
    let impossible = move |index, _| matches!(index, Index::Cell(i, j) if p.get(i, j).is_some_and(|p| p.is_zero()));
    let inputs = [Operand::matrix("p", p), Operand::matrix("dp", dp).overlook(impossible)];
    diagnose(NAME, inputs, [Operand::matrix("dx", dx.as_ref())], overflow_or_invalid)
}

/// The logarithm of the softmax of each row: `y[i, j] = x[i, j] - ln(sum(exp(x[i, ..])))`. Returns how many rows were
/// empty, that is all `-inf`; they give `-inf`.
///
/// `x` and `y` have one shape. Within 2 ULP of the true value for rows up to 4096 long, for values near 0 as well. A
/// logit of `-inf` gives `-inf`, which is no fault; NaN makes its row NaN.
///
/// Gradient: [`log_softmax_backward`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the shapes differ; [`Error::NonFinite`](crate::Error::NonFinite) if a logit
/// is NaN or `+inf`, or a result overflows.
///
/// ```
/// use nanproof::{MatMut, MatRef, log_softmax};
///
/// let mut y = [0.0_f32; 2];
/// log_softmax(MatRef::new(&[0.0, -20.0], 1, 2)?, MatMut::new(&mut y, 1, 2)?)?;
/// assert_eq!(y, [-2.0611537e-9, -20.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn log_softmax<T: Float>(x: MatRef<'_, T>, mut y: MatMut<'_, T>) -> Result<usize> {
    check_shape("log_softmax", "y", y.shape(), x.shape(), "the shape of x")?;
    let seen = apply(LogSoftmaxRow, [x], y.reborrow())?;
    if !seen.finite {
        let masked = move |index, _| matches!(index, Index::Cell(i, j) if x.get(i, j) == Some(T::neg_infinity()));
        let outputs = [Operand::matrix("y", y.as_ref()).overlook(masked)];
        diagnose("log_softmax", [Operand::matrix("x", x).overlook(is_masked)], outputs, overflow_or_invalid)?;
    }
    Ok(seen.empty)
}

/// The gradient of [`log_softmax`]: `dx = dy - exp(y) sum(dy)` in each row, from the result `y`.
///
/// An entry of probability 0 (`y = -inf`) gets exactly 0 and its `dy` is not read. The sum is exact but for its last
/// rounding; the error is at most `u (|dy| + 5 exp(y) |sum|)` with `u = 2^-24` or `2^-53`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the shapes differ; [`Error::NonFinite`](crate::Error::NonFinite) if a
/// result is not finite.
///
/// ```
/// use nanproof::{MatMut, MatRef, log_softmax_backward};
///
/// let mut dx = [0.0_f64; 3];
/// let y = [0.5_f64.ln(), 0.5_f64.ln(), f64::NEG_INFINITY];
/// let dy = MatRef::new(&[1.0, 0.0, f64::NAN], 1, 3)?;
/// log_softmax_backward(MatRef::new(&y, 1, 3)?, dy, MatMut::new(&mut dx, 1, 3)?)?;
/// assert_eq!(dx, [0.5, -0.5, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn log_softmax_backward<T: Float>(y: MatRef<'_, T>, dy: MatRef<'_, T>, mut dx: MatMut<'_, T>) -> Result<()> {
    const NAME: &str = "log_softmax_backward";
    check_shape(NAME, "dx", dx.shape(), y.shape(), "the shape of y")?;
    check_shape(NAME, "dy", dy.shape(), y.shape(), "the shape of y")?;
    if apply(LogSoftmaxBackwardRow, [y, dy], dx.reborrow())?.finite {
        return Ok(());
    }
    let masked = move |index, _| matches!(index, Index::Cell(i, j) if y.get(i, j) == Some(T::neg_infinity()));
    let inputs = [Operand::matrix("y", y).overlook(is_masked), Operand::matrix("dy", dy).overlook(masked)];
    diagnose(NAME, inputs, [Operand::matrix("dx", dx.as_ref())], overflow_or_invalid)
}

fn is_masked<T: Float>(_: Index, x: T) -> bool {
    x == T::neg_infinity()
}

/// `factor exp(x) / sum(exp(x))`, with a factor for each row.
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxRow {
    pub(crate) options: Softmax,
}

impl<T: Float> RowFormula<T, 2> for SoftmaxRow {
    const WORK: usize = 4;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, [x, factor]: [&[T]; 2], y: &mut [T]) -> RowsSeen {
        let factor = factor[0];
        let row = row_exp(simd, x, y);
        if row.is_empty() {
            y.fill(match self.options.empty {
                EmptyRow::Zeros => T::zero(),
                EmptyRow::Uniform => factor / T::from(x.len()).unwrap_or_else(T::max_value),
            });
            let is_read = self.options.empty == EmptyRow::Uniform;
            return RowsSeen { finite: !is_read || factor.is_finite(), empty: 1 };
        }
        row_normalize(simd, x, row, factor, y);
        RowsSeen { finite: row.is_plain() && factor.is_finite(), empty: 0 }
    }
}

/// `p (dp - sum(p dp))`.
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxBackwardRow;

impl<T: Float> RowFormula<T, 2> for SoftmaxBackwardRow {
    const WORK: usize = 2;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, [p, dp]: [&[T]; 2], dx: &mut [T]) -> RowsSeen {
        // The difference dp - sum may overflow though p times it does not: then once more, scaled.
        let mut finite = false;
        for shift in [0, 2] {
            finite = finite || softmax_gradient(simd, p, dp, dx, power(-shift));
        }
        RowsSeen::finite(finite)
    }
}

/// One row of the gradient of softmax, with `dp` taken times a power of two on the way.
#[inline(always)]
fn softmax_gradient<T: Float, S: Simd<T>>(simd: S, p: &[T], dp: &[T], dx: &mut [T], scale: T) -> bool {
    let (zero, scale, unscale) = (Lanes::zero(simd), Lanes::splat(simd, scale), Lanes::splat(simd, T::one() / scale));
    let sum = sum_terms(
        simd,
        [p, dp],
        #[inline(always)]
        |[p, dp]| {
            let possible = p.eq(zero).select(zero, dp);
            p.two_mul(possible * scale)
        },
    );
    let sum = Lanes::splat(simd, sum.value());
    let mut watch = Watch::new(simd);
    sweep(
        simd,
        [p, dp],
        [dx],
        #[inline(always)]
        |[p, dp], [_]| {
            let product = p * (dp * scale - sum) * unscale;
            let result = p.eq(zero).select(zero, product);
            watch.see(result);
            [result]
        },
    );
    watch.all_finite()
}

/// `x - ln(sum(exp(x)))`.
#[derive(Clone, Copy, Debug)]
pub struct LogSoftmaxRow;

impl<T: Float> RowFormula<T, 1> for LogSoftmaxRow {
    const WORK: usize = 4;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, [x]: [&[T]; 1], y: &mut [T]) -> RowsSeen {
        let row = row_exp(simd, x, &mut []);
        if row.is_empty() {
            y.fill(T::neg_infinity());
            return RowsSeen { finite: true, empty: 1 };
        }
        let (zero, lowest) = (Lanes::zero(simd), Lanes::splat(simd, T::neg_infinity()));
        let (max, log) = (Lanes::splat(simd, row.max), Lanes::splat(simd, row.log(simd)));
        let mut watch = Watch::new(simd);
        sweep(
            simd,
            [x],
            [y],
            #[inline(always)]
            |[x], [_]| {
                let result = x.eq(max).select(zero, x - max) - log;
                watch.see(x.eq(lowest).select(zero, result));
                [result]
            },
        );
        RowsSeen::finite(row.is_plain() && watch.all_finite())
    }
}

/// `dy - exp(y) sum(dy)`.
#[derive(Clone, Copy, Debug)]
pub struct LogSoftmaxBackwardRow;

impl<T: Float> RowFormula<T, 2> for LogSoftmaxBackwardRow {
    const WORK: usize = 3;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, [y, dy]: [&[T]; 2], dx: &mut [T]) -> RowsSeen {
        // The sum of dy may overflow though its product with a small exp(y) does not: then once more, scaled.
        let mut finite = false;
        for shift in [0, 64] {
            finite = finite || log_softmax_gradient(simd, y, dy, dx, shift);
        }
        RowsSeen::finite(finite)
    }
}

/// One row of the gradient of log-softmax, with the sum of `dy` taken times `2^-shift`; whether it is finite.
#[inline(always)]
fn log_softmax_gradient<T: Float, S: Simd<T>>(simd: S, y: &[T], dy: &[T], dx: &mut [T], shift: i32) -> bool {
    let (zero, lowest) = (Lanes::zero(simd), Lanes::splat(simd, T::neg_infinity()));
    let (is_retry, scale) = (shift != 0, Lanes::splat(simd, power(-shift)));
    let (two, four, quarter) =
        (Lanes::splat(simd, power(1)), Lanes::splat(simd, power(2)), Lanes::splat(simd, power(-2)));
    let shift = Lanes::splat(simd, T::from(shift).unwrap_or_else(T::zero));
    let sum = sum_terms(
        simd,
        [y, dy],
        #[inline(always)]
        |[y, dy]| (y.eq(lowest).select(zero, dy * scale), zero),
    );
    let sum = Lanes::splat(simd, sum.value());
    let mut watch = Watch::new(simd);
    sweep(
        simd,
        [y, dy],
        [dx],
        #[inline(always)]
        |[y, dy], [_]| {
            // A large sum may lift the product out of the range in which exp(y) alone underflows.
            let (e, exponent) = math::exp_parts(y, zero);
            let mut result = dy - math::scaled_product(sum, e, exponent + shift);
            if is_retry {
                // The product may be too large though the difference is not: so from quarters of both.
                let quarters = dy * quarter - math::scaled_product(sum, e, exponent + shift - two);
                result = result.abs().lt(result.all(T::infinity())).select(result, quarters * four);
            }
            let result = y.eq(lowest).select(zero, result);
            watch.see(result);
            [result]
        },
    );
    watch.all_finite()
}
