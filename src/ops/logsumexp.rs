//! Log-sum-exp along the rows of a matrix, and its gradient.

use alloc::vec::Vec;

use crate::error::{Result, check_len, check_shape};
use crate::finite::{Index, Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::logits::{LogitFormula, Logits, apply_to_logits, row_exp, row_normalize};
use crate::rows::RowsSeen;
use crate::simd::Simd;
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
    check_len("logsumexp", "y", y.len(), x.rows(), "the number of rows of x")?;
    if apply_to_logits(LogSumExpRow, Logits::plain(Some(x)), y, None)?.finite {
        return Ok(());
    }
    let inputs = [Operand::matrix("x", x).overlook(|_, x| x == T::neg_infinity())];
    let outputs = [Operand::slice("y", y).overlook(|_, y| y == T::neg_infinity())];
    diagnose("logsumexp", inputs, outputs, overflow_or_invalid)
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
pub fn logsumexp_backward<T: Float>(x: MatRef<'_, T>, dy: &[T], mut dx: MatMut<'_, T>) -> Result<()> {
    const NAME: &str = "logsumexp_backward";
    check_len(NAME, "dy", dy.len(), x.rows(), "the number of rows of x")?;
    check_shape(NAME, "dx", dx.shape(), x.shape(), "the shape of x")?;
    let formula = LogSumExpBackwardRow { dy };
    if apply_to_logits(formula, Logits::plain(Some(x)), &mut [], Some(dx.reborrow()))?.finite {
        return Ok(());
    }
    let is_empty = |i: usize| x.row_iter(i).all(|&x| x == T::neg_infinity());
    let inputs = [
        Operand::matrix("x", x).overlook(|_, x| x == T::neg_infinity()),
        Operand::slice("dy", dy).overlook(move |index, _| matches!(index, Index::At(i) if is_empty(i))),
    ];
    diagnose(NAME, inputs, [Operand::matrix("dx", dx.as_ref())], overflow_or_invalid)
}

/// `ln(sum(exp(x)))`.
#[derive(Clone, Copy, Debug)]
pub struct LogSumExpRow;

impl<T: Float> LogitFormula<T> for LogSumExpRow {
    const WORK: usize = 6;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, _: usize, x: &[T], _: &mut [T], value: &mut T, _: &mut Vec<T>) -> RowsSeen {
        let row = row_exp(simd, x, &mut []);
        *value = row.max + row.log(simd);
        RowsSeen::finite(value.is_finite() || row.is_empty())
    }
}

/// `dy softmax(x)`.
#[derive(Clone, Copy, Debug)]
pub struct LogSumExpBackwardRow<'a, T> {
    dy: &'a [T],
}

impl<T: Float> LogitFormula<T> for LogSumExpBackwardRow<'_, T> {
    const WORK: usize = 6;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, i: usize, x: &[T], dx: &mut [T], _: &mut T, _: &mut Vec<T>) -> RowsSeen {
        let row = row_exp(simd, x, dx);
        if row.is_empty() {
            dx.fill(T::zero());
            return RowsSeen { finite: true, empty: 1 };
        }
        row_normalize(simd, x, row, self.dy[i], dx);
        RowsSeen::finite(row.is_plain() && self.dy[i].is_finite())
    }
}
