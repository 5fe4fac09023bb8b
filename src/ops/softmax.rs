//! Softmax and log-softmax along the rows of a matrix, and their gradients.

use alloc::vec::Vec;
use core::ops::Range;

use crate::error::{Error, Result, Shape, check_shape};
use crate::finite::{Index, Operand, Watch, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::Runs;
use crate::lanes::Lanes;
use crate::logits::{LogitFormula, LogitRows, Logits, apply_to_logits, row_exp_inline, row_normalize_inline};
use crate::math;
use crate::reduce::sum_terms;
use crate::rows::{RowFormula, RowsSeen, Rowwise, apply};
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

/// Options of the softmax functions: what each logit is read as, and what an empty row gives.
///
/// A logit `x` is read as `scale x + bias`, the product and the sum rounded once each, or as `-inf` where it is masked;
/// what stands behind a mask is not looked at.
///
/// ```
/// use nanproof::{MatMut, MatRef, Softmax, softmax_with};
///
/// // Scores of 2 queries with 3 keys: the second key is padding, and no query sees a later key.
/// let (x, keys) = ([1.0_f32, f32::NAN, 5.0, 1.0, f32::NAN, 1.0], [true, false, true]);
/// let mask = MatRef::with_strides(&keys, 2, 3, 0, 1)?;
/// let mut y = [0.0; 6];
/// let options = Softmax { scale: 0.5, mask: Some(mask), causal: Some(1), ..Softmax::default() };
/// softmax_with(options, MatRef::new(&x, 2, 3)?, MatMut::new(&mut y, 2, 3)?)?;
/// assert_eq!(y, [1.0, 0.0, 0.0, 0.5, 0.0, 0.5]);
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Softmax<'a, T> {
    /// What logits are multiplied by: the inverse of a temperature.
    pub scale: T,
    /// What is added to them. `-inf` is an additive mask.
    pub bias: Option<MatRef<'a, T>>,
    /// Of the shape of the logits, false where one is masked. A stride of 0 repeats a row or a column.
    pub mask: Option<MatRef<'a, bool>>,
    /// The causal mask: row `i` sees the columns up to `i + causal`. With as many rows as columns this is 0; where the
    /// rows are the last ones of so many columns it is their difference.
    pub causal: Option<isize>,
    /// What a row without a logit above `-inf` gives.
    pub empty: EmptyRow,
}

impl<T: Float> Default for Softmax<'_, T> {
    fn default() -> Self {
        Self { scale: T::one(), bias: None, mask: None, causal: None, empty: EmptyRow::default() }
    }
}

impl<'a, T: Float> Softmax<'a, T> {
    /// The logits of the matrix `x` or, in place, of the output; checked.
    pub(crate) fn logits(
        self,
        operation: &'static str,
        shape: Shape,
        x: Option<MatRef<'a, T>>,
    ) -> Result<Logits<'a, T>> {
        let Self { scale, bias, mask, causal, .. } = self;
        if !scale.is_finite() {
            return Err(Error::Argument { operation, argument: "scale", problem: "must be finite" });
        }
        for (operand, found) in [("bias", bias.map(MatRef::shape)), ("mask", mask.map(MatRef::shape))] {
            check_shape(operation, operand, found.unwrap_or(shape), shape, "the shape of x")?;
        }
        Ok(Logits { x, scale, bias, mask, causal })
    }

    /// The options of some of the rows.
    pub(crate) fn of_rows(self, rows: Range<usize>) -> Result<Self> {
        let first = isize::try_from(rows.start).unwrap_or(isize::MAX);
        Ok(Self {
            bias: self.bias.map(|bias| bias.submatrix(rows.clone(), 0..bias.cols())).transpose()?,
            mask: self.mask.map(|mask| mask.submatrix(rows.clone(), 0..mask.cols())).transpose()?,
            causal: self.causal.map(|causal| causal.saturating_add(first)),
            ..self
        })
    }
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
/// [`Error::Shape`] if the shapes differ; [`Error::NonFinite`] if a logit
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
    run("softmax", SoftmaxRow { empty: EmptyRow::default() }, Logits::plain(Some(x)), x.shape(), y)
}

