//! Softmax and log-softmax along the rows of a matrix, and their gradients.

use alloc::vec::Vec;
use core::ops::Range;

use crate::error::{Error, Result, Shape, check_shape};
use crate::exponentials::RowSums;
use crate::finite::{Index, Operand, Watch, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::{Join, Kernel, Runs, outline, outline_rare};
use crate::lanes::Lanes;
use crate::logits::{LogitFormula, LogitRows, Logits, RowSum, apply_to_logits, least_sum, sum_with_exponents};
use crate::math;
use crate::moments::Extended;
use crate::rows::{RowFormula, RowsSeen, Rowwise, apply};
use crate::scaled::Scaled;
use crate::simd::Simd;
use crate::sweep::{GROUP, each_group, each_group_in_place, load_tail, map_row, store_tail, sweep, sweep_groups};
use crate::view::{MatMut, MatRef};

/// What softmax gives for a row whose every entry is `-inf`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EmptyRow {
    /// Zeros: nothing has any probability.
    #[default]
    Zeros,
    /// The same for every entry, masked ones too, with the sum 1.
    Uniform,
}

/// Options of the softmax functions: what each logit is read as, and what an empty row gives.
///
/// A logit `x` is read as `scale x + bias`, the product and the sum rounded once each, or as `-inf` where it is masked;
/// what stands behind a mask is not looked at. In a row whose largest number would leave the range the numbers are read
/// less that one, from which the same probabilities follow.
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
    /// What logits are multiplied by: the inverse of a temperature. With 0 a logit of `-inf` is NaN, and an error: mask
    /// it.
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
        Ok(Logits { x, scale, bias, mask, causal, is_relative: true })
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
    run("softmax", SoftmaxRow { empty: EmptyRow::default() }, Logits::plain(Some(x)), x.shape(), y, |_| true)
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
    const NAME: &str = "softmax";
    let logits = options.logits(NAME, x.shape(), Some(x))?;
    run(NAME, SoftmaxRow { empty: options.empty }, logits, x.shape(), y, |_| true)
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

