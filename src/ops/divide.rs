//! Division that is safe at a zero denominator, and its gradients.

use crate::error::Result;
use crate::float::Float;
use crate::lanes::Lanes;
use crate::math;
use crate::ops::broadcast::{Gradients, Pair};
use crate::ops::guarded::Safe;
use crate::simd::Simd;
use crate::sweep::{Formula, Guard};

/// Division with the quotient 0 where the denominator is zero: `q = a / b` where `b != 0`, else 0. Returns how many
/// denominators were zero.
///
/// `b` is as long as `a`, or counts for each of the rows that `a` consists of: one row, or one number. `q` is as long as
/// `a`. Rounded correctly. Where `b` is zero (of either sign) `a` is not read. NaN in a `b`, or in an `a` that is read,
/// stays NaN.
///
/// Gradient: [`safe_div_backward`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths do not fit; [`Error::NonFinite`](crate::Error::NonFinite) if a
/// quotient is not finite.
///
/// ```
/// let mut q = [0.0_f32; 4];
/// let zeros = nanproof::safe_div(&[1.0, f32::NAN, 3.0, 4.0], &[0.0, 0.0, 2.0, 2.0], &mut q)?;
/// assert_eq!((q, zeros), ([0.0, 0.0, 1.5, 2.0], 2));
/// // Two rows of two, each divided by the same row.
/// nanproof::safe_div(&[1.0, 2.0, 3.0, 4.0], &[2.0, 4.0], &mut q)?;
/// assert_eq!(q, [0.5, 0.5, 1.5, 1.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn safe_div<T: Float>(a: &[T], b: &[T], q: &mut [T]) -> Result<usize> {
    safe_div_with(Safe::default(), a, b, q)
}

/// [`safe_div`] with [options](Safe): the default where `|b| <= eps`. Returns how many denominators were guarded.
///
/// # Errors
/// As [`safe_div`]; [`Error::Argument`](crate::Error::Argument) if `eps` is negative or not finite.
///
/// ```
/// let mut q = [0.0_f32];
/// let options = nanproof::Safe { default: -1.0, eps: 1e-3 };
/// assert_eq!(nanproof::safe_div_with(options, &[1.0], &[1e-3], &mut q)?, 1);
/// assert_eq!(q, [-1.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn safe_div_with<T: Float>(options: Safe<T>, a: &[T], b: &[T], q: &mut [T]) -> Result<usize> {
    let pair = Pair { operation: "safe_div", a: ("a", a), b: ("b", b) };
    options.check(pair.operation)?;
    pair.check()?;
    pair.check_len("q", q)?;
    let is_guarded = |_, b: T| b.abs() <= options.eps;
    let seen = pair.map(Quotient { options }, q)?;
    if !seen.finite {
        pair.diagnose(seen, options.default, ("q", q), is_guarded, |_, b| b.is_zero())?;
    }
    Ok(seen.guarded)
}

/// The gradients of [`safe_div`]: `da = g / b` and `db = -(g / b) (a / b)`; both 0 where `b` is zero, and where `g` is
/// exactly 0 (unless `a` or `b` is NaN). Returns how many denominators were zero.
///
/// `g` and `da` are as long as `a`, `db` as long as `b`: of a `b` that counts for several rows it is the sum over them,
/// in ascending order, with its rounding errors kept; terms that are too large for the type may cancel.
///
/// `da` is rounded correctly, `db` within 2 ULP (where it is a sum, 2 ULP of each term): the divisor is not squared, and
/// a product whose factors over- or underflow is computed again with exponents of its own. Where `b` is zero neither `a`
/// nor `g` is read.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths do not fit; [`Error::NonFinite`](crate::Error::NonFinite) if a
/// result is not finite.
///
/// ```
/// let (mut da, mut db) = ([0.0_f32; 3], [0.0; 3]);
/// nanproof::safe_div_backward(&[1e20, 1.0, 1e-30], &[1e20, 0.0, 1e-30], &[1.0; 3], &mut da, &mut db)?;
/// assert_eq!(da, [1e-20, 0.0, 1e30]);
/// assert_eq!(db, [-1e-20, 0.0, -1e30]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn safe_div_backward<T: Float>(a: &[T], b: &[T], g: &[T], da: &mut [T], db: &mut [T]) -> Result<usize> {
    safe_div_backward_with(Safe::default(), a, b, g, da, db)
}