/// [`softmax`] with [options](Softmax).
///
/// A row whose every logit is masked or `-inf` is empty; it counts, and gives what [`EmptyRow`] says.
///
/// Gradient: [`softmax_backward_with`].
///
/// # Errors
/// As [`softmax`], for logits that are not masked; [`Error::Shape`] if the bias or the mask has another shape,
/// [`Error::Argument`] if the scale is not finite. [`Error::NonFinite`] also if `scale x + bias` overflows to `+inf`.
///
/// ```
/// use nanproof::{EmptyRow, MatMut, MatRef, Softmax, softmax_with};
///
/// let x = [f32::NEG_INFINITY; 4];
/// let mut y = [0.0; 4];
/// let options = Softmax { empty: EmptyRow::Uniform, ..Softmax::default() };
/// assert_eq!(softmax_with(options, MatRef::new(&x, 1, 4)?, MatMut::new(&mut y, 1, 4)?)?, 1);
/// assert_eq!(y, [0.25; 4]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn softmax_with<T: Float>(options: Softmax<'_, T>, x: MatRef<'_, T>, y: MatMut<'_, T>) -> Result<usize> {
    const NAME: &str = "softmax_with";
    let logits = options.logits(NAME, x.shape(), Some(x))?;
    run(NAME, SoftmaxRow { empty: options.empty }, logits, x.shape(), y)
}

/// [`softmax_with`] in place: the logits become their probabilities.
///
/// # Errors
/// As [`softmax_with`]; the logits are then left as they were.
///
/// ```
/// use nanproof::{MatMut, Softmax, softmax_in_place};
///
/// let mut x = [3.0_f32, 3.0, 1.0, f32::NEG_INFINITY];
/// softmax_in_place(Softmax::default(), MatMut::new(&mut x, 2, 2)?)?;
/// assert_eq!(x, [0.5, 0.5, 1.0, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn softmax_in_place<T: Float>(options: Softmax<'_, T>, x: MatMut<'_, T>) -> Result<usize> {
    const NAME: &str = "softmax_in_place";
    let logits = options.logits(NAME, x.shape(), None)?;
    Logits { x: Some(x.as_ref()), ..logits }.check(NAME)?;
    let seen = apply_to_logits(SoftmaxRow { empty: options.empty }, logits, &mut [], Some(x))?;
    Ok(seen.empty)
}

