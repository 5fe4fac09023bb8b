//! The largest and the smallest entry of each row of a matrix, where they are, and their gradients.

use crate::error::{Error, Result, check_len, check_shape};
use crate::finite::{Index, Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::rows::each_row;
use crate::view::{MatMut, MatRef};

/// The largest entry of each row: `y[i] = max(x[i, ..])`, exactly. A NaN in a row is its largest entry; the maximum of no
/// entries, or of `-inf` alone, is `-inf`, which is no fault.
///
/// `y` has an element for each row of `x`. Gradient: [`max_rows_backward`].
///
/// # Errors
/// [`Error::Shape`] if `y` has another length; [`Error::NonFinite`] if a result is NaN or `+inf`.
///
/// ```
/// use nanproof::{MatRef, max_rows};
///
/// let mut y = [0.0_f32; 2];
/// max_rows(MatRef::new(&[1.0, 3.0, f32::NEG_INFINITY, -2.0], 2, 2)?, &mut y)?;
/// assert_eq!(y, [3.0, -2.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn max_rows<T: Float>(x: MatRef<'_, T>, y: &mut [T]) -> Result<()> {
    extremes("max_rows", End::Largest, x, y)
}

/// The smallest entry of each row: `y[i] = min(x[i, ..])`, exactly. A NaN in a row is its smallest entry; the minimum of
/// no entries, or of `+inf` alone, is `+inf`, which is no fault.
///
/// `y` has an element for each row of `x`. Gradient: [`min_rows_backward`].
///
/// # Errors
/// [`Error::Shape`] if `y` has another length; [`Error::NonFinite`] if a result is NaN or `-inf`.
///
/// ```
/// use nanproof::{MatRef, min_rows};
///
/// let mut y = [0.0_f64; 1];
/// assert!(min_rows(MatRef::new(&[1.0, f64::NAN], 1, 2)?, &mut y).is_err()); // says where
/// assert!(y[0].is_nan());
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn min_rows<T: Float>(x: MatRef<'_, T>, y: &mut [T]) -> Result<()> {
    extremes("min_rows", End::Smallest, x, y)
}

/// The column of the first largest entry of each row or, where there is one, of the first NaN.
///
/// `columns` has an element for each row of `x`.
///
/// # Errors
/// [`Error::Shape`] if `columns` has another length; [`Error::Argument`] if there are rows, and they have no entries;
/// [`Error::NonFinite`] if an entry is NaN.
///
/// ```
/// use nanproof::{MatRef, argmax_rows};
///
/// let mut columns = [0; 2];
/// argmax_rows(MatRef::new(&[1.0_f32, 3.0, 3.0, -2.0, f32::INFINITY, 0.0], 2, 3)?, &mut columns)?;
/// assert_eq!(columns, [1, 1]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn argmax_rows<T: Float>(x: MatRef<'_, T>, columns: &mut [usize]) -> Result<()> {
    places("argmax_rows", End::Largest, x, columns)
}

/// The column of the first smallest entry of each row or, where there is one, of the first NaN.
///
/// # Errors
/// As [`argmax_rows`].
///
/// ```
/// use nanproof::{MatRef, argmin_rows};
///
/// let mut columns = [0];
/// argmin_rows(MatRef::new(&[1.0_f32, -3.0, -3.0], 1, 3)?, &mut columns)?;
/// assert_eq!(columns, [1]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn argmin_rows<T: Float>(x: MatRef<'_, T>, columns: &mut [usize]) -> Result<()> {
    places("argmin_rows", End::Smallest, x, columns)
}

/// The gradient of [`max_rows`]: `dy[i]`, shared equally by the entries that are the largest of row `i`; 0 for the others.
/// The shares are rounded once. Where there are NaNs they get NaN.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit; [`Error::NonFinite`] if a result is not finite.
///
/// ```
/// use nanproof::{MatMut, MatRef, max_rows_backward};
///
/// let mut dx = [0.0_f32; 3];
/// max_rows_backward(MatRef::new(&[2.0, 1.0, 2.0], 1, 3)?, &[5.0], MatMut::new(&mut dx, 1, 3)?)?;
/// assert_eq!(dx, [2.5, 0.0, 2.5]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn max_rows_backward<T: Float>(x: MatRef<'_, T>, dy: &[T], dx: MatMut<'_, T>) -> Result<()> {
    shares("max_rows_backward", End::Largest, x, dy, dx)
}

/// The gradient of [`min_rows`], as [`max_rows_backward`] is that of [`max_rows`].
///
/// # Errors
/// As [`max_rows_backward`].
///
/// ```
/// use nanproof::{MatMut, MatRef, min_rows_backward};
///
/// let mut dx = [0.0_f32; 3];
/// min_rows_backward(MatRef::new(&[2.0, 1.0, 2.0], 1, 3)?, &[5.0], MatMut::new(&mut dx, 1, 3)?)?;
/// assert_eq!(dx, [0.0, 5.0, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn min_rows_backward<T: Float>(x: MatRef<'_, T>, dy: &[T], dx: MatMut<'_, T>) -> Result<()> {
    shares("min_rows_backward", End::Smallest, x, dy, dx)
}

