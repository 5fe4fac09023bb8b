//! Norms of vectors and of the rows of matrices, normalisation and cosine similarity, and their gradients.
//!
//! Rows are scaled by a power of two so that the largest element is near 1, and summed with their rounding errors; what
//! leaves the range on the way is carried with an exponent of its own.

use crate::error::{Error, Result, check_len, check_shape};
use crate::finite::{Operand, Watch, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::lanes::Lanes;
use crate::math;
use crate::reduce::{TwoTerm, max_abs, sum_terms};
use crate::rows::{RowFormula, RowsSeen, apply, fma};
use crate::scaled::{Scaled, power};
use crate::simd::Simd;
use crate::sweep::{each_block, sweep};
use crate::view::{MatMut, MatRef};

/// The p-norm of a vector: `(|x[0]|^p + |x[1]|^p + ...)^(1/p)` for any `p > 0`; the largest magnitude for `p = +Inf`.
///
/// Within 1 ULP of the true value: `p = 1` and `p = 2` in sums that keep their rounding errors, other `p` by exponentials
/// and logarithms in two terms (for `p >= 1/16`; below, `1/(16 p)` times as much). Nothing over- or underflows on the
/// way. The norm of nothing is 0.
///
/// Gradient: [`lp_norm_backward`]. Of the rows of a matrix: [`lp_norm_rows`].
///
/// # Errors
/// [`Error::Argument`] unless `p > 0`; [`Error::NonFinite`] if an element is, or if the norm itself overflows.
///
/// ```
/// use nanproof::lp_norm;
///
/// let x = [3e-30_f32, -4e-30];
/// assert_eq!((lp_norm(1.0, &x)?, lp_norm(2.0, &x)?, lp_norm(f32::INFINITY, &x)?), (7e-30, 5e-30, 4e-30));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn lp_norm<T: Float>(p: T, x: &[T]) -> Result<T> {
    const NAME: &str = "lp_norm";
    check_exponent(NAME, p)?;
    let mut y = [T::zero()];
    if !apply(LpNormRow { p }, [MatRef::new(x, 1, x.len())?], MatMut::new(&mut y, 1, 1)?)?.finite {
        diagnose(NAME, [Operand::slice("x", x)], [Operand::scalar("norm", y[0])], overflow_or_invalid)?;
    }
    Ok(y[0])
}

/// The gradient of [`lp_norm`]: `dx = g sign(x) (|x| / norm)^(p-1)`, and 0 where `x` is 0 (the subgradient of least norm).
///
/// For `p = +Inf` the elements of the largest magnitude share `g` equally. Within 3 ULP, for `p` up to 1000. Neither the
/// norm nor a power of an element needs to be representable.
///
/// # Errors
/// [`Error::Argument`] unless `p > 0`; [`Error::Shape`] if the lengths differ; [`Error::NonFinite`] if an element of `x`,
/// `g` or a result is not finite.
///
/// ```
/// let mut dx = [0.0_f32; 3];
/// nanproof::lp_norm_backward(f32::INFINITY, &[2.0, 1.0, -2.0], 1.0, &mut dx)?;
/// assert_eq!(dx, [0.5, 0.0, -0.5]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn lp_norm_backward<T: Float>(p: T, x: &[T], g: T, dx: &mut [T]) -> Result<()> {
    const NAME: &str = "lp_norm_backward";
    check_exponent(NAME, p)?;
    check_len(NAME, "dx", dx.len(), x.len(), "the length of x")?;
    let (row, len) = ([g], x.len());
    let inputs = [MatRef::new(x, 1, len)?, MatRef::new(&row, 1, 1)?];
    if apply(LpNormBackwardRow { p }, inputs, MatMut::new(dx, 1, len)?)?.finite {
        return Ok(());
    }
    let inputs = [Operand::slice("x", x), Operand::scalar("g", g)];
    diagnose(NAME, inputs, [Operand::slice("dx", dx)], overflow_or_invalid)
}