/// Runs a formula out of place, and reports what it finds once `mend` has seen the results; it says whether what it looked at is
/// finite.
fn run<'a, T, F: LogitFormula<T>>(
    operation: &'static str,
    formula: F,
    logits: Logits<'a, T>,
    shape: Shape,
    mut y: MatMut<'a, T>,
    mend: impl FnOnce(MatMut<'_, T>) -> bool,
) -> Result<usize>
where
    T: Float + for<'b> Runs<LogitRows<'b, T, F>>,
{
    check_shape(operation, "y", y.shape(), shape, "the shape of x")?;
    let seen = apply_to_logits(formula, logits, &mut [], Some(y.reborrow()))?;
    if !(mend(y.reborrow()) & seen.finite) {
        // `-inf` is the logarithm of what is impossible.
        let is_meant = move |index, y| match index {
            Index::Cell(i, j) => y == T::neg_infinity() && !logits.is_of_numbers(i, j),
            _ => false,
        };
        let outputs = [logits.as_read(), Operand::matrix("y", y.as_ref()).overlook(is_meant)];
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
/// the scale, and so is its error, but for another rounding. Without the scale it is the gradient with respect to the bias.
/// Masked logits get exactly 0, and so does a row that is empty by its masks or its bias, also where it was given uniform
/// probabilities; of one that is empty because `x` is `-inf` these do not tell, and the gradient is theirs.
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
    const NAME: &str = "softmax_backward";
    let logits = options.logits(NAME, p.shape(), None)?;
    let constant = |i| logits.rules_out(i, p.cols());
    if options.empty == EmptyRow::Zeros || p.area() == 0 || !(0..p.rows()).any(constant) {
        return softmax_gradients(NAME, logits.scale, p, dp, dx);
    }
    // What such a row gives does not depend on the logits: no probability of it counts.
    let counted = |i| p.row_iter(i).map(move |&p| if constant(i) { T::zero() } else { p });
    let counted = (0..p.rows()).flat_map(counted).collect::<Vec<_>>();
    softmax_gradients(NAME, logits.scale, MatRef::new(&counted, p.rows(), p.cols())?, dp, dx)
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
    run("log_softmax", LogSoftmaxRow, Logits::plain(Some(x)), x.shape(), y, |_| true)
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
    const NAME: &str = "log_softmax";
    let logits = options.logits(NAME, x.shape(), Some(x))?;
    run(NAME, LogSoftmaxRow, logits, x.shape(), y, |y| !logits.may_sink() || lift_sunk(logits, y))
}

/// A logit may leave the range downwards, where its logarithm of a probability does not: that is computed once more, from the
/// largest of its row. Whether all such are finite then.
fn lift_sunk<T: Float>(logits: Logits<'_, T>, mut y: MatMut<'_, T>) -> bool {
    let mut is_finite = true;
    for i in 0..y.rows() {
        let is_low = |y| y == T::neg_infinity();
        if y.as_ref().all_of_row(i, |y| !is_low(y)) {
            continue;
        }
        let has_sunk = |(j, &y): (usize, &T)| is_low(y) && logits.is_of_numbers(i, j);
        if !y.as_ref().row_iter(i).enumerate().any(has_sunk) {
            continue;
        }
        let larger = |a: (usize, T), b: (usize, T)| if a.1 < b.1 { b } else { a };
        let Some((k, largest)) = y.as_ref().row_iter(i).copied().enumerate().reduce(larger) else { continue };
        let lse = logits.wide(i, k).add(Scaled::new(-largest, 0));
        for j in 0..y.cols() {
            if let Some(y) = y.get_mut(i, j).filter(|y| has_sunk((j, y))) {
                *y = logits.wide(i, j).add(lse.neg()).value();
                is_finite &= y.is_finite();
            }
        }
    }
    is_finite
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

/// The gradient of [`log_softmax_with`] with respect to the logits `x`: that of [`log_softmax`], times the scale, and so is its
/// error, but for another rounding. Masked logits get exactly 0.
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
    const NAME: &str = "log_softmax_backward";
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
    fn apply<S: Simd<T>>(
        self,
        simd: S,
        _: usize,
        x: MatRef<'_, T>,
        y: MatMut<'_, T>,
        _: &mut [T],
        _: &mut Vec<T>,
    ) -> RowsSeen {
        let mut seen = RowsSeen::finite(true);
        RowSums::each::<false, S>(
            simd,
            x,
            y,
            |_| false,
            #[inline(always)]
            |_, e, _| e,
            #[inline(always)]
            |sums, rows, y| {
                let weights = sums.weights(simd);
                for (i, y) in y.rows_mut(rows.clone()).enumerate() {
                    weights.apply(simd, i, y);
                }
                if !sums.have_maxima_below(simd, T::infinity()) {
                    for (i, (x, y)) in x.rows_in(rows.clone()).zip(y.rows_mut(rows)).enumerate() {
                        seen = seen.join(self.write_unusual(x, sums.row(i).max, y));
                    }
                }
            },
        );
        seen
    }
}

impl SoftmaxRow {
    /// Writes a row that has no finite maximum, or a NaN: one that is empty, or in which `+inf` shares the probability with
    /// its like.
    #[cold]
    #[inline(never)]
    fn write_unusual<T: Float>(self, x: &[T], max: T, y: &mut [T]) -> RowsSeen {
        let share = |count: usize| T::one() / T::from(count).unwrap_or_else(T::max_value);
        if x.iter().any(|x| x.is_nan()) {
            y.fill(T::nan());
            return RowsSeen::finite(false);
        }
        if max == T::infinity() {
            let probability = share(x.iter().filter(|&&x| x == max).count());
            for (y, &x) in y.iter_mut().zip(x) {
                *y = if x == max { probability } else { T::zero() };
            }
            return RowsSeen::finite(false);
        }
        if max.is_finite() {
            return RowsSeen::finite(true);
        }
        y.fill(match self.empty {
            EmptyRow::Zeros => T::zero(),
            EmptyRow::Uniform => share(x.len()),
        });
        RowsSeen { finite: true, empty: 1 }
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
        let is_done = self.scale == T::one() && softmax_gradient(simd, p, dp, dx);
        RowsSeen::finite(is_done || outline(simd, SoftmaxGradient { scale: self.scale, p, dp, dx }))
    }
}

/// One row of the gradient of softmax, `p (dp - sum(p dp))`; whether it is finite. If not, an entry of probability 0 may
/// have been read.
#[inline(always)]
fn softmax_gradient<T: Float, S: Simd<T>>(simd: S, p: &[T], dp: &[T], dx: &mut [T]) -> bool {
    // Without groups: in a short row most of the time would go to what is left over.
    let ((p, p_tail), (dp, dp_tail)) = (T::blocks(p), T::blocks(dp));
    let (dx, dx_tail) = T::blocks_mut(dx);
    let (p_last, dp_last) = (load_tail(simd, p_tail, T::zero()), load_tail(simd, dp_tail, T::zero()));

    let mut chains = [Extended::zero(simd); 2];
    let ((p_pairs, p_single), (dp_pairs, dp_single)) = (p.as_chunks::<2>(), dp.as_chunks::<2>());
    for (p, dp) in p_pairs.iter().zip(dp_pairs) {
        for i in 0..2 {
            chains[i] = chains[i].add_product(Extended::of_block(simd, &p[i]), Extended::of_block(simd, &dp[i]));
        }
    }
    for (p, dp) in p_single.iter().zip(dp_single) {
        chains[0] = chains[0].add_product(Extended::of_block(simd, p), Extended::of_block(simd, dp));
    }
    chains[1] = chains[1].add_product(Extended::of(p_last), Extended::of(dp_last));

    let (zero, sum) = (Lanes::zero(simd), Lanes::splat(simd, total(chains)));
    let gradient = |p: Lanes<T, S>, dp| p * (dp - sum) + zero; // no -0
    let mut watch = Watch::new(simd);
    for ((p, dp), dx) in p.iter().zip(dp).zip(dx) {
        let result = gradient(Lanes::load(simd, p), Lanes::load(simd, dp));
        watch.see(result);
        *dx = result.store();
    }
    let last = gradient(p_last, dp_last);
    watch.see(last);
    store_tail(last, dx_tail);
    watch.all_finite()
}

/// The sum of all lanes, rounded.
#[inline(always)]
fn total<T: Float, S: Simd<T>>([a, b]: [Extended<T, S>; 2]) -> T {
    T::from((a + b).total().value()).unwrap_or_else(T::nan)
}

/// The same with a factor, where nothing is read that does not count.
struct SoftmaxGradient<'a, T> {
    scale: T,
    p: &'a [T],
    dp: &'a [T],
    dx: &'a mut [T],
}

