//! Mean, variance and standard deviation of the rows of a matrix, and their gradients.
//!
//! Two passes: the mean, in two terms, and the squares of the differences from it, with their rounding errors (T. Chan,
//! G. Golub, R. LeVeque, "Algorithms for computing the sample variance", The American Statistician 37(3), 1983).

use crate::error::{Error, Result, check_len, check_shape};
use crate::finite::{Operand, Watch, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::Join;
use crate::lanes::Lanes;
use crate::math;
use crate::ops::row_norm::{Long, exponent_of};
use crate::reduce::{TwoTerm, max_abs, sum_terms};
use crate::rows::{RowFormula, RowsSeen, apply, fma};
use crate::scaled::{Scaled, ldexp, power};
use crate::simd::Simd;
use crate::sweep::{load_tail, sweep};
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
/// Within 0.51 ULP. Partial sums may overflow.
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
    forward("mean_rows", Moment::Mean, 0, x, y)
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
    let count = number::<T>(dx.cols());
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
/// Within 3 ULP of the true value, also where the mean is much larger than the deviations. A row of equal elements gives
/// 0, exactly.
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
    forward("variance_rows", Moment::Variance, options.ddof, x, y)
}

/// The gradient of [`variance_rows`]: `dx = dy 2 (x - mean) / (n - ddof)` in each row.
///
/// Within 4 ULP, but of `|x - mean| + u |mean|` where that is less (`u = 2^-48` or `2^-106`).
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
    backward("variance_rows_backward", Moment::Variance, options.ddof, x, dy, dx)
}

/// The standard deviation of each row of a matrix, the root of [`variance_rows`]; `y` has an element for each.
///
/// Within 2 ULP of the true value. Squares may over- and underflow. A row of equal elements gives 0, exactly.
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
/// std_rows(Variance::default(), MatRef::new(&[1e25, 3e25, 1e-30, 3e-30], 2, 2)?, &mut y)?;
/// assert_eq!(y, [1e25, 1e-30]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn std_rows<T: Float>(options: Variance, x: MatRef<'_, T>, y: &mut [T]) -> Result<()> {
    forward("std_rows", Moment::Std, options.ddof, x, y)
}

/// The gradient of [`std_rows`]: `dx = dy (x - mean) / ((n - ddof) std)` in each row, and 0 in a row of equal elements
/// (the subgradient of least norm).
///
/// Within 5 ULP, but of `|x - mean| + u |mean|` where that is less (`u = 2^-48` or `2^-106`).
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
    backward("std_rows_backward", Moment::Std, options.ddof, x, dy, dx)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Mean,
    Variance,
    Std,
}

fn check_cols<T>(operation: &'static str, moment: Moment, ddof: usize, x: MatRef<'_, T>) -> Result<()> {
    if x.rows() == 0 || x.cols() > ddof {
        return Ok(());
    }
    let (argument, problem) = match moment {
        Moment::Mean => ("x", "has no columns and must have one at least"),
        _ => ("ddof", "must be less than the number of columns of x"),
    };
    Err(Error::Argument { operation, argument, problem })
}

fn forward<T: Float>(
    operation: &'static str,
    moment: Moment,
    ddof: usize,
    x: MatRef<'_, T>,
    y: &mut [T],
) -> Result<()> {
    check_len(operation, "y", y.len(), x.rows(), "the number of rows of x")?;
    check_cols(operation, moment, ddof, x)?;
    if apply(MomentRow { moment, ddof }, [x], MatMut::new(y, x.rows(), 1)?)?.finite {
        return Ok(());
    }
    diagnose(operation, [Operand::matrix("x", x)], [Operand::slice("y", y)], overflow_or_invalid)
}

fn backward<T: Float>(
    operation: &'static str,
    moment: Moment,
    ddof: usize,
    x: MatRef<'_, T>,
    dy: &[T],
    mut dx: MatMut<'_, T>,
) -> Result<()> {
    check_len(operation, "dy", dy.len(), x.rows(), "the number of rows of x")?;
    check_shape(operation, "dx", dx.shape(), x.shape(), "the shape of x")?;
    check_cols(operation, moment, ddof, x)?;
    if apply(MomentBackwardRow { moment, ddof }, [x, MatRef::new(dy, x.rows(), 1)?], dx.reborrow())?.finite {
        return Ok(());
    }
    let inputs = [Operand::matrix("x", x), Operand::slice("dy", dy)];
    diagnose(operation, inputs, [Operand::matrix("dx", dx.as_ref())], overflow_or_invalid)
}

/// A count as a number.
fn number<T: Float>(n: usize) -> T {
    T::from(n).unwrap_or_else(T::max_value)
}

/// A sum over a count, in two terms.
#[inline(always)]
fn over_count<T: Float, S: Simd<T>>(simd: S, sum: TwoTerm<T>, count: usize) -> TwoTerm<T> {
    let divisor = number::<T>(count);
    // What the number lacks of a count that is too large for its digits.
    let missing = divisor.to_u64().map_or(0, |x| (count as u64).cast_signed() - x.cast_signed());
    let missing = T::from(missing).unwrap_or_else(T::zero);
    let high = sum.value();
    let low = sum.error - (high - sum.sum);
    let q = high / divisor;
    let rest = fma(simd, -q, divisor, high) + (low - q * missing);
    TwoTerm { sum: q, error: rest / divisor }.normalized()
}

impl<T: Float> TwoTerm<T> {
    fn normalized(self) -> Self {
        let sum = self.value();
        Self { sum, error: self.error - (sum - self.sum) }
    }
}