/// The [`lp_norm`] of each row of a matrix; `y` has an element for each.
///
/// # Errors
/// As [`lp_norm`]; [`Error::Shape`] if `y` does not fit.
///
/// ```
/// use nanproof::{MatRef, lp_norm_rows};
///
/// let mut y = [0.0_f64; 2];
/// lp_norm_rows(2.0, MatRef::new(&[3.0, 4.0, 0.0, -5.0], 2, 2)?, &mut y)?;
/// assert_eq!(y, [5.0, 5.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn lp_norm_rows<T: Float>(p: T, x: MatRef<'_, T>, y: &mut [T]) -> Result<()> {
    const NAME: &str = "lp_norm_rows";
    check_exponent(NAME, p)?;
    check_len(NAME, "y", y.len(), x.rows(), "the number of rows of x")?;
    if apply(LpNormRow { p }, [x], MatMut::new(y, x.rows(), 1)?)?.finite {
        return Ok(());
    }
    diagnose(NAME, [Operand::matrix("x", x)], [Operand::slice("y", y)], overflow_or_invalid)
}

/// The gradient of [`lp_norm_rows`]: as [`lp_norm_backward`], with an element of `dy` for each row.
///
/// # Errors
/// As [`lp_norm_backward`].
///
/// ```
/// use nanproof::{MatMut, MatRef, lp_norm_rows_backward};
///
/// let mut dx = [0.0_f64; 4];
/// let x = MatRef::new(&[0.0, 0.0, 0.0, -5.0], 2, 2)?;
/// lp_norm_rows_backward(2.0, x, &[1.0, 2.0], MatMut::new(&mut dx, 2, 2)?)?;
/// assert_eq!(dx, [0.0, 0.0, 0.0, -2.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn lp_norm_rows_backward<T: Float>(p: T, x: MatRef<'_, T>, dy: &[T], mut dx: MatMut<'_, T>) -> Result<()> {
    const NAME: &str = "lp_norm_rows_backward";
    check_exponent(NAME, p)?;
    check_len(NAME, "dy", dy.len(), x.rows(), "the number of rows of x")?;
    check_shape(NAME, "dx", dx.shape(), x.shape(), "the shape of x")?;
    if apply(LpNormBackwardRow { p }, [x, MatRef::new(dy, x.rows(), 1)?], dx.reborrow())?.finite {
        return Ok(());
    }
    let inputs = [Operand::matrix("x", x), Operand::slice("dy", dy)];
    diagnose(NAME, inputs, [Operand::matrix("dx", dx.as_ref())], overflow_or_invalid)
}

/// Each row over its L2 norm: `y = x / max(|x|, eps)`. A row of zeros gives zeros.
///
/// Within 1 ULP of the true value. Nothing over- or underflows on the way.
///
/// Gradient: [`normalize_backward`].
///
/// # Errors
/// [`Error::Argument`] if `eps` is negative or not finite, or not 0 and subnormal: it must survive in the type;
/// [`Error::Shape`] if the shapes differ; [`Error::NonFinite`] if an element of `x` is not finite or a result is not.
///
/// ```
/// use nanproof::{MatMut, MatRef, normalize};
///
/// let mut y = [0.0_f32; 4];
/// normalize(0.0, MatRef::new(&[3e30, -4e30, 0.0, 0.0], 2, 2)?, MatMut::new(&mut y, 2, 2)?)?;
/// assert_eq!(y, [0.6, -0.8, 0.0, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn normalize<T: Float>(eps: T, x: MatRef<'_, T>, mut y: MatMut<'_, T>) -> Result<()> {
    const NAME: &str = "normalize";
    check_eps(NAME, eps)?;
    check_shape(NAME, "y", y.shape(), x.shape(), "the shape of x")?;
    if apply(NormalizeRow { eps }, [x], y.reborrow())?.finite {
        return Ok(());
    }
    diagnose(NAME, [Operand::matrix("x", x)], [Operand::matrix("y", y.as_ref())], overflow_or_invalid)
}