impl<T: Float> Kernel for SoftmaxGradient<'_, T> {
    type Elem = T;
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> bool {
        let Self { scale, p, dp, dx } = self;
        scaled_softmax_gradient(simd, scale, p, dp, dx)
            || outline_rare(simd, RaisedGradient::<T, false> { scale, y: p, dy: dp, dx })
    }
}

/// `factor p (dp - sum(p dp))`; whether it is finite, and the factor has lifted nothing that had lost digits.
#[inline(always)]
fn scaled_softmax_gradient<T: Float, S: Simd<T>>(simd: S, factor: T, p: &[T], dp: &[T], dx: &mut [T]) -> bool {
    let zero = Lanes::zero(simd);
    let mut chains = [Extended::zero(simd); 2];
    each_group(
        simd,
        [p, dp],
        T::zero(),
        #[inline(always)]
        |group| {
            for (i, [p, dp]) in group.into_iter().enumerate() {
                let possible = p.eq(zero).select(zero, dp);
                let chain = &mut chains[i % 2];
                *chain = chain.add_product(Extended::of(p), Extended::of(possible));
            }
        },
    );
    let total = total(chains);
    let (sum, scale) = (Lanes::splat(simd, total), Lanes::splat(simd, factor));
    let mut watch = Watch::new(simd);
    sweep(
        simd,
        [p, dp],
        [dx],
        #[inline(always)]
        |[p, dp], [_]| {
            let product = p * ((dp - sum) * scale);
            let result = p.eq(zero).select(zero, product + zero); // no -0
            watch.see(result);
            [result]
        },
    );
    watch.all_finite() && (factor.abs() <= T::one() || total.abs() >= least_sum(p.len()))
}

/// The gradient of softmax or, if `LOG`, of log-softmax, from its result `y`, in numbers that have an exponent of their own
/// each; whether it is finite.
struct RaisedGradient<'a, T, const LOG: bool> {
    scale: T,
    y: &'a [T],
    dy: &'a [T],
    dx: &'a mut [T],
}

impl<T: Float, const LOG: bool> RaisedGradient<'_, T, LOG> {
    /// The probability and, where it is not 0, the gradient `dy`, each with its exponent.
    #[inline(always)]
    fn parts<S: Simd<T>>([y, dy]: [Lanes<T, S>; 2]) -> [(Lanes<T, S>, Lanes<T, S>); 2] {
        let zero = y.all(T::zero());
        let p = if LOG { math::exp_parts(y, zero) } else { math::split_exponent(y) };
        [p, math::split_exponent(p.0.eq(zero).select(zero, dy))]
    }
}

