//! Operations on rows that are stored in 16 bits, in `f32`.
//!
//! Rows are widened a band at a time, the operation on the wider type runs on them, and what it gives is rounded once.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::cross_entropy::Batch;
use super::matmul::ranges;
use super::{
    CrossEntropy, LayerNorm, Loss, RmsNorm, Softmax, Targets, cross_entropy_with_gradient, layer_norm,
    log_softmax_with, rms_norm, softmax_with,
};
use crate::error::{Error, Result, check_shape};
use crate::finite::{Index, Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::storage::{Storage, round};
use crate::view::{MatMut, MatRef};

/// [`softmax_with`] of rows in any [storage type](Storage): `x` is widened, exactly, and the probabilities are rounded
/// once to the type of `y`. Returns how many rows were empty.
///
/// The bits are those of [`softmax_with`] on the widened matrix, rounded. The memory needed beside the operands is a
/// band of rows, or one row.
///
/// Gradient: [`softmax_backward_with`](crate::softmax_backward_with) of widened operands.
///
/// # Errors
/// As [`softmax_with`].
///
/// ```
/// # #[cfg(feature = "half")] {
/// use half::bf16;
/// use nanproof::{MatMut, MatRef, Softmax, softmax_mixed};
///
/// let (x, mut y) = ([1.0, 1.0].map(bf16::from_f32), [bf16::ZERO; 2]);
/// softmax_mixed(Softmax::default(), MatRef::new(&x, 1, 2)?, MatMut::new(&mut y, 1, 2)?)?;
/// assert_eq!(y, [bf16::from_f32(0.5); 2]);
/// # }
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn softmax_mixed<T, X, Y>(options: Softmax<'_, T>, x: MatRef<'_, X>, y: MatMut<'_, Y>) -> Result<usize>
where
    T: Float,
    X: Storage<Compute = T>,
    Y: Storage<Compute = T>,
{
    const NAME: &str = "softmax_mixed";
    options.logits(NAME, x.shape(), None)?;
    in_bands(NAME, x, y, |rows, x, y| softmax_with(options.of_rows(rows)?, x, y))
}

/// [`log_softmax_with`] of rows in any [storage type](Storage), as [`softmax_mixed`].
///
/// Gradient: [`log_softmax_backward_with`](crate::log_softmax_backward_with) of widened operands.
///
/// # Errors
/// As [`log_softmax_with`]; also [`Error::NonFinite`] if a result is finite but too large for the type of `y`.
///
/// ```
/// # #[cfg(feature = "half")] {
/// use half::f16;
/// use nanproof::{MatMut, MatRef, Softmax, log_softmax_mixed};
///
/// let (x, mut y) = ([0.0, 0.0].map(f16::from_f32), [0.0_f32; 2]);
/// log_softmax_mixed(Softmax::default(), MatRef::new(&x, 1, 2)?, MatMut::new(&mut y, 1, 2)?)?;
/// assert_eq!(y, [-std::f32::consts::LN_2; 2]);
/// # }
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn log_softmax_mixed<T, X, Y>(options: Softmax<'_, T>, x: MatRef<'_, X>, y: MatMut<'_, Y>) -> Result<usize>
where
    T: Float,
    X: Storage<Compute = T>,
    Y: Storage<Compute = T>,
{
    const NAME: &str = "log_softmax_mixed";
    options.logits(NAME, x.shape(), None)?;
    in_bands(NAME, x, y, |rows, x, y| log_softmax_with(options.of_rows(rows)?, x, y))
}

/// [`layer_norm`] of rows in any [storage type](Storage), as [`softmax_mixed`]; weights and biases are in the type that
/// is computed in.
///
/// Gradient: [`layer_norm_backward`](crate::layer_norm_backward) of widened operands.
///
/// # Errors
/// As [`layer_norm`]; also [`Error::NonFinite`] if a result is finite but too large for the type of `y`.
///
/// ```
/// # #[cfg(feature = "half")] {
/// use half::bf16;
/// use nanproof::{LayerNorm, MatMut, MatRef, layer_norm_mixed};
///
/// let (x, mut y) = ([1e30, 3e30].map(bf16::from_f32), [0.0_f32; 2]);
/// let options = LayerNorm { eps: 0.0 };
/// layer_norm_mixed(options, MatRef::new(&x, 1, 2)?, None, None, MatMut::new(&mut y, 1, 2)?)?;
/// assert_eq!(y, [-1.0, 1.0]);
/// # }
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn layer_norm_mixed<T, X, Y>(
    options: LayerNorm<T>,
    x: MatRef<'_, X>,
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    y: MatMut<'_, Y>,
) -> Result<()>
where
    T: Float,
    X: Storage<Compute = T>,
    Y: Storage<Compute = T>,
{
    in_bands("layer_norm_mixed", x, y, |_, x, y| layer_norm(options, x, weight, bias, y).map(|()| 0)).map(drop)
}

/// [`rms_norm`] of rows in any [storage type](Storage), as [`layer_norm_mixed`].
///
/// Gradient: [`rms_norm_backward`](crate::rms_norm_backward) of widened operands.
///
/// # Errors
/// As [`rms_norm`]; also [`Error::NonFinite`] if a result is finite but too large for the type of `y`.
///
/// ```
/// # #[cfg(feature = "half")] {
/// use half::f16;
/// use nanproof::{MatMut, MatRef, RmsNorm, rms_norm_mixed};
///
/// let (x, mut y) = ([3.0, -3.0].map(f16::from_f32), [f16::ZERO; 2]);
/// rms_norm_mixed(RmsNorm { eps: 0.0 }, MatRef::new(&x, 1, 2)?, None, MatMut::new(&mut y, 1, 2)?)?;
/// assert_eq!(y, [1.0, -1.0].map(f16::from_f32));
/// # }
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn rms_norm_mixed<T, X, Y>(
    options: RmsNorm<T>,
    x: MatRef<'_, X>,
    weight: Option<&[T]>,
    y: MatMut<'_, Y>,
) -> Result<()>
where
    T: Float,
    X: Storage<Compute = T>,
    Y: Storage<Compute = T>,
{
    in_bands("rms_norm_mixed", x, y, |_, x, y| rms_norm(options, x, weight, y).map(|()| 0)).map(drop)
}

/// [`cross_entropy_with_gradient`](crate::cross_entropy_with_gradient) of logits in any [storage type](Storage): they are
/// widened, exactly, the loss is computed in the wider type, and the gradient is rounded once to the type of `dlogits`.
///
/// # Errors
/// As [`cross_entropy_with_gradient`](crate::cross_entropy_with_gradient); also [`Error::NonFinite`] if an element of the
/// gradient is finite but too large for the type of `dlogits`.
///
/// ```
/// # #[cfg(feature = "half")] {
/// use half::bf16;
/// use nanproof::{CrossEntropy, MatMut, MatRef, cross_entropy_mixed};
///
/// let (x, mut dx) = ([bf16::ZERO; 2], [bf16::ZERO; 2]);
/// let logits = MatRef::new(&x, 1, 2)?;
/// let loss = cross_entropy_mixed(CrossEntropy::default(), logits, &[1], MatMut::new(&mut dx, 1, 2)?)?;
/// assert_eq!((loss.value, dx), (2.0_f32.ln(), [0.5, -0.5].map(bf16::from_f32)));
/// # }
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn cross_entropy_mixed<'a, T, X, Y>(
    options: CrossEntropy<'a, T>,
    logits: MatRef<'_, X>,
    targets: impl Into<Targets<'a, T>>,
    mut dlogits: MatMut<'_, Y>,
) -> Result<Loss<T>>
where
    T: Float,
    X: Storage<Compute = T>,
    Y: Storage<Compute = T>,
{
    const NAME: &str = "cross_entropy_mixed";
    check_shape(NAME, "dlogits", dlogits.shape(), logits.shape(), "the shape of logits")?;
    let (cols, targets) = (logits.cols(), targets.into());
    let batch = Batch::new(NAME, options, logits.rows(), cols, targets)?;
    let mut losses = vec![T::zero(); logits.rows()];
    let (mut rows_of_x, mut is_finite) = (Vec::new(), true);
    for rows in bands(logits.rows(), cols) {
        logits.submatrix(rows.clone(), 0..cols)?.map_into(&mut rows_of_x, X::widen);
        let gradients = MatMut::new(&mut rows_of_x, rows.len(), cols)?;
        is_finite &= batch.run_in_place(rows.start, &mut losses[rows.clone()], gradients)?;
        is_finite &= round(&rows_of_x, dlogits.reborrow().submatrix(rows, 0..cols)?);
    }
    let loss = batch.loss(&losses)?;
    if is_finite && loss.value.is_finite() {
        return Ok(loss);
    }
    // Once more, all at once, so that what is mended is, and that the report counts all.
    again(NAME, "dlogits", logits, dlogits, |x, dx| cross_entropy_with_gradient(options, x, targets, dx))
}

/// Elements that are widened at a time: with the results they stay in the second-level cache.
const BAND: usize = 1 << 15;

fn bands(rows: usize, cols: usize) -> impl Iterator<Item = Range<usize>> {
    ranges(rows, (BAND / cols.max(1)).max(1))
}

/// Runs an operation on bands of the rows of `x`, widened, given which rows they are; what it gives is rounded to `y`.
/// Returns the sum of the counts that it returns.
fn in_bands<T, X, Y>(
    name: &'static str,
    x: MatRef<'_, X>,
    mut y: MatMut<'_, Y>,
    run: impl Fn(Range<usize>, MatRef<'_, T>, MatMut<'_, T>) -> Result<usize>,
) -> Result<usize>
where
    T: Float,
    X: Storage<Compute = T>,
    Y: Storage<Compute = T>,
{
    check_shape(name, "y", y.shape(), x.shape(), "the shape of x")?;
    let cols = x.cols();
    let (mut wide, mut result, mut total) = (Vec::new(), Vec::new(), 0);
    run(0..0, MatRef::new(&[], 0, cols)?, MatMut::new(&mut [], 0, cols)?).map_err(|error| named(name, error))?;
    if cols == 0 {
        return Ok(0); // rows without elements need no memory: there may be any number of them
    }
    for rows in bands(x.rows(), cols) {
        x.submatrix(rows.clone(), 0..cols)?.map_into(&mut wide, X::widen);
        result.resize(wide.len(), T::zero());
        let len = rows.len();
        let found = run(rows.clone(), MatRef::new(&wide, len, cols)?, MatMut::new(&mut result, len, cols)?);
        let is_finite = round(&result, y.reborrow().submatrix(rows, 0..cols)?);
        match found {
            Ok(count) if is_finite => total += count,
            // Once more, all at once, so that the report counts all and names the row by its number.
            Ok(_) | Err(Error::NonFinite(_)) => return again(name, "y", x, y, |x, y| run(0..x.rows(), x, y)),
            Err(error) => return Err(named(name, error)),
        }
    }
    Ok(total)
}

/// The whole at once, with the report of what is not finite.
#[cold]
fn again<T, X, Y, R>(
    name: &'static str,
    output: &'static str,
    x: MatRef<'_, X>,
    mut y: MatMut<'_, Y>,
    run: impl Fn(MatRef<'_, T>, MatMut<'_, T>) -> Result<R>,
) -> Result<R>
where
    T: Float,
    X: Storage<Compute = T>,
    Y: Storage<Compute = T>,
{
    let (rows, cols) = (x.rows(), x.cols());
    let (mut wide, mut rounded) = (Vec::new(), Vec::new());
    x.map_into(&mut wide, X::widen);
    let mut result = vec![T::zero(); wide.len()];
    let found = run(MatRef::new(&wide, rows, cols)?, MatMut::new(&mut result, rows, cols)?);
    round(&result, y.reborrow());
    let found = found.map_err(|error| named(name, error))?;
    y.as_ref().map_into(&mut rounded, Y::widen);
    let result = MatRef::new(&result, rows, cols)?;
    let is_meant = |index, _| matches!(index, Index::Cell(i, j) if result.get(i, j).is_some_and(|y| !y.is_finite()));
    let rounded = Operand::matrix(output, MatRef::new(&rounded, rows, cols)?).overlook(is_meant);
    diagnose(name, [], [rounded], overflow_or_invalid)?;
    Ok(found)
}

/// An error of the operation that does the work, in the name of the one that was called.
fn named(name: &'static str, mut error: Error) -> Error {
    match &mut error {
        Error::Shape { operation, .. } | Error::Argument { operation, .. } => *operation = name,
        Error::NonFinite(report) => report.operation = name,
        _ => {}
    }
    error
}