/// The mean of finite numbers times `2^-shift`, which is small enough that no sum of them overflows.
#[derive(Clone, Copy)]
struct Mean<T> {
    terms: TwoTerm<T>,
    shift: i32,
}

#[inline(always)]
fn mean<T: Float, S: Simd<T>>(simd: S, x: &[T], largest: T) -> Mean<T> {
    let headroom = (usize::BITS - x.len().leading_zeros()).cast_signed() + 1;
    let shift = if largest <= T::max_value() * power(-headroom) { 0 } else { headroom };
    let scale = Lanes::splat(simd, power(-shift));
    let sum = sum_terms(
        simd,
        [x],
        #[inline(always)]
        |[x]| (x * scale, Lanes::zero(simd)),
    );
    Mean { terms: over_count(simd, sum, x.len()), shift }
}

impl<T: Float> Mean<T> {
    /// `x - mean` in two terms, times `2^-shift`.
    #[inline(always)]
    fn difference<S: Simd<T>>(self, x: Lanes<T, S>) -> (Lanes<T, S>, Lanes<T, S>) {
        let (high, low) = (x * x.all(power(-self.shift))).two_sum(x.all(-self.terms.sum));
        high.two_sum(low - x.all(self.terms.error))
    }
}

/// The variance of finite numbers that are not all equal.
#[inline(always)]
fn variance<T: Float, S: Simd<T>>(simd: S, x: &[T], largest: T, mean: Mean<T>, ddof: usize) -> Long<T> {
    let exponent = exponent_of(largest);
    let scale = Lanes::splat(simd, power(mean.shift - exponent));
    // What fills up a tail has no part in the mean: so a tail is summed lane by lane.
    let (whole, tail) = x.split_at(x.len() - x.len() % T::LANES);
    let mut squares = sum_terms(
        simd,
        [whole],
        #[inline(always)]
        |[x]| square(mean.difference(x), scale),
    );
    if let Some(&first) = tail.first() {
        let (sums, errors) = square(mean.difference(load_tail(simd, tail, first)), scale);
        let (sums, errors) = (sums.store(), errors.store());
        for (&sum, &error) in sums.as_ref().iter().zip(errors.as_ref()).take(tail.len()) {
            squares = squares.join(TwoTerm { sum, error });
        }
    }
    Long { terms: over_count(simd, squares, x.len() - ddof), exponent: 2 * exponent }
}

/// The square of a sum of two terms times a scale.
#[inline(always)]
fn square<T: Float, S: Simd<T>>(
    (high, low): (Lanes<T, S>, Lanes<T, S>),
    scale: Lanes<T, S>,
) -> (Lanes<T, S>, Lanes<T, S>) {
    let (high, low) = (high * scale, low * scale);
    let (square, error) = high.two_mul(high);
    (square, (high + high).mul_add(low, error))
}

fn all_equal<T: Float>(x: &[T]) -> bool {
    x.windows(2).all(|x| x[0] == x[1])
}

/// A moment of a row.
#[derive(Clone, Copy, Debug)]
pub struct MomentRow {
    moment: Moment,
    ddof: usize,
}

impl<T: Float> RowFormula<T, 1> for MomentRow {
    const WORK: usize = 3;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, [x]: [&[T]; 1], y: &mut [T]) -> RowsSeen {
        let is_mean = self.moment == Moment::Mean;
        let largest = max_abs(simd, x);
        let value = if !largest.is_finite() {
            if is_mean { x.iter().fold(T::zero(), |sum, &x| sum + x) } else { T::nan() }
        } else if all_equal(x) {
            if is_mean { x[0] } else { T::zero() }
        } else {
            let mean = mean(simd, x, largest);
            match self.moment {
                Moment::Mean => ldexp(mean.terms.value(), mean.shift),
                Moment::Variance => variance(simd, x, largest, mean, self.ddof).scaled().value(),
                Moment::Std => variance(simd, x, largest, mean, self.ddof).sqrt(simd).scaled().value(),
            }
        };
        y.fill(value);
        RowsSeen::finite(value.is_finite())
    }
}

/// The gradient of a variance or a standard deviation.
#[derive(Clone, Copy, Debug)]
pub struct MomentBackwardRow {
    moment: Moment,
    ddof: usize,
}

impl<T: Float> RowFormula<T, 2> for MomentBackwardRow {
    const WORK: usize = 4;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, [x, g]: [&[T]; 2], dx: &mut [T]) -> RowsSeen {
        let g = g[0];
        let largest = max_abs(simd, x);
        if !largest.is_finite() || !g.is_finite() {
            dx.fill(T::nan());
            return RowsSeen::finite(false);
        }
        if all_equal(x) {
            dx.fill(T::zero());
            return RowsSeen::finite(true);
        }
        let mean = mean(simd, x, largest);
        let factor = Scaled::new(g, 0).div(Scaled::new(number(x.len() - self.ddof), 0));
        let factor = match self.moment {
            Moment::Std => factor.div(variance(simd, x, largest, mean, self.ddof).sqrt(simd).scaled()),
            _ => Scaled { exponent: factor.exponent + 1, ..factor },
        };
        let exponent = T::from(factor.exponent + mean.shift).unwrap_or_else(T::nan);
        let (m, n) = (Lanes::splat(simd, factor.mantissa), Lanes::splat(simd, exponent));
        let mut watch = Watch::new(simd);
        sweep(
            simd,
            [x],
            [dx],
            #[inline(always)]
            |[x], [_]| {
                let dx = math::scaled_product(mean.difference(x).0, m, n);
                watch.see(dx);
                [dx]
            },
        );
        RowsSeen::finite(watch.all_finite())
    }
}