impl<T: Float, const LOG: bool> Kernel for RaisedGradient<'_, T, LOG> {
    type Elem = T;
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> bool {
        let Self { y, dy, dx, .. } = self;
        let (zero, one) = (Lanes::zero(simd), Lanes::splat(simd, T::one()));
        // Below all exponents, that of a number which is 0.
        let lowest = Lanes::splat(simd, T::from(-16 * T::BIAS).unwrap_or_else(T::neg_infinity));
        let fill = if LOG { T::neg_infinity() } else { T::zero() };
        let (sum, power) = sum_with_exponents(
            simd,
            [y, dy],
            fill,
            #[inline(always)]
            |entry| {
                let [p, dy] = Self::parts(entry);
                if LOG { ((dy.0, zero), dy.1) } else { (p.0.two_mul(dy.0), p.1 + dy.1) }
            },
        );
        let [(sum, sum_power), scale] = [sum.value(), self.scale].map(
            #[inline(always)]
            |x| math::split_exponent(Lanes::splat(simd, x)),
        );
        let sum_power = sum_power + Lanes::splat(simd, power);
        let mut watch = Watch::new(simd);
        sweep(
            simd,
            [y, dy],
            [dx],
            #[inline(always)]
            |entry, [_]| {
                let [p, dy] = Self::parts(entry);
                let (share, factor) = if LOG { (p, (one, zero)) } else { ((one, zero), p) };
                let (share, share_power) = (share.0 * sum, share.1 + sum_power);
                let power = dy.0.eq(zero).select(lowest, dy.1).larger(share.eq(zero).select(lowest, share_power));
                let difference = math::scale(dy.0, dy.1 - power) - math::scale(share, share_power - power);
                let product = math::scale(difference * factor.0 * scale.0, power + factor.1 + scale.1);
                let result = p.0.eq(zero).select(zero, product + zero); // no -0
                watch.see(result);
                [result]
            },
        );
        watch.all_finite()
    }
}

/// `x - ln(sum(exp(x)))`.
#[derive(Clone, Copy, Debug)]
pub struct LogSoftmaxRow;

impl<T: Float> LogitFormula<T> for LogSoftmaxRow {
    const WORK: usize = 4;

    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        simd: S,
        _: usize,
        x: MatRef<'_, T>,
        y: MatMut<'_, T>,
        _: &mut [T],
        _: &mut Vec<T>,
    ) -> RowsSeen {
        let mut seen = RowsSeen::finite(true);
        RowSums::each::<true, S>(
            simd,
            x,
            y,
            |_| false,
            #[inline(always)]
            |x, _, max| x - max,
            #[inline(always)]
            |sums, rows, y| {
                let logs = sums.logs(simd).0.store();
                for (i, y) in y.rows_mut(rows.clone()).enumerate() {
                    subtract(simd, logs.as_ref()[i], y);
                }
                if !sums.have_maxima_below(simd, largest_common()) {
                    for (i, (x, y)) in x.rows_in(rows.clone()).zip(y.rows_mut(rows)).enumerate() {
                        seen = seen.join(write_unusual_log(x, &sums.row(i), logs.as_ref()[i], y));
                    }
                }
            },
        );
        seen
    }
}

/// A maximum below it is too small to change the largest number.
fn largest_common<T: Float>() -> T {
    T::max_value() * T::epsilon() / T::from(8).expect("a small integer")
}

/// Writes a row whose maximum is far from 0 or infinite, if it is not written already.
#[cold]
#[inline(never)]
fn write_unusual_log<T: Float>(x: &[T], sum: &RowSum<T>, log: T, y: &mut [T]) -> RowsSeen {
    if sum.is_empty() {
        y.fill(T::neg_infinity());
        return RowsSeen { finite: true, empty: 1 };
    }
    let is_finite = sum.max.abs() < largest_common() || subtract_far(x, [sum.max, log], y);
    RowsSeen::finite(is_finite && sum.is_plain())
}

/// Writes `(x - max) - log`, the difference being there already. It is finite where `x` is, if the maximum is [common].
///
/// [common]: largest_common
#[inline(always)]
fn subtract<T: Float, S: Simd<T>>(simd: S, log: T, y: &mut [T]) {
    let log = Lanes::splat(simd, log);
    map_row(
        simd,
        y,
        #[inline(always)]
        |difference| difference - log,
    );
}