/// The gradient of [`normalize`]: `dx = (dy - y sum(y dy)) / |x|` in rows whose norm is above `eps`, `dy / eps` in others,
/// and 0 in rows of zeros without `eps`.
///
/// The error is at most `u (4 |dy| + 9 |y sum(y dy)|) / |x|` with `u = 2^-24` or `2^-53`. Nothing over- or underflows on
/// the way.
///
/// # Errors
/// As [`normalize`].
///
/// ```
/// use nanproof::{MatMut, MatRef, normalize_backward};
///
/// let mut dx = [0.0_f32; 4];
/// let (x, dy) = ([0.0, 2.0, 0.0, 0.0], [1.0; 4]);
/// normalize_backward(0.0, MatRef::new(&x, 2, 2)?, MatRef::new(&dy, 2, 2)?, MatMut::new(&mut dx, 2, 2)?)?;
/// assert_eq!(dx, [0.5, 0.0, 0.0, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn normalize_backward<T: Float>(eps: T, x: MatRef<'_, T>, dy: MatRef<'_, T>, mut dx: MatMut<'_, T>) -> Result<()> {
    const NAME: &str = "normalize_backward";
    check_eps(NAME, eps)?;
    check_shape(NAME, "dy", dy.shape(), x.shape(), "the shape of x")?;
    check_shape(NAME, "dx", dx.shape(), x.shape(), "the shape of x")?;
    if apply(NormalizeBackwardRow { eps }, [x, dy], dx.reborrow())?.finite {
        return Ok(());
    }
    let inputs = [Operand::matrix("x", x), Operand::matrix("dy", dy)];
    diagnose(NAME, inputs, [Operand::matrix("dx", dx.as_ref())], overflow_or_invalid)
}

/// The cosine of the angle between each row of `a` and the same row of `b`: `y = sum(a b) / (|a| |b|)`, and 0 if a row is
/// all zeros.
///
/// The error is at most `1.1 u |y| + n^2 u^2` with `u = 2^-24` or `2^-53` and rows `n` long; the result is never beyond ±1.
/// Nothing over- or underflows on the way.
///
/// Gradient: [`cosine_similarity_backward`].
///
/// # Errors
/// [`Error::Shape`] if the shapes differ or `y` does not fit; [`Error::NonFinite`] if an element is not finite.
///
/// ```
/// use nanproof::{MatRef, cosine_similarity};
///
/// let mut y = [0.0_f32];
/// cosine_similarity(MatRef::new(&[3e38, 0.0], 1, 2)?, MatRef::new(&[3e38, 3e38], 1, 2)?, &mut y)?;
/// assert_eq!(y, [0.70710677]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn cosine_similarity<T: Float>(a: MatRef<'_, T>, b: MatRef<'_, T>, y: &mut [T]) -> Result<()> {
    const NAME: &str = "cosine_similarity";
    check_shape(NAME, "b", b.shape(), a.shape(), "the shape of a")?;
    check_len(NAME, "y", y.len(), a.rows(), "the number of rows of a")?;
    if apply(CosineRow, [a, b], MatMut::new(y, a.rows(), 1)?)?.finite {
        return Ok(());
    }
    let inputs = [Operand::matrix("a", a), Operand::matrix("b", b)];
    diagnose(NAME, inputs, [Operand::slice("y", y)], overflow_or_invalid)
}

/// The gradients of [`cosine_similarity`]: `da = dy (b / |b| - y a / |a|) / |a|`, and `db` likewise; both 0 if a row is all
/// zeros.
///
/// The error is at most `8 u |dy| (|b| / |b|_2 + |y a| / |a|_2) / |a|_2` in each element, with `u = 2^-24` or `2^-53`.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ or `dy` does not fit; [`Error::NonFinite`] if an element is not finite or a
/// result overflows.
///
/// ```
/// use nanproof::{MatMut, MatRef, cosine_similarity_backward};
///
/// let (mut da, mut db) = ([0.0_f32; 2], [0.0; 2]);
/// let (a, b) = (MatRef::new(&[2.0, 0.0], 1, 2)?, MatRef::new(&[0.0, 4.0], 1, 2)?);
/// let (da_view, db_view) = (MatMut::new(&mut da, 1, 2)?, MatMut::new(&mut db, 1, 2)?);
/// cosine_similarity_backward(a, b, &[1.0], da_view, db_view)?;
/// assert_eq!((da, db), ([0.0, 0.5], [0.25, 0.0]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn cosine_similarity_backward<T: Float>(
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    dy: &[T],
    mut da: MatMut<'_, T>,
    mut db: MatMut<'_, T>,
) -> Result<()> {
    const NAME: &str = "cosine_similarity_backward";
    check_shape(NAME, "b", b.shape(), a.shape(), "the shape of a")?;
    check_len(NAME, "dy", dy.len(), a.rows(), "the number of rows of a")?;
    check_shape(NAME, "da", da.shape(), a.shape(), "the shape of a")?;
    check_shape(NAME, "db", db.shape(), a.shape(), "the shape of a")?;
    let factor = MatRef::new(dy, a.rows(), 1)?;
    let first = apply(CosineBackwardRow, [a, b, factor], da.reborrow())?;
    let second = apply(CosineBackwardRow, [b, a, factor], db.reborrow())?;
    if first.finite && second.finite {
        return Ok(());
    }
    let inputs = [Operand::matrix("a", a), Operand::matrix("b", b), Operand::slice("dy", dy)];
    let outputs = [Operand::matrix("da", da.as_ref()), Operand::matrix("db", db.as_ref())];
    diagnose(NAME, inputs, outputs, overflow_or_invalid)
}

