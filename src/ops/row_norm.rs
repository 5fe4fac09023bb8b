//! Norms of any order, of vectors and of the rows of matrices, and their gradients.
//!
//! Orders 1 and 2 are sums of the kernel of rows, the maximum is a pass of its own; any other order is computed in `f64`
//! from powers of `|x| / max |x|`, whatever the type: products where there are few factors, else powers by logarithms, of
//! which those of `f32` need no second term.

use super::guarded::{Safe, safe_ln};
use super::power::safe_pow;
use super::sum::Sum;
use crate::error::{Error, Result, check_len, check_shape};
use crate::finite::{Factor, Index, Operand, Term, diagnose, name_largest_term, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::{Join, launch};
use crate::math::Function;
use crate::reduce::{MaxAbs, TwoTerm};
use crate::row_map::{RowFunction, map_rows};
use crate::rows::each_row;
use crate::scaled::{Scaled, narrow, power, wide};
use crate::sweep::map;
use crate::view::{MatMut, MatRef};

/// The p-norm of a vector: `(|x[0]|^p + |x[1]|^p + ...)^(1/p)` for any `p > 0`; the largest magnitude for `p = +Inf`.
///
/// Within 1 ULP of the true value in `f32`, 3 in `f64` (for vectors up to 2^20 long; `1/p` times as much for `p < 1`).
/// Powers and sums that over- or underflow do no harm. The norm of nothing is 0.
///
/// Gradient: [`lp_norm_backward`]. Of the rows of a matrix: [`lp_norm_rows`]. For `p = 2` [`l2_norm`](crate::l2_norm) is
/// faster.
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
    check_order(NAME, p)?;
    let mut y = [T::zero()];
    if !write_norms(p, MatRef::new(x, 1, x.len())?, &mut y)? {
        let found = diagnose(NAME, [Operand::slice("x", x)], [Operand::scalar("norm", y[0])], overflow_or_invalid);
        name_largest_term(found, |_| Factor::slice("x", x).map(Term::from))?;
    }
    Ok(y[0])
}

/// The gradient of [`lp_norm`]: `dx = g sign(x) (|x| / norm)^(p-1)`, and 0 where `x` is 0 (the subgradient of least norm).
///
/// For `p = +Inf` the elements of the largest magnitude share `g` equally. Within 2 ULP in `f32` and `4 + |p - 1|` in
/// `f64`, for `p >= 1`; `1/p` times as much for `p < 1`. Neither the norm nor a power of an element needs to be
/// representable.
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
    check_order(NAME, p)?;
    check_len(NAME, "dx", dx.len(), x.len(), "the length of x")?;
    if write_gradients(p, MatRef::new(x, 1, x.len())?, &[g], MatMut::new(dx, 1, x.len())?)? && g.is_finite() {
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
    check_order(NAME, p)?;
    check_len(NAME, "y", y.len(), x.rows(), "the number of rows of x")?;
    if write_norms(p, x, y)? {
        return Ok(());
    }
    let found = diagnose(NAME, [Operand::matrix("x", x)], [Operand::slice("y", y)], overflow_or_invalid);
    name_largest_term(found, |index| {
        let row = if let Index::At(row) = index { row } else { 0 };
        Factor::row("x", x, row).map(Term::from)
    })
}

/// The gradient of [`lp_norm_rows`]: as [`lp_norm_backward`], with an element of `dy` for each row. That of a row of zeros is
/// not read.
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
    check_order(NAME, p)?;
    check_len(NAME, "dy", dy.len(), x.rows(), "the number of rows of x")?;
    check_shape(NAME, "dx", dx.shape(), x.shape(), "the shape of x")?;
    if write_gradients(p, x, dy, dx.reborrow())? {
        return Ok(());
    }
    let dx = dx.as_ref();
    let inputs = [Operand::matrix("x", x), Operand::slice("dy", dy).overlook_unread_rows(dx)];
    diagnose(NAME, inputs, [Operand::matrix("dx", dx)], overflow_or_invalid)
}

fn check_order<T: Float>(operation: &'static str, p: T) -> Result<()> {
    if p > T::zero() { Ok(()) } else { Err(Error::Argument { operation, argument: "p", problem: "must be above 0" }) }
}

/// Whether all norms are finite.
fn write_norms<T: Float>(p: T, x: MatRef<'_, T>, y: &mut [T]) -> Result<bool> {
    let y = MatMut::new(y, x.rows(), 1)?;
    if p == T::one() {
        return map_rows(RowFunction::L1Norm, x, &[p], y);
    } else if p == T::one() + T::one() {
        return map_rows(RowFunction::L2Norm, x, &[p], y);
    }
    each_row_while_finite(x, &[p], y, |x, _, y| {
        let largest = launch(MaxAbs { x })?.0;
        let is_max = p.is_infinite() || largest.is_zero() || !largest.is_finite();
        y[0] = if is_max { largest } else { narrow(PowerSum::of(p, x, largest)?.norm()?) };
        Ok(y[0].is_finite())
    })
}

