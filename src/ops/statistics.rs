//! Mean, variance and standard deviation of the rows of a matrix, and their gradients.

use crate::error::{Error, Result, check_len, check_shape};
use crate::finite::{Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::row_map::{RowFunction, map_rows};
use crate::view::{MatMut, MatRef};

/// Options of [`variance_rows`] and [`std_rows`].
///
/// ```
/// use nanproof::{MatRef, Variance, variance_rows};
///
/// let mut y = [0.0_f32];
/// variance_rows(Variance { ddof: 1 }, MatRef::new(&[1.0, 2.0, 6.0], 1, 3)?, &mut y)?;
/// assert_eq!(y, [7.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Variance {
    /// The squares are divided by the number of columns less this: 0 by default, 1 for the unbiased estimate.
    pub ddof: usize,
}

/// The mean of each row of a matrix; `y` has an element for each.
///
/// Within 0.7 ULP of the true value, and what the sum is wrong by: at most `(n + 64) 2^-57 max |x|` in `f32` and
/// `n^2 2^-106 max |x|` in `f64`, with rows `n` long. Partial sums may overflow.
///
/// Gradient: [`mean_rows_backward`].
///
/// # Errors
/// [`Error::Shape`] if `y` does not fit; [`Error::Argument`] if there are rows, but no columns; [`Error::NonFinite`] if an
/// element is not finite.
///
/// ```
/// use nanproof::{MatRef, mean_rows};
///
/// let mut y = [0.0_f32; 2];
/// mean_rows(MatRef::new(&[3e38, 3e38, 1.0, 2.0], 2, 2)?, &mut y)?;
/// assert_eq!(y, [3e38, 1.5]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn mean_rows<T: Float>(x: MatRef<'_, T>, y: &mut [T]) -> Result<()> {
    forward("mean_rows", RowFunction::Mean, 0, x, y)
}

/// The gradient of [`mean_rows`]: `dx = dy / n` in each row, `n` being the number of columns.
///
/// Rounded correctly (for up to 2^24 columns).
///
/// # Errors
/// [`Error::Shape`] if `dy` does not fit; [`Error::NonFinite`] if an element of it is not finite, which is written all the
/// same.
///
/// ```
/// use nanproof::{MatMut, mean_rows_backward};
///
/// let mut dx = [0.0_f32; 4];
/// mean_rows_backward(&[1.0, 3.0], MatMut::new(&mut dx, 2, 2)?)?;
/// assert_eq!(dx, [0.5, 0.5, 1.5, 1.5]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn mean_rows_backward<T: Float>(dy: &[T], mut dx: MatMut<'_, T>) -> Result<()> {
    const NAME: &str = "mean_rows_backward";
    check_len(NAME, "dy", dy.len(), dx.rows(), "the number of rows of dx")?;
    let count = T::from(dx.cols()).unwrap_or_else(T::max_value);
    if dx.cols() > 0 {
        dx.each_mut(|i, _, dx| *dx = dy[i] / count);
    }
    if dy.iter().all(|dy| dy.is_finite()) {
        return Ok(());
    }
    diagnose(NAME, [Operand::slice("dy", dy)], [], overflow_or_invalid)
}

/// The variance of each row of a matrix: `sum((x - mean)^2) / (n - ddof)`; `y` has an element for each.
///
/// Within 1 ULP of the true value for rows up to 2^20 long, also where the mean is much larger than the deviations. A row
/// of equal elements gives 0, exactly. Source: Chan, Golub and `LeVeque` 1983, two passes with a correction.
///
/// Gradient: [`variance_rows_backward`].
///
/// # Errors
/// [`Error::Shape`] if `y` does not fit; [`Error::Argument`] if there are rows, but not more columns than `ddof`: the
/// variance of one sample, unbiased, is no number; [`Error::NonFinite`] if an element is not finite, or if a result
/// overflows.
///
/// ```
/// use nanproof::{MatRef, Variance, variance_rows};
///
/// let mut y = [0.0_f64; 2];
/// variance_rows(Variance::default(), MatRef::new(&[1.0, 3.0, 1e9, 1e9], 2, 2)?, &mut y)?;
/// assert_eq!(y, [1.0, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn variance_rows<T: Float>(options: Variance, x: MatRef<'_, T>, y: &mut [T]) -> Result<()> {
    forward("variance_rows", RowFunction::Variance(options.ddof), options.ddof, x, y)
}