fn check_exponent<T: Float>(operation: &'static str, p: T) -> Result<()> {
    if p > T::zero() {
        return Ok(());
    }
    Err(Error::Argument { operation, argument: "p", problem: "must be above 0" })
}

fn check_eps<T: Float>(operation: &'static str, eps: T) -> Result<()> {
    if eps.is_zero() || (eps.is_normal() && eps > T::zero()) {
        return Ok(());
    }
    Err(Error::Argument { operation, argument: "eps", problem: "must be 0, or positive and finite and not subnormal" })
}

/// A number in two terms, times a power of two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Long<T> {
    pub(crate) terms: TwoTerm<T>,
    pub(crate) exponent: i32,
}

impl<T: Float> Long<T> {
    /// The number, rounded.
    pub(crate) fn scaled(self) -> Scaled<T> {
        Scaled::new(self.terms.value(), self.exponent)
    }

    /// With a first term between 1 and 2.
    pub(crate) fn normalized(self) -> Self {
        let TwoTerm { sum, error } = self.terms;
        let (high, low) = (sum + error, error - ((sum + error) - sum));
        let own = Scaled::new(high, 0);
        let low = if own.mantissa.is_finite() { crate::scaled::ldexp(low, -own.exponent) } else { T::zero() };
        Self { terms: TwoTerm { sum: own.mantissa, error: low }, exponent: self.exponent + own.exponent }
    }

    /// The square root; of a number whose exponent is even.
    #[inline(always)]
    pub(crate) fn sqrt<S: Simd<T>>(self, simd: S) -> Self {
        let TwoTerm { sum, error } = self.terms;
        let root = (sum + error).sqrt();
        let rest = fma(simd, -root, root, sum) + error;
        let low = if root.is_normal() { rest / (root + root) } else { T::zero() };
        Self { terms: TwoTerm { sum: root, error: low }, exponent: self.exponent / 2 }
    }
}

/// The power of two that brings the largest magnitude of a row near 1, or as near as one factor can.
pub(crate) fn exponent_of<T: Float>(largest: T) -> i32 {
    Scaled::new(largest, 0).exponent.clamp(2 - T::BIAS, T::BIAS - 2)
}

/// The L2 norm of a row of finite numbers whose largest magnitude is not 0.
#[inline(always)]
pub(crate) fn l2<T: Float, S: Simd<T>>(simd: S, x: &[T], largest: T) -> Long<T> {
    let exponent = exponent_of(largest);
    let scale = Lanes::splat(simd, power(-exponent));
    let squares = sum_terms(
        simd,
        [x],
        #[inline(always)]
        |[x]| {
            let x = x * scale;
            x.two_mul(x)
        },
    );
    Long { terms: squares, exponent: 2 * exponent }.sqrt(simd).normalized()
}