/// Whether all gradients are finite.
fn write_gradients<T: Float>(p: T, x: MatRef<'_, T>, g: &[T], dx: MatMut<'_, T>) -> Result<bool> {
    if p == T::one() + T::one() {
        return map_rows(RowFunction::L2NormGradient, x, g, dx);
    }
    each_row_while_finite(x, g, dx, |x, g, dx| {
        let largest = launch(MaxAbs { x })?.0;
        if !largest.is_finite() {
            dx.fill(T::nan());
        } else if largest.is_zero() || g.is_zero() {
            dx.fill(T::zero());
            return Ok(true);
        } else if p == T::one() {
            dx.iter_mut().zip(x).for_each(|(dx, &x)| *dx = signed(g, x));
        } else if p.is_infinite() {
            let ties = x.iter().filter(|x| x.abs() == largest).count();
            let share = g / T::from(ties).unwrap_or_else(T::max_value);
            let of = |x: T| if x.abs() == largest { signed(share, x) } else { T::zero() };
            dx.iter_mut().zip(x).for_each(|(dx, &x)| *dx = of(x));
        } else {
            PowerSum::of(p, x, largest)?.write_gradient(x, g, dx)?;
        }
        // No early end: the compiler makes it a loop over vectors.
        Ok(g.is_finite() && dx.iter().fold(true, |finite, dx| finite & dx.is_finite()))
    })
}

/// `g` with the sign of its product with `x`, and 0 where `x` is.
fn signed<T: Float>(g: T, x: T) -> T {
    // No branch: the compiler makes it a loop over vectors.
    let product = g * T::one().copysign(x);
    if x.is_zero() { T::zero() } else { product }
}

/// Calls `f` with each row of `x`, its number of `g` or the one that `g` has, and the row of `y`; whether all are finite.
fn each_row_while_finite<T: Float>(
    x: MatRef<'_, T>,
    g: &[T],
    y: MatMut<'_, T>,
    mut f: impl FnMut(&[T], T, &mut [T]) -> Result<bool>,
) -> Result<bool> {
    let mut is_finite = Ok(true);
    each_row([x], y, |i, [x], y| {
        let g = if let [g] = g { *g } else { g[i] };
        if let Ok(all) = &mut is_finite {
            match f(x, g, y) {
                Ok(finite) => *all &= finite,
                Err(error) => is_finite = Err(error),
            }
        }
    });
    is_finite
}

/// Elements that powers are taken of at once.
const CHUNK: usize = 512;

/// The sum of `(|x| / max |x|)^p`.
struct PowerSum {
    p: f64,
    largest: f64,
    sum: f64,
}

impl PowerSum {
    /// Of finite elements that are not all 0.
    fn of<T: Float>(p: T, x: &[T], largest: T) -> Result<Self> {
        let (p, largest) = (wide(p), wide(largest));
        let (mut sum, mut powers) = (TwoTerm::zero(), [0.0; CHUNK]);
        for x in x.chunks(CHUNK) {
            let powers = &mut powers[..x.len()];
            write_powers(p, largest, x, powers)?;
            sum = sum.join(launch(Sum { x: powers })?);
        }
        Ok(Self { p, largest, sum: sum.value() })
    }

    /// `sum^(1/order)`, with what the rounded exponent lacks made up for.
    fn root(&self, order: f64) -> Result<f64> {
        let exponent = 1.0 / order;
        let missing = num_traits::Float::mul_add(-exponent, order, 1.0) / order;
        let [mut root, mut log] = [[0.0]; 2];
        ignore_infinity(safe_pow(Safe::default(), &[self.sum], &[exponent], &mut root))?;
        safe_ln(Safe::default(), &[self.sum], &mut log)?;
        let correction = root[0] * (missing * log[0]);
        // A tiny order, and its inverse or the root overflows.
        Ok(if correction.is_finite() { root[0] + correction } else { root[0] })
    }

    /// `factor sum^(1/p)`: the root is the norm over the largest magnitude.
    fn times_root(&self, factor: Scaled<f64>) -> Result<Scaled<f64>> {
        let root = self.root(self.p)?;
        if root.is_finite() {
            return Ok(factor.mul(Scaled::of(root)));
        }
        // A small factor may bring it back, a quarter at a time.
        let quarter = Scaled::of(self.root(4.0 * self.p)?);
        Ok(factor.mul(quarter).mul(quarter).mul(quarter).mul(quarter))
    }

    fn norm(&self) -> Result<f64> {
        Ok(self.times_root(Scaled::of(self.largest))?.value())
    }