/// Runs a formula out of place, and reports what it finds.
fn run<'a, T, F: LogitFormula<T>>(
    operation: &'static str,
    formula: F,
    logits: Logits<'a, T>,
    shape: Shape,
    mut y: MatMut<'a, T>,
) -> Result<usize>
where
    T: Float + for<'b> Runs<LogitRows<'b, T, F>>,
{
    check_shape(operation, "y", y.shape(), shape, "the shape of x")?;
    let seen = apply_to_logits(formula, logits, &mut [], Some(y.reborrow()))?;
    if !seen.finite {
        let impossible = move |i, j| logits.get(i, j) == Some(T::neg_infinity());
        let is_impossible = move |index, _| matches!(index, Index::Cell(i, j) if impossible(i, j));
        let outputs = [logits.as_read(), Operand::matrix("y", y.as_ref()).overlook(is_impossible)];
        diagnose(operation, logits.operands("x"), outputs, overflow_or_invalid)?;
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
/// [`Error::Shape`] if the shapes differ; [`Error::NonFinite`] if a
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
pub fn softmax_backward<T: Float>(p: MatRef<'_, T>, dp: MatRef<'_, T>, dx: MatMut<'_, T>) -> Result<()> {
    softmax_gradients("softmax_backward", T::one(), p, dp, dx)
}

/// The gradient of [`softmax_with`] and [`softmax_in_place`] with respect to the logits `x`: that of [`softmax`], times
/// the scale. Without the scale it is the gradient with respect to the bias. Masked logits get exactly 0.
///
/// # Errors
/// As [`softmax_backward`].
///
/// ```
/// use nanproof::{MatMut, MatRef, Softmax, softmax_backward_with};
///
/// let mut dx = [0.0_f32; 2];
/// let options = Softmax { scale: 0.5, ..Softmax::default() };
/// let (p, dp) = (MatRef::new(&[0.5, 0.5], 1, 2)?, MatRef::new(&[1.0, 0.0], 1, 2)?);
/// softmax_backward_with(options, p, dp, MatMut::new(&mut dx, 1, 2)?)?;
/// assert_eq!(dx, [0.125, -0.125]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn softmax_backward_with<T: Float>(
    options: Softmax<'_, T>,
    p: MatRef<'_, T>,
    dp: MatRef<'_, T>,
    dx: MatMut<'_, T>,
) -> Result<()> {
    const NAME: &str = "softmax_backward_with";
    softmax_gradients(NAME, options.logits(NAME, p.shape(), None)?.scale, p, dp, dx)
}

fn softmax_gradients<T: Float>(
    operation: &'static str,
    scale: T,
    p: MatRef<'_, T>,
    dp: MatRef<'_, T>,
    dx: MatMut<'_, T>,
) -> Result<()> {
    gradients(operation, SoftmaxBackwardRow { scale }, [("p", p), ("dp", dp)], "the shape of p", T::zero(), dx)
}

/// Runs the formula of a gradient, from the results of the forward function and the upstream gradient with their names;
/// `impossible` is what the forward function gives an event of probability 0.
fn gradients<T, F: RowFormula<T, 2>>(
    operation: &'static str,
    formula: F,
    [(y_name, y), (dy_name, dy)]: [(&'static str, MatRef<'_, T>); 2],
    reason: &'static str,
    impossible: T,
    mut dx: MatMut<'_, T>,
) -> Result<()>
where
    T: Float + for<'a> Runs<Rowwise<'a, T, F, 2>>,
{
    check_shape(operation, "dx", dx.shape(), y.shape(), reason)?;
    check_shape(operation, dy_name, dy.shape(), y.shape(), reason)?;
    if apply(formula, [y, dy], dx.reborrow())?.finite {
        return Ok(());
    }
    let unread = move |index, _| matches!(index, Index::Cell(i, j) if y.get(i, j) == Some(impossible));
    let results = Operand::matrix(y_name, y).overlook(move |_, y| y == impossible);
    let inputs = [results, Operand::matrix(dy_name, dy).overlook(unread)];
    diagnose(operation, inputs, [Operand::matrix("dx", dx.as_ref())], overflow_or_invalid)
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
/// [`Error::Shape`] if the shapes differ; [`Error::NonFinite`] if a logit
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
pub fn log_softmax<T: Float>(x: MatRef<'_, T>, y: MatMut<'_, T>) -> Result<usize> {
    run("log_softmax", LogSoftmaxRow, Logits::plain(Some(x)), x.shape(), y)
}

/// [`log_softmax`] with [options](Softmax), all but `empty`: an empty row gives `-inf`.
///
/// Gradient: [`log_softmax_backward_with`].
///
/// # Errors
/// As [`softmax_with`] and [`log_softmax`].
///
/// ```
/// use nanproof::{MatMut, MatRef, Softmax, log_softmax_with};
///
/// let mut y = [0.0_f64; 2];
/// let options = Softmax { causal: Some(0), ..Softmax::default() };
/// log_softmax_with(options, MatRef::new(&[1.0, 2.0], 1, 2)?, MatMut::new(&mut y, 1, 2)?)?;
/// assert_eq!(y, [0.0, f64::NEG_INFINITY]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn log_softmax_with<T: Float>(options: Softmax<'_, T>, x: MatRef<'_, T>, y: MatMut<'_, T>) -> Result<usize> {
    const NAME: &str = "log_softmax_with";
    run(NAME, LogSoftmaxRow, options.logits(NAME, x.shape(), Some(x))?, x.shape(), y)
}

/// The gradient of [`log_softmax`]: `dx = dy - exp(y) sum(dy)` in each row, from the result `y`.
///
/// An entry of probability 0 (`y = -inf`) gets exactly 0 and its `dy` is not read. The sum is exact but for its last
/// rounding; the error is at most `u (|dy| + 5 exp(y) |sum|)` with `u = 2^-24` or `2^-53`.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ; [`Error::NonFinite`] if a
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
pub fn log_softmax_backward<T: Float>(y: MatRef<'_, T>, dy: MatRef<'_, T>, dx: MatMut<'_, T>) -> Result<()> {
    log_softmax_gradients("log_softmax_backward", T::one(), y, dy, dx)
}

/// The gradient of [`log_softmax_with`] with respect to the logits `x`: that of [`log_softmax`], times the scale.
/// Masked logits get exactly 0.
///
/// # Errors
/// As [`log_softmax_backward`].
///
/// ```
/// use nanproof::{MatMut, MatRef, Softmax, log_softmax_backward_with};
///
/// let (y, mut dx) = ([0.5_f64.ln(); 2], [0.0; 2]);
/// let options = Softmax { scale: 2.0, ..Softmax::default() };
/// let (y, dy) = (MatRef::new(&y, 1, 2)?, MatRef::new(&[1.0, 0.0], 1, 2)?);
/// log_softmax_backward_with(options, y, dy, MatMut::new(&mut dx, 1, 2)?)?;
/// assert_eq!(dx, [1.0, -1.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn log_softmax_backward_with<T: Float>(
    options: Softmax<'_, T>,
    y: MatRef<'_, T>,
    dy: MatRef<'_, T>,
    dx: MatMut<'_, T>,
) -> Result<()> {
    const NAME: &str = "log_softmax_backward_with";
    log_softmax_gradients(NAME, options.logits(NAME, y.shape(), None)?.scale, y, dy, dx)
}

fn log_softmax_gradients<T: Float>(
    operation: &'static str,
    scale: T,
    y: MatRef<'_, T>,
    dy: MatRef<'_, T>,
    dx: MatMut<'_, T>,
) -> Result<()> {
    let formula = LogSoftmaxBackwardRow { scale };
    gradients(operation, formula, [("y", y), ("dy", dy)], "the shape of y", T::neg_infinity(), dx)
}