/// `y = x` over a norm, rounded once.
#[inline(always)]
fn divide_by<T: Float, S: Simd<T>>(simd: S, x: &[T], norm: Long<T>, y: &mut [T]) -> bool {
    let TwoTerm { sum, error } = norm.terms;
    let (divisor, divisor_low) = (Lanes::splat(simd, sum), Lanes::splat(simd, error));
    let inverse = Lanes::splat(simd, T::one() / sum);
    let exponent = Lanes::splat(simd, T::from(norm.exponent).unwrap_or_else(T::nan));
    let mut watch = Watch::new(simd);
    sweep(
        simd,
        [x],
        [y],
        #[inline(always)]
        |[x], [_]| {
            let (m, n) = math::split_exponent(x);
            let q = m * inverse;
            let rest = (-q).mul_add(divisor_low, (-q).mul_add(divisor, m));
            let y = math::scale(rest.mul_add(inverse, q), n - exponent);
            watch.see(y);
            [y]
        },
    );
    watch.all_finite()
}

/// `y = p factor`, or `p factor - x other`, with factors of any size; whether it is finite.
#[inline(always)]
pub(crate) fn combine<T: Float, S: Simd<T>>(
    simd: S,
    (p, factor): (&[T], Scaled<T>),
    (x, other): (&[T], Scaled<T>),
    y: &mut [T],
) -> bool {
    let number = |x: i32| Lanes::splat(simd, T::from(x).unwrap_or_else(T::nan));
    let (m, other_m) = (Lanes::splat(simd, factor.mantissa), Lanes::splat(simd, other.mantissa));
    let mut finite = false;
    // A difference may be representable though its parts are not: then from quarters of them.
    for shift in [0, 2] {
        if finite {
            break;
        }
        let (n, other_n) = (number(factor.exponent - shift), number(other.exponent - shift));
        let unscale = Lanes::splat(simd, power(shift));
        let mut watch = Watch::new(simd);
        sweep(
            simd,
            [p, x],
            [&mut *y],
            #[inline(always)]
            |[p, x], [_]| {
                let difference = math::scaled_product(p, m, n) - math::scaled_product(x, other_m, other_n);
                let y = difference * unscale;
                watch.see(y);
                [y]
            },
        );
        finite = watch.all_finite();
    }
    finite
}

/// The logarithm of a sum in two terms that is at least 1.
#[inline(always)]
fn ln_of<T: Float, S: Simd<T>>(simd: S, x: TwoTerm<T>) -> (Lanes<T, S>, Lanes<T, S>) {
    let (high, low) = Lanes::splat(simd, x.sum).two_sum(Lanes::splat(simd, x.error));
    math::ln_parts(high, low)
}

/// `(a + b)(d + e)` in two terms; an infinite product has none but the first.
#[inline(always)]
fn product<T: Float, S: Simd<T>>(
    (a, b): (Lanes<T, S>, Lanes<T, S>),
    (d, e): (Lanes<T, S>, Lanes<T, S>),
) -> (Lanes<T, S>, Lanes<T, S>) {
    let (high, low) = a.two_mul(d);
    let (sum, rest) = high.fast_two_sum(a.mul_add(e, b.mul_add(d, low)));
    let is_finite = high.abs().lt(a.all(T::infinity()));
    (is_finite.select(sum, high), is_finite.select(rest, a.all(T::zero())))
}

/// `ln(|x| / largest)` in two terms, 0 at the largest.
#[inline(always)]
fn log_ratio<T: Float, S: Simd<T>>(x: Lanes<T, S>, (hi, lo): (Lanes<T, S>, Lanes<T, S>)) -> (Lanes<T, S>, Lanes<T, S>) {
    let (x_hi, x_lo) = math::ln_parts(x.abs(), x.all(T::zero()));
    let is_finite = x_hi.abs().lt(x.all(T::infinity()));
    let (high, low) = x_hi.two_sum(-hi);
    let (sum, rest) = high.fast_two_sum(low + (x_lo - lo));
    (is_finite.select(sum, x_hi), is_finite.select(rest, x.all(T::zero())))
}

/// `sum((|x| / largest)^p)` and the logarithm of `largest`, both in two terms.
#[inline(always)]
fn power_sum<T: Float, S: Simd<T>>(simd: S, p: T, x: &[T], largest: T) -> (TwoTerm<T>, (Lanes<T, S>, Lanes<T, S>)) {
    let (p, zero) = (Lanes::splat(simd, p), Lanes::zero(simd));
    let log_largest = math::ln_parts(Lanes::splat(simd, largest), zero);
    let mut sum = crate::reduce::Accumulator::new(simd);
    each_block(
        simd,
        x,
        T::zero(),
        #[inline(always)]
        |x| {
            let (hi, lo) = product((p, zero), log_ratio(x, log_largest));
            let [m, low, n] = math::exp_terms(hi, lo);
            let is_zero = x.eq(zero);
            let (m, low) = (is_zero.select(zero, m), is_zero.select(zero, low));
            sum.add_with_error((math::scale(m, n), math::scale(low, n)));
        },
    );
    (sum.total(), log_largest)
}