    /// `g sign(x) (|x| / norm)^(p-1)`, the power of the norm being `root / sum` over that of the largest magnitude.
    fn write_gradient<T: Float>(&self, x: &[T], g: T, dx: &mut [T]) -> Result<()> {
        let factor = self.times_root(Scaled::of(g).div(Scaled::of(self.sum)))?;
        let value = factor.value();
        let mut powers = [0.0; CHUNK];
        for (x, dx) in x.chunks(CHUNK).zip(dx.chunks_mut(CHUNK)) {
            let powers = &mut powers[..x.len()];
            let are_normal = write_powers(self.p - 1.0, self.largest, x, powers)?;
            for ((dx, &x), power) in dx.iter_mut().zip(x).zip(&*powers) {
                *dx = signed(narrow(value * *power), x);
            }
            // In `f64` a power, or the factor, may be too small or too large where their product is not.
            if !(T::PRODUCTS_FIT_F64 || are_normal && value.is_normal()) {
                for ((dx, &x), power) in dx.iter_mut().zip(x).zip(&*powers) {
                    if !(x.is_zero() || power.is_normal() && value.is_normal()) {
                        *dx = signed(factor.mul(wide_power(self.p - 1.0, self.largest, x)?).narrow(), x);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Writes `(|x| / largest)^p` of a chunk, where `x` is not 0; for `p > 0` also there. Of `f64` it says whether all of
/// these are known to be normal numbers.
fn write_powers<T: Float>(p: f64, largest: f64, x: &[T], powers: &mut [f64]) -> Result<bool> {
    let mut ratios = [0.0; CHUNK];
    let ratios = &mut ratios[..x.len()];
    ratios.iter_mut().zip(x).for_each(|(ratio, &x)| *ratio = wide(x).abs() / largest);
    if let Some(factors) = FEW_FACTORS.into_iter().find(|&n| f64::from(n) == p) {
        powers.copy_from_slice(ratios);
        for _ in 1..factors {
            powers.iter_mut().zip(&*ratios).for_each(|(power, ratio)| *power *= ratio);
        }
    } else if T::PRODUCTS_FIT_F64 {
        // So many more digits than the result has that none is missed in the logarithm.
        map(Function::Ln, None, &mut *ratios)?;
        ratios.iter_mut().for_each(|log| *log *= p);
        map(Function::Exp, Some(ratios), powers)?;
    } else {
        ignore_infinity(safe_pow(Safe::default(), ratios, &[p], powers))?;
    }
    let mut are_normal = true;
    if !T::PRODUCTS_FIT_F64 {
        let exponent = num_traits::cast::<_, i32>((1021.0 / p.abs()).min(1022.0)).unwrap_or(0);
        let limit = power(-exponent); // the power of what is not below is normal
        for ((&ratio, power), &x) in ratios.iter().zip(powers).zip(x) {
            if ratio < limit && !x.is_zero() {
                are_normal = false;
                if ratio < SMALL_RATIO {
                    *power = wide_power(p, largest, x)?.value();
                }
            }
        }
    }
    Ok(are_normal)
}

/// Exponents whose powers are products.
const FEW_FACTORS: core::ops::RangeInclusive<u8> = 1..=4;

/// Ratios of `f64` below this may have underflowed.
const SMALL_RATIO: f64 = f64::MIN_POSITIVE;

/// `(|x| / largest)^p` where the ratio or the power may not be representable: the power of a mantissa from 1/2 to 1,
/// times that of a power of two.
#[cold]
fn wide_power<T: Float>(p: f64, largest: f64, x: T) -> Result<Scaled<f64>> {
    let ratio = Scaled::of(x.abs()).div(Scaled::of(largest));
    let (mantissa, exponent) = (ratio.mantissa * 0.5, f64::from(ratio.exponent + 1));
    // A large power of a mantissa is not representable either, and has errors of as many ULP as four factors may have.
    let factors = if p > 500.0 { 4 } else { 1 };
    let p = p / f64::from(factors);
    let whole = num_traits::Float::round(p * exponent);
    if whole < -1e5 {
        return Ok(Scaled::of(0.0)); // no factor brings it back
    }
    let rest = num_traits::Float::mul_add(p, exponent, -whole);
    let mut powers = [0.0; 2];
    safe_pow(Safe::default(), &[mantissa, 2.0], &[p, rest], &mut powers)?;
    let power = Scaled::new(powers[0] * powers[1], num_traits::cast(whole).unwrap_or(0));
    Ok((1..factors).fold(power, |product, _| product.mul(power)))
}

/// A power that overflows is met again in the result.
fn ignore_infinity(result: Result<usize>) -> Result<()> {
    match result {
        Err(Error::NonFinite(_)) => Ok(()),
        other => other.map(drop),
    }
}