/// The gradient of [`variance_rows`]: `dx = dy 2 (x - mean) / (n - ddof)` in each row.
///
/// Within 1.5 ULP, and the factor times `(n + 1024) 2^-57 max |x|` in `f32`, `n^2 2^-106 max |x|` in `f64`, where `x` is
/// close to the mean, or times the smallest number, where `x` is hardly larger than the smallest normal ones.
///
/// # Errors
/// [`Error::Shape`] and [`Error::Argument`] as [`variance_rows`]; [`Error::NonFinite`] if an element of `x` or `dy` is not
/// finite, or a result overflows.
///
/// ```
/// use nanproof::{MatMut, MatRef, Variance, variance_rows_backward};
///
/// let mut dx = [0.0_f64; 2];
/// let x = MatRef::new(&[1.0, 3.0], 1, 2)?;
/// variance_rows_backward(Variance::default(), x, &[5.0], MatMut::new(&mut dx, 1, 2)?)?;
/// assert_eq!(dx, [-5.0, 5.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn variance_rows_backward<T: Float>(
    options: Variance,
    x: MatRef<'_, T>,
    dy: &[T],
    dx: MatMut<'_, T>,
) -> Result<()> {
    backward("variance_rows_backward", RowFunction::VarianceGradient(options.ddof), options.ddof, x, dy, dx)
}

/// The standard deviation of each row of a matrix, the root of [`variance_rows`]; `y` has an element for each.
///
/// Within 1 ULP of the true value for rows up to 2^20 long. Squares may over- and underflow. A row of equal elements gives
/// 0, exactly.
///
/// Gradient: [`std_rows_backward`].
///
/// # Errors
/// As [`variance_rows`].
///
/// ```
/// use nanproof::{MatRef, Variance, std_rows};
///
/// let mut y = [0.0_f32; 2];
/// std_rows(Variance::default(), MatRef::new(&[0.0, 2e25, -1e-30, 1e-30], 2, 2)?, &mut y)?;
/// assert_eq!(y, [1e25, 1e-30]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn std_rows<T: Float>(options: Variance, x: MatRef<'_, T>, y: &mut [T]) -> Result<()> {
    forward("std_rows", RowFunction::Std(options.ddof), options.ddof, x, y)
}

/// The gradient of [`std_rows`]: `dx = dy (x - mean) / ((n - ddof) std)` in each row, and 0 in a row of equal elements
/// (the subgradient of least norm), for which `dy` is not read.
///
/// The error is that of [`variance_rows_backward`].
///
/// # Errors
/// As [`variance_rows_backward`].
///
/// ```
/// use nanproof::{MatMut, MatRef, Variance, std_rows_backward};
///
/// let mut dx = [0.0_f64; 4];
/// let x = MatRef::new(&[1.0, 3.0, 7.0, 7.0], 2, 2)?;
/// std_rows_backward(Variance::default(), x, &[1.0, 1.0], MatMut::new(&mut dx, 2, 2)?)?;
/// assert_eq!(dx, [-0.5, 0.5, 0.0, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn std_rows_backward<T: Float>(options: Variance, x: MatRef<'_, T>, dy: &[T], dx: MatMut<'_, T>) -> Result<()> {
    backward("std_rows_backward", RowFunction::StdGradient(options.ddof), options.ddof, x, dy, dx)
}

fn check_cols<T>(operation: &'static str, ddof: usize, x: MatRef<'_, T>) -> Result<()> {
    if x.rows() == 0 || x.cols() > ddof {
        return Ok(());
    }
    let (argument, problem) = if ddof == 0 {
        ("x", "has no columns and must have one at least")
    } else {
        ("ddof", "must be less than the number of columns of x")
    };
    Err(Error::Argument { operation, argument, problem })
}

fn forward<T: Float>(
    operation: &'static str,
    map: RowFunction<T>,
    ddof: usize,
    x: MatRef<'_, T>,
    y: &mut [T],
) -> Result<()> {
    check_len(operation, "y", y.len(), x.rows(), "the number of rows of x")?;
    check_cols(operation, ddof, x)?;
    if map_rows(map, x, &[T::zero()], MatMut::new(y, x.rows(), 1)?)? {
        return Ok(());
    }
    diagnose(operation, [Operand::matrix("x", x)], [Operand::slice("y", y)], overflow_or_invalid)
}

fn backward<T: Float>(
    operation: &'static str,
    map: RowFunction<T>,
    ddof: usize,
    x: MatRef<'_, T>,
    dy: &[T],
    mut dx: MatMut<'_, T>,
) -> Result<()> {
    check_len(operation, "dy", dy.len(), x.rows(), "the number of rows of x")?;
    check_shape(operation, "dx", dx.shape(), x.shape(), "the shape of x")?;
    check_cols(operation, ddof, x)?;
    if map_rows(map, x, dy, dx.reborrow())? {
        return Ok(());
    }
    let dx = dx.as_ref();
    let inputs = [Operand::matrix("x", x), Operand::slice("dy", dy).overlook_unread_rows(dx)];
    diagnose(operation, inputs, [Operand::matrix("dx", dx)], overflow_or_invalid)
}