/// The p-norm.
#[derive(Clone, Copy, Debug)]
pub struct LpNormRow<T> {
    p: T,
}

impl<T: Float> RowFormula<T, 1> for LpNormRow<T> {
    const WORK: usize = 4;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, [x]: [&[T]; 1], y: &mut [T]) -> RowsSeen {
        let largest = max_abs(simd, x);
        let (p, two) = (self.p, T::one() + T::one());
        let norm = if p.is_infinite() || largest.is_zero() || !largest.is_finite() {
            largest
        } else if p == T::one() {
            let exponent = exponent_of(largest);
            let scale = Lanes::splat(simd, power(-exponent));
            let sum = sum_terms(
                simd,
                [x],
                #[inline(always)]
                |[x]| (x.abs() * scale, Lanes::zero(simd)),
            );
            Scaled::new(sum.value(), exponent).value()
        } else if p == two {
            l2(simd, x, largest).scaled().value()
        } else {
            let (sum, _) = power_sum(simd, p, x, largest);
            let [m, low, n] = root(simd, p, sum);
            let own = Scaled::new(largest, 0);
            let mantissa = Lanes::splat(simd, own.mantissa);
            let exponent = Lanes::splat(simd, T::from(own.exponent).unwrap_or_else(T::nan));
            math::scale(mantissa.mul_add(m, mantissa * low), n + exponent).first()
        };
        y.fill(norm);
        RowsSeen::finite(norm.is_finite())
    }
}

/// `sum^(1/p)`, as `(high + low) 2^n`.
#[inline(always)]
fn root<T: Float, S: Simd<T>>(simd: S, p: T, sum: TwoTerm<T>) -> [Lanes<T, S>; 3] {
    let (hi, lo) = log_of_root(simd, p, sum);
    math::exp_terms(hi, lo)
}

/// `ln(sum) / p` in two terms.
#[inline(always)]
fn log_of_root<T: Float, S: Simd<T>>(simd: S, p: T, sum: TwoTerm<T>) -> (Lanes<T, S>, Lanes<T, S>) {
    let p = Lanes::splat(simd, p);
    let (hi, lo) = ln_of(simd, sum);
    let q = hi / p;
    let rest = ((-q).mul_add(p, hi) + lo) / p;
    let is_finite = q.abs().lt(q.all(T::infinity()));
    let (sum, low) = q.fast_two_sum(rest);
    (is_finite.select(sum, q), is_finite.select(low, q.all(T::zero())))
}

/// The gradient of the p-norm.
#[derive(Clone, Copy, Debug)]
pub struct LpNormBackwardRow<T> {
    p: T,
}