/// The same of any maximum, from the row; whether it is finite where `x` is above `-inf`.
fn subtract_far<T: Float>(x: &[T], [max, log]: [T; 2], y: &mut [T]) -> bool {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = if x == max { -log } else { (x - max) - log };
    }
    x.iter().zip(y).all(|(&x, y)| y.is_finite() || x == T::neg_infinity())
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
        let is_done = self.scale == T::one() && log_softmax_gradient(simd, y, dy, dx);
        RowsSeen::finite(is_done || outline(simd, LogSoftmaxGradient { scale: self.scale, y, dy, dx }))
    }
}

/// One row of the gradient of log-softmax, `dy - exp(y) sum(dy)`, if it is finite and each `exp(y)` a normal number.
#[inline(always)]
fn log_softmax_gradient<T: Float, S: Simd<T>>(simd: S, y: &[T], dy: &[T], dx: &mut [T]) -> bool {
    let zero = Lanes::zero(simd);
    let (mut chains, mut extremes) = ([Extended::zero(simd); 2], [zero; 2]);
    each_group_in_place(
        simd,
        [y, dy],
        T::zero(),
        #[inline(always)]
        |[y, dy]| {
            for (i, (y, dy)) in y.iter().zip(dy).enumerate() {
                let (y, [least, largest]) = (Lanes::load(simd, y), extremes);
                extremes = [y.smaller(least), y.larger(largest)];
                chains[i % 2] = chains[i % 2] + Extended::of_block(simd, dy);
            }
        },
    );
    let [least, largest] = extremes;
    if !(math::has_normal_exp(least) & math::has_normal_exp(largest)).all() {
        return false;
    }
    let sum = Lanes::splat(simd, total(chains));
    let mut watch = Watch::new(simd);
    sweep_groups(
        simd,
        [y, dy],
        T::zero(),
        dx,
        #[inline(always)]
        |group| {
            let mut results = [zero; GROUP];
            for (result, [y, dy]) in results.iter_mut().zip(group) {
                *result = y.share(
                    #[inline(always)]
                    || sum.mul_add(-math::normal_exp(y, zero), dy),
                );
                watch.see(*result);
            }
            results
        },
    );
    watch.all_finite()
}

/// The same with a factor, of any row.
struct LogSoftmaxGradient<'a, T> {
    scale: T,
    y: &'a [T],
    dy: &'a [T],
    dx: &'a mut [T],
}

impl<T: Float> Kernel for LogSoftmaxGradient<'_, T> {
    type Elem = T;
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> bool {
        let Self { scale, y, dy, dx } = self;
        scaled_log_softmax_gradient(simd, scale, y, dy, dx)
            || outline_rare(simd, RaisedGradient::<T, true> { scale, y, dy, dx })
    }
}

/// `factor (dy - exp(y) sum(dy))`; whether it is finite, and the factor has lifted nothing that had lost digits.
#[inline(always)]
fn scaled_log_softmax_gradient<T: Float, S: Simd<T>>(simd: S, factor: T, y: &[T], dy: &[T], dx: &mut [T]) -> bool {
    let (zero, lowest) = (Lanes::zero(simd), Lanes::splat(simd, T::neg_infinity()));
    let mut chains = [Extended::zero(simd); 2];
    each_group(
        simd,
        [y, dy],
        T::zero(),
        #[inline(always)]
        |group| {
            for (i, [y, dy]) in group.into_iter().enumerate() {
                chains[i % 2] = chains[i % 2] + Extended::of(y.eq(lowest).select(zero, dy));
            }
        },
    );
    let total = total(chains);
    let (sum, scale) = (Lanes::splat(simd, total), Lanes::splat(simd, factor));
    let lifts = factor.abs() > T::one() && !total.is_zero();
    let (mut watch, mut least) = (Watch::new(simd), Lanes::splat(simd, T::infinity()));
    sweep(
        simd,
        [y, dy],
        [dx],
        #[inline(always)]
        |[y, dy], [_]| {
            let (is_impossible, is_plain) = (y.eq(lowest), math::has_normal_exp(y));
            let mut difference = sum.mul_add(-math::normal_exp(y, zero), dy);
            if !(is_plain | is_impossible).all() {
                // A large sum may lift the product out of the range in which exp(y) alone underflows.
                let (e, exponent) = math::exp_parts(y, zero);
                difference = is_plain.select(difference, dy - math::scaled_product(sum, e, exponent));
            }
            if lifts {
                least = is_impossible.select(least, difference.abs().smaller(least));
            }
            let result = is_impossible.select(zero, difference * scale);
            watch.see(result);
            [result]
        },
    );
    // What is subnormal has lost digits, unless there is no product in it.
    watch.all_finite() && !least.lt(Lanes::splat(simd, T::min_positive_value())).any()
}