/// `exp(x) / sum(exp(x))`.
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxRow {
    empty: EmptyRow,
}

impl<T: Float> LogitFormula<T> for SoftmaxRow {
    const WORK: usize = 4;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, _: usize, x: &[T], y: &mut [T], _: &mut T, _: &mut Vec<T>) -> RowsSeen {
        let row = row_exp_inline(simd, x, y);
        if row.is_empty() {
            y.fill(match self.empty {
                EmptyRow::Zeros => T::zero(),
                EmptyRow::Uniform => T::one() / T::from(x.len()).unwrap_or_else(T::max_value),
            });
            return RowsSeen { finite: true, empty: 1 };
        }
        row_normalize_inline(simd, x, row, T::one(), y);
        RowsSeen::finite(row.is_plain())
    }
}

/// `scale p (dp - sum(p dp))`.
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxBackwardRow<T> {
    scale: T,
}

impl<T: Float> RowFormula<T, 2> for SoftmaxBackwardRow<T> {
    const WORK: usize = 2;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, [p, dp]: [&[T]; 2], dx: &mut [T]) -> RowsSeen {
        // The difference dp - sum may overflow though p times it does not: then once more, scaled.
        let mut finite = false;
        for shift in [0, 2] {
            finite = finite || softmax_gradient(simd, self.scale, p, dp, dx, power(-shift));
        }
        RowsSeen::finite(finite)
    }
}

/// One row of the gradient of softmax, with `dp` taken times a power of two on the way.
#[inline(always)]
fn softmax_gradient<T: Float, S: Simd<T>>(simd: S, factor: T, p: &[T], dp: &[T], dx: &mut [T], power: T) -> bool {
    let (zero, scale, unscale) = (Lanes::zero(simd), Lanes::splat(simd, power), Lanes::splat(simd, T::one() / power));
    let factor = Lanes::splat(simd, factor);
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
            let product = p * (dp * scale - sum) * unscale * factor;
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

impl<T: Float> LogitFormula<T> for LogSoftmaxRow {
    const WORK: usize = 4;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, _: usize, x: &[T], y: &mut [T], _: &mut T, _: &mut Vec<T>) -> RowsSeen {
        let row = row_exp_inline(simd, x, &mut []);
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

/// `scale (dy - exp(y) sum(dy))`.
#[derive(Clone, Copy, Debug)]
pub struct LogSoftmaxBackwardRow<T> {
    scale: T,
}

impl<T: Float> RowFormula<T, 2> for LogSoftmaxBackwardRow<T> {
    const WORK: usize = 3;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, [y, dy]: [&[T]; 2], dx: &mut [T]) -> RowsSeen {
        // The sum of dy may overflow though its product with a small exp(y) does not: then once more, scaled.
        let mut finite = false;
        for shift in [0, 64] {
            finite = finite || log_softmax_gradient(simd, self.scale, y, dy, dx, shift);
        }
        RowsSeen::finite(finite)
    }
}

/// One row of the gradient of log-softmax, with the sum of `dy` taken times `2^-shift`; whether it is finite.
#[inline(always)]
fn log_softmax_gradient<T: Float, S: Simd<T>>(simd: S, factor: T, y: &[T], dy: &[T], dx: &mut [T], shift: i32) -> bool {
    let factor = Lanes::splat(simd, factor);
    let (zero, lowest) = (Lanes::zero(simd), Lanes::splat(simd, T::neg_infinity()));
    let (is_retry, scale) = (shift != 0, Lanes::splat(simd, power(-shift)));
    let (two, four, quarter) =
        (Lanes::splat(simd, power(1)), Lanes::splat(simd, power(2)), Lanes::splat(simd, power(-2)));
    let largest = Lanes::splat(simd, T::max_value());
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
            let (is_impossible, is_plain) = (y.eq(lowest), math::has_normal_exp(y));
            let mut result = sum.mul_add(-math::normal_exp(y, zero), dy);
            if is_retry || !(is_plain | is_impossible).all() {
                // A large sum may lift the product out of the range in which exp(y) alone underflows.
                let (e, exponent) = math::exp_parts(y, zero);
                let exact = dy - math::scaled_product(sum, e, exponent + shift);
                if is_retry {
                    // The product may be too large though the difference is not: so from quarters of both.
                    let quarters = dy * quarter - math::scaled_product(sum, e, exponent + shift - two);
                    result = exact.abs().le(largest).select(exact, quarters * four);
                } else {
                    result = is_plain.select(result, exact);
                }
            }
            let result = is_impossible.select(zero, result * factor);
            watch.see(result);
            [result]
        },
    );
    watch.all_finite()
}