impl<T: Float> RowFormula<T, 2> for LpNormBackwardRow<T> {
    const WORK: usize = 5;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, [x, g]: [&[T]; 2], dx: &mut [T]) -> RowsSeen {
        let (p, g) = (self.p, g[0]);
        let largest = max_abs(simd, x);
        if !largest.is_finite() {
            dx.fill(T::nan());
            return RowsSeen::finite(false);
        }
        if largest.is_zero() {
            dx.fill(T::zero());
            return RowsSeen::finite(g.is_finite());
        }
        if p == T::one() + T::one() {
            let factor = Scaled::new(g, 0).div(l2(simd, x, largest).scaled());
            let nothing = Scaled::new(T::zero(), 0);
            let finite = combine(simd, (x, factor), (x, nothing), dx);
            if !finite && g.is_finite() {
                // No element of the gradient is larger than g: rounding alone led past the largest number.
                dx.iter_mut().filter(|dx| dx.is_infinite()).for_each(|dx| *dx = g.abs().copysign(*dx));
            }
            return RowsSeen::finite(finite || g.is_finite());
        }
        let (zero, one) = (Lanes::zero(simd), Lanes::splat(simd, T::one()));
        let is_largest_alone = p.is_infinite();
        let ties = x.iter().filter(|x| x.abs() == largest).count();
        let share = T::from(ties).map_or(g, |ties| g / ties);
        let (share, g) = (Lanes::splat(simd, share), Lanes::splat(simd, g));
        // ln(norm), and p - 1, in two terms.
        let (sum, log_largest) = if is_largest_alone || p == T::one() {
            (TwoTerm::zero(), (zero, zero))
        } else {
            power_sum(simd, p, x, largest)
        };
        let (root_hi, root_lo) = log_of_root(simd, p, sum);
        let exponent = Lanes::splat(simd, p).two_sum(-one);
        let mut watch = Watch::new(simd);
        sweep(
            simd,
            [x],
            [dx],
            #[inline(always)]
            |[x], [_]| {
                let magnitude = if is_largest_alone {
                    x.abs().eq(x.all(largest)).select(share, zero)
                } else if p == T::one() {
                    g
                } else {
                    let (hi, lo) = log_ratio(x, log_largest);
                    let (high, low) = hi.two_sum(-root_hi);
                    let is_finite = hi.abs().lt(hi.all(T::infinity()));
                    let ratio = high.fast_two_sum(is_finite.select(low + (lo - root_lo), zero));
                    let (hi, lo) = product(exponent, ratio);
                    let (m, n) = math::exp_parts(hi, lo);
                    math::scaled_product(g, m, n)
                };
                let dx = x.eq(zero).select(zero, magnitude ^ (x & x.all(-T::zero())));
                watch.see(dx);
                [dx]
            },
        );
        RowsSeen::finite(watch.all_finite() && g.first().is_finite())
    }
}

/// `x / max(|x|, eps)`.
#[derive(Clone, Copy, Debug)]
pub struct NormalizeRow<T> {
    eps: T,
}

/// The divisor of a row: its norm, or `eps` if that is larger, and whether it is the norm; `None` if nothing divides.
#[inline(always)]
fn divisor<T: Float, S: Simd<T>>(simd: S, x: &[T], largest: T, eps: T) -> Option<(Long<T>, bool)> {
    let eps_terms = TwoTerm { sum: eps, error: T::zero() };
    let eps_long = Long { terms: eps_terms, exponent: 0 }.normalized();
    if largest.is_zero() {
        return (!eps.is_zero()).then_some((eps_long, false));
    }
    let norm = l2(simd, x, largest);
    let is_above = eps.is_zero()
        || norm.exponent > eps_long.exponent
        || (norm.exponent == eps_long.exponent && (norm.terms.sum - eps_long.terms.sum) + norm.terms.error > T::zero());
    Some(if is_above { (norm, true) } else { (eps_long, false) })
}

impl<T: Float> RowFormula<T, 1> for NormalizeRow<T> {
    const WORK: usize = 3;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, [x]: [&[T]; 1], y: &mut [T]) -> RowsSeen {
        let largest = max_abs(simd, x);
        if !largest.is_finite() {
            y.fill(T::nan());
            return RowsSeen::finite(false);
        }
        let Some((divisor, _)) = divisor(simd, x, largest, self.eps) else {
            y.fill(T::zero());
            return RowsSeen::finite(true);
        };
        RowsSeen::finite(divide_by(simd, x, divisor, y))
    }
}

/// The gradient of [`NormalizeRow`].
#[derive(Clone, Copy, Debug)]
pub struct NormalizeBackwardRow<T> {
    eps: T,
}

/// A sum of products of two rows, each scaled to a largest magnitude near 1.
#[inline(always)]
fn scaled_dot<T: Float, S: Simd<T>>(simd: S, a: &[T], a_largest: T, b: &[T], b_largest: T) -> Long<T> {
    let (a_exponent, b_exponent) = (exponent_of(a_largest), exponent_of(b_largest));
    let (a_scale, b_scale) = (Lanes::splat(simd, power(-a_exponent)), Lanes::splat(simd, power(-b_exponent)));
    let terms = sum_terms(
        simd,
        [a, b],
        #[inline(always)]
        |[a, b]| (a * a_scale).two_mul(b * b_scale),
    );
    Long { terms, exponent: a_exponent + b_exponent }
}