/// Which end of the numbers is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Largest,
    Smallest,
}

impl End {
    /// What every number is beyond, or equal to.
    fn start<T: Float>(self) -> T {
        match self {
            Self::Largest => T::neg_infinity(),
            Self::Smallest => T::infinity(),
        }
    }

    /// The one of two numbers that is nearer to this end; `a` if one is NaN.
    #[inline(always)]
    fn nearer<T: Float>(self, a: T, b: T) -> T {
        let is_nearer = match self {
            Self::Largest => b > a,
            Self::Smallest => b < a,
        };
        if is_nearer { b } else { a }
    }

    /// The extreme entry of a row; NaN if there is one.
    fn of<T: Float>(self, row: &[T]) -> T {
        // A lane each, so that the loop over them becomes vector instructions.
        let (mut extremes, mut nans) = (T::fill(self.start()), T::fill(T::zero()));
        let mut see = |block: &[T]| {
            let lanes = extremes.as_mut().iter_mut().zip(nans.as_mut()).zip(block);
            for ((extreme, nan), &x) in lanes {
                *extreme = self.nearer(*extreme, x);
                *nan = if x.is_nan() { x } else { *nan };
            }
        };
        let (blocks, tail) = T::blocks(row);
        blocks.iter().for_each(|block| see(block.as_ref()));
        see(tail);
        let nan = nans.as_ref().iter().find(|nan| nan.is_nan());
        nan.copied().unwrap_or_else(|| extremes.as_ref().iter().fold(self.start(), |a, &b| self.nearer(a, b)))
    }
}

fn extremes<T: Float>(operation: &'static str, end: End, x: MatRef<'_, T>, y: &mut [T]) -> Result<()> {
    check_len(operation, "y", y.len(), x.rows(), "the number of rows of x")?;
    each_row([x], MatMut::new(y, x.rows(), 1)?, |_, [row], y| y[0] = end.of(row));
    let is_fault = |y: T| !y.is_finite() && y != end.start();
    if !y.iter().any(|&y| is_fault(y)) {
        return Ok(());
    }
    let is_extreme = |index, x: T| matches!(index, Index::Cell(i, _) if is_fault(y[i]) && (x == y[i] || x.is_nan()));
    let inputs = [Operand::matrix("x", x).overlook(|index, x| !is_extreme(index, x))];
    diagnose(operation, inputs, [], overflow_or_invalid)
}

fn places<T: Float>(operation: &'static str, end: End, x: MatRef<'_, T>, columns: &mut [usize]) -> Result<()> {
    check_len(operation, "columns", columns.len(), x.rows(), "the number of rows of x")?;
    if x.cols() == 0 && x.rows() > 0 {
        return Err(Error::Argument { operation, argument: "x", problem: "has rows without entries" });
    }
    let mut has_nan = false;
    each_row([x], MatMut::new(&mut [], x.rows(), 0)?, |i, [row], _| {
        let extreme = end.of(row);
        let is_extreme = |x: &T| *x == extreme || x.is_nan() && extreme.is_nan();
        columns[i] = row.iter().position(is_extreme).unwrap_or_default();
        has_nan |= extreme.is_nan();
    });
    if !has_nan {
        return Ok(());
    }
    let inputs = [Operand::matrix("x", x).overlook(|_, x| !x.is_nan())];
    diagnose(operation, inputs, [], overflow_or_invalid)
}

fn shares<T: Float>(
    operation: &'static str,
    end: End,
    x: MatRef<'_, T>,
    dy: &[T],
    mut dx: MatMut<'_, T>,
) -> Result<()> {
    check_len(operation, "dy", dy.len(), x.rows(), "the number of rows of x")?;
    check_shape(operation, "dx", dx.shape(), x.shape(), "the shape of x")?;
    let mut finite = true;
    each_row([x], dx.reborrow(), |i, [row], dx| {
        let extreme = end.of(row);
        let ties = row.iter().filter(|&&x| x == extreme).count();
        let share = dy[i] / T::from(ties.max(1)).unwrap_or_else(T::max_value);
        finite &= row.is_empty() || share.is_finite() && !extreme.is_nan();
        let share_of = |&x: &T| match x {
            x if x.is_nan() => x,
            x if x == extreme => share,
            _ => T::zero(),
        };
        dx.iter_mut().zip(row).for_each(|(dx, x)| *dx = share_of(x));
    });
    if finite {
        return Ok(());
    }
    let inputs = [Operand::matrix("x", x).overlook(|_, x| !x.is_nan()), Operand::slice("dy", dy)];
    diagnose(operation, inputs, [Operand::matrix("dx", dx.as_ref())], overflow_or_invalid)
}
