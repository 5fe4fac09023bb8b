//! The largest and the smallest entry of each row of a matrix, where they are, and their gradients.

use crate::error::{Error, Result, check_len, check_shape};
use crate::finite::{Index, Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::outline;
use crate::lanes::Lanes;
use crate::rows::{RowFormula, RowsSeen, apply, each_row};
use crate::simd::Simd;
use crate::sweep::{Elementwise, Formula, Guard, load_tail};
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

    /// The extreme entry of a row; NaN if there is one.
    #[inline(always)]
    fn of<T: Float, S: Simd<T>>(self, simd: S, row: &[T]) -> T {
        // The smallest number is the largest with the other sign.
        let sign = Lanes::splat(simd, if self == Self::Largest { T::zero() } else { -T::zero() });
        let mut largest = Lanes::splat(simd, T::neg_infinity());
        let mut are_numbers = largest.eq(largest);
        let (blocks, tail) = T::blocks(row);
        let (groups, rest) = blocks.as_chunks();
        for [a, b, c, d] in groups {
            let [a, b, c, d] = [Lanes::load(simd, a), Lanes::load(simd, b), Lanes::load(simd, c), Lanes::load(simd, d)];
            are_numbers = are_numbers & a.eq(a) & b.eq(b) & c.eq(c) & d.eq(d);
            // Of equal ones the first, as if they came one by one.
            let (first, second) = ((b ^ sign).larger(a ^ sign), (d ^ sign).larger(c ^ sign));
            largest = second.larger(first).larger(largest);
        }
        for i in 0..=rest.len() {
            let x = match rest.get(i) {
                Some(block) => Lanes::load(simd, block),
                None if tail.is_empty() => break,
                None => load_tail(simd, tail, self.start()),
            };
            are_numbers = are_numbers & x.eq(x);
            largest = (x ^ sign).larger(largest);
        }
        if !are_numbers.all() {
            return T::nan();
        }
        let largest = largest.store().as_ref().iter().fold(T::neg_infinity(), |a, &b| if a < b { b } else { a });
        if self == Self::Largest { largest } else { -largest }
    }
}

/// Writes the extreme entry of a row, or the gradient of it.
#[derive(Clone, Copy, Debug)]
pub struct ExtremeRow {
    end: End,
    gradient: bool,
}

impl<T: Float> RowFormula<T, 2> for ExtremeRow {
    const WORK: usize = 1;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, [x, dy]: [&[T]; 2], y: &mut [T]) -> RowsSeen {
        let extreme = self.end.of(simd, x);
        if !self.gradient {
            y[0] = extreme;
            return RowsSeen::finite(extreme.is_finite() || extreme == self.end.start());
        }
        // Most often there is one such entry: others show when the gradient is written.
        let mut ties = 1;
        loop {
            let share = dy[0] / T::from(ties).unwrap_or_else(T::max_value);
            let formula = ShareOut { extreme, share };
            let seen = outline(simd, Elementwise { formula, inputs: [x], outputs: [&mut *y] });
            if seen.guarded <= ties {
                return RowsSeen::finite(seen.finite);
            }
            ties = seen.guarded;
        }
    }
}

/// A share where the entry is the extreme one, which is counted; else 0, or the NaN.
#[derive(Clone, Copy, Debug)]
struct ShareOut<T> {
    extreme: T,
    share: T,
}

impl<T: Float> Formula<T, 1, 1> for ShareOut<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [x]: [Lanes<T, S>; 1],
        _: [Lanes<T, S>; 1],
        guard: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 1] {
        let is_extreme = x.eq(x.all(self.extreme));
        guard.note(is_extreme);
        let other = x.eq(x).select(x.all(T::zero()), x);
        [is_extreme.select(x.all(self.share), other)]
    }
}

/// The extreme entry of each row; whether there is nothing to report.
fn write_extremes<T: Float>(end: End, x: MatRef<'_, T>, y: &mut [T]) -> Result<bool> {
    let zero = [T::zero()];
    let no_gradient = MatRef::with_strides(&zero, x.rows(), 1, 0, 1)?;
    let formula = ExtremeRow { end, gradient: false };
    Ok(apply(formula, [x, no_gradient], MatMut::new(y, x.rows(), 1)?)?.finite)
}

fn extremes<T: Float>(operation: &'static str, end: End, x: MatRef<'_, T>, y: &mut [T]) -> Result<()> {
    check_len(operation, "y", y.len(), x.rows(), "the number of rows of x")?;
    if write_extremes(end, x, y)? {
        return Ok(());
    }
    let is_fault = |y: T| !y.is_finite() && y != end.start();
    let is_extreme = |index, x: T| matches!(index, Index::Cell(i, _) if is_fault(y[i]) && (x == y[i] || x.is_nan()));
    let inputs = [Operand::matrix("x", x).overlook(|index, x| !is_extreme(index, x))];
    diagnose(operation, inputs, [], overflow_or_invalid)
}

/// Rows whose extreme entries are found before their places are.
const ROWS_TOGETHER: usize = 64;

fn places<T: Float>(operation: &'static str, end: End, x: MatRef<'_, T>, columns: &mut [usize]) -> Result<()> {
    check_len(operation, "columns", columns.len(), x.rows(), "the number of rows of x")?;
    if x.cols() == 0 && x.rows() > 0 {
        return Err(Error::Argument { operation, argument: "x", problem: "has rows without entries" });
    }
    let mut has_nan = false;
    let mut extremes = [T::zero(); ROWS_TOGETHER];
    for (k, columns) in columns.chunks_mut(ROWS_TOGETHER).enumerate() {
        let (x, extremes) = (x.rows_from(k * ROWS_TOGETHER).rows_before(columns.len()), &mut extremes[..columns.len()]);
        write_extremes(end, x, extremes)?;
        has_nan |= extremes.iter().any(|x| x.is_nan());
        each_row([x], MatMut::new(&mut [], x.rows(), 0)?, |i, [row], _| columns[i] = place(extremes[i], row));
    }
    if !has_nan {
        return Ok(());
    }
    let inputs = [Operand::matrix("x", x).overlook(|_, x| !x.is_nan())];
    diagnose(operation, inputs, [], overflow_or_invalid)
}

/// Where the extreme entry of a row, or the first NaN, is.
fn place<T: Float>(extreme: T, row: &[T]) -> usize {
    if extreme.is_nan() {
        return row.iter().position(|x| x.is_nan()).unwrap_or_default();
    }
    // Block by block first: a search that does not stop in a block becomes vector instructions.
    let (blocks, _) = T::blocks(row);
    let holds_it = |block: &T::Block| block.as_ref().iter().fold(false, |found, &x| found | (x == extreme));
    let start = blocks.iter().position(holds_it).unwrap_or(blocks.len()) * T::LANES;
    start + row[start..].iter().position(|&x| x == extreme).unwrap_or_default()
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
    let upstream = MatRef::new(dy, x.rows(), 1)?;
    if apply(ExtremeRow { end, gradient: true }, [x, upstream], dx.reborrow())?.finite {
        return Ok(());
    }
    let inputs = [Operand::matrix("x", x).overlook(|_, x| !x.is_nan()), Operand::slice("dy", dy)];
    diagnose(operation, inputs, [Operand::matrix("dx", dx.as_ref())], overflow_or_invalid)
}