impl<T: Float> RowFormula<T, 2> for NormalizeBackwardRow<T> {
    const WORK: usize = 5;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, [x, dy]: [&[T]; 2], dx: &mut [T]) -> RowsSeen {
        let (largest, dy_largest) = (max_abs(simd, x), max_abs(simd, dy));
        if !largest.is_finite() || !dy_largest.is_finite() {
            dx.fill(T::nan());
            return RowsSeen::finite(false);
        }
        let Some((divisor, is_norm)) = divisor(simd, x, largest, self.eps) else {
            dx.fill(T::zero());
            return RowsSeen::finite(true);
        };
        let divisor = divisor.scaled();
        let factor = Scaled::new(T::one(), 0).div(divisor);
        let other = if is_norm {
            let dot = scaled_dot(simd, x, largest, dy, dy_largest).scaled();
            dot.div(divisor).div(divisor).div(divisor)
        } else {
            Scaled::new(T::zero(), 0)
        };
        RowsSeen::finite(combine(simd, (dy, factor), (x, other), dx))
    }
}

/// The cosine of the angle between two rows.
#[derive(Clone, Copy, Debug)]
pub struct CosineRow;

impl<T: Float> RowFormula<T, 2> for CosineRow {
    const WORK: usize = 4;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, [a, b]: [&[T]; 2], y: &mut [T]) -> RowsSeen {
        let (a_largest, b_largest) = (max_abs(simd, a), max_abs(simd, b));
        let cosine = if !a_largest.is_finite() || !b_largest.is_finite() {
            T::nan()
        } else if a_largest.is_zero() || b_largest.is_zero() {
            T::zero()
        } else {
            cosine(simd, a, a_largest, b, b_largest).value()
        };
        y.fill(cosine);
        RowsSeen::finite(cosine.is_finite())
    }
}

/// The cosine for rows that are not zero.
#[inline(always)]
fn cosine<T: Float, S: Simd<T>>(simd: S, a: &[T], a_largest: T, b: &[T], b_largest: T) -> Scaled<T> {
    let dot = scaled_dot(simd, a, a_largest, b, b_largest).normalized();
    let (a_norm, b_norm) = (l2(simd, a, a_largest), l2(simd, b, b_largest));
    // The quotient by the product of the norms, corrected once.
    let (m, n) = (a_norm.terms, b_norm.terms);
    let product = m.sum * n.sum;
    let product_low = fma(simd, m.sum, n.sum, -product) + (m.sum * n.error + m.error * n.sum);
    let q = dot.terms.sum / product;
    let rest = fma(simd, -q, product, dot.terms.sum) + (dot.terms.error - q * product_low);
    let cosine = Scaled::new(q + rest / product, dot.exponent - a_norm.exponent - b_norm.exponent);
    if cosine.exponent >= 0 { Scaled::new(T::one().copysign(cosine.mantissa), 0) } else { cosine }
}

/// The gradient of the cosine by the first of two rows.
#[derive(Clone, Copy, Debug)]
pub struct CosineBackwardRow;

impl<T: Float> RowFormula<T, 3> for CosineBackwardRow {
    const WORK: usize = 6;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, [a, b, g]: [&[T]; 3], da: &mut [T]) -> RowsSeen {
        let g = g[0];
        let (a_largest, b_largest) = (max_abs(simd, a), max_abs(simd, b));
        if !a_largest.is_finite() || !b_largest.is_finite() || !g.is_finite() {
            da.fill(T::nan());
            return RowsSeen::finite(false);
        }
        if a_largest.is_zero() || b_largest.is_zero() {
            da.fill(T::zero());
            return RowsSeen::finite(true);
        }
        let (a_norm, b_norm) = (l2(simd, a, a_largest).scaled(), l2(simd, b, b_largest).scaled());
        let factor = Scaled::new(g, 0).div(a_norm);
        let other = cosine(simd, a, a_largest, b, b_largest).mul(factor).div(a_norm);
        RowsSeen::finite(combine(simd, (b, factor.div(b_norm)), (a, other), da))
    }
}