/// The gradients of [`safe_div_with`]: those of [`safe_div_backward`], and 0 where `|b| <= eps`.
///
/// # Errors
/// As [`safe_div_backward`]; [`Error::Argument`](crate::Error::Argument) if `eps` is negative or not finite.
///
/// ```
/// let (mut da, mut db) = ([0.0_f32; 2], [0.0; 2]);
/// let options = nanproof::Safe { default: 0.0, eps: 1e-3 };
/// nanproof::safe_div_backward_with(options, &[1.0; 2], &[1e-4, 2.0], &[1.0; 2], &mut da, &mut db)?;
/// assert_eq!((da, db), ([0.0, 0.5], [0.0, -0.25]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn safe_div_backward_with<T: Float>(
    options: Safe<T>,
    a: &[T],
    b: &[T],
    g: &[T],
    da: &mut [T],
    db: &mut [T],
) -> Result<usize> {
    let pair = Pair { operation: "safe_div_backward", a: ("a", a), b: ("b", b) };
    options.check(pair.operation)?;
    pair.check_gradients(g, ("da", da), ("db", db))?;
    let is_guarded = |_, b: T| b.abs() <= options.eps;
    let seen = pair.gradients(QuotientBackward { eps: options.eps }, g, da, db)?;
    if !seen.finite {
        pair.diagnose_gradients(g, ("da", da), ("db", db), is_guarded, [|_, _| false; 2])?;
    }
    Ok(seen.guarded)
}

/// `a / b`, or a default where `b` is guarded.
#[derive(Clone, Copy, Debug)]
pub struct Quotient<T> {
    options: Safe<T>,
}

impl<T: Float> Formula<T, 2, 1> for Quotient<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [a, b]: [Lanes<T, S>; 2],
        _: [Lanes<T, S>; 1],
        guard: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 1] {
        let guarded = b.abs().le(b.all(self.options.eps));
        guard.note(guarded);
        [guarded.select(b.all(self.options.default), a / b)]
    }
}

/// `g / b` and `-(g / b) (a / b)`, or zeros where `b` is guarded.
#[derive(Clone, Copy, Debug)]
pub struct QuotientBackward<T> {
    eps: T,
}

impl<T: Float> Formula<T, 3, 2> for QuotientBackward<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [a, b, g]: [Lanes<T, S>; 3],
        _: [Lanes<T, S>; 2],
        guard: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 2] {
        let zero = b.all(T::zero());
        let guarded = b.abs().le(b.all(self.eps));
        guard.note(guarded);
        let (da, ratio) = (g / b, a / b);
        // Both factors well inside the normal range: so is whatever rounding their product suffers.
        let (low, high) = (b.all(T::min_positive_value()), b.all(T::max_value()));
        let safe_da = g.eq(zero) | (low.le(da.abs()) & da.abs().le(high));
        let safe_ratio = a.eq(zero) | (low.le(ratio.abs()) & ratio.abs().le(high));
        let unsafe_product = !((safe_da & safe_ratio) | guarded);
        let mut db = -(da * ratio);
        if unsafe_product.any() {
            let [db_part, exponent] = self.second([a, b, g]);
            db = unsafe_product.select(math::scale(db_part, exponent), db);
        }
        [guarded.select(zero, da), guarded.select(zero, db)]
    }
}

impl<T: Float> Gradients<T> for QuotientBackward<T> {
    #[inline(always)]
    fn second<S: Simd<T>>(self, [a, b, g]: [Lanes<T, S>; 3]) -> [Lanes<T, S>; 2] {
        let zero = b.all(T::zero());
        // An upstream gradient of exactly 0 gives 0, through an infinite ratio too, but not past a NaN.
        let nothing = b.abs().le(b.all(self.eps)) | (g.eq(zero) & a.eq(a) & b.eq(b));
        let ((g, g_exp), (a, a_exp), (b, b_exp)) =
            (math::split_exponent(g), math::split_exponent(a), math::split_exponent(b));
        [nothing.select(zero, -((g / b) * (a / b))), (g_exp - b_exp) + (a_exp - b_exp)]
    }
}
