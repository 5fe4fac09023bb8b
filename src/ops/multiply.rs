//! Multiplication in which a factor of 0 is a mask, and its gradients.

use crate::error::Result;
use crate::float::Float;
use crate::lanes::{Lanes, Mask};
use crate::math;
use crate::ops::broadcast::{Gradients, Pair};
use crate::simd::Simd;
use crate::sweep::{Formula, Guard};

/// Multiplication by a factor that selects where it is zero: `p = a b` where `b != 0`, else exactly 0, even if `a` is
/// infinite or NaN. Returns how many `b` were zero.
///
/// `b` is as long as `a`, or counts for each of the rows that `a` consists of: one row, or one number. `p` is as long as
/// `a`. Rounded correctly. Where `b` is zero (of either sign) `a` is not read, and `p` is +0. NaN in a `b`, or in an `a`
/// that is read, stays NaN.
///
/// Gradient: [`safe_mul_backward`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths do not fit; [`Error::NonFinite`](crate::Error::NonFinite) if a
/// product is not finite.
///
/// ```
/// let mut p = [1.0_f32; 4];
/// let log_p = [f32::NEG_INFINITY, f32::NAN, -0.5, -2.0];
/// assert_eq!(nanproof::safe_mul(&log_p, &[0.0, 0.0, 0.5, 0.25], &mut p)?, 2);
/// assert_eq!(p, [0.0, 0.0, -0.25, -0.5]);
/// // Two rows of two, each times the same row.
/// nanproof::safe_mul(&[1.0, f32::NAN, 3.0, f32::INFINITY], &[2.0, 0.0], &mut p)?;
/// assert_eq!(p, [2.0, 0.0, 6.0, 0.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn safe_mul<T: Float>(a: &[T], b: &[T], p: &mut [T]) -> Result<usize> {
    let pair = Pair { operation: "safe_mul", a: ("a", a), b: ("b", b) };
    pair.check()?;
    pair.check_len("p", p)?;
    let seen = pair.map(Product, p)?;
    if !seen.finite {
        pair.diagnose(seen, T::zero(), ("p", p), is_masked, |_, _| false)?;
    }
    Ok(seen.guarded)
}

/// The gradients of [`safe_mul`]: `da = g b` and `db = g a`; both 0 where `b` is zero, and where `g` is exactly 0 (unless
/// `a` or `b` is NaN). Returns how many `b` were zero.
///
/// `g` and `da` are as long as `a`, `db` as long as `b`: of a `b` that counts for several rows it is the sum over them,
/// in ascending order, with its rounding errors kept; terms that are too large for the type may cancel.
///
/// Rounded correctly (where `db` is a sum, each term). Where `b` is zero neither `a` nor `g` is read: the product is 0
/// there whatever `a` is, so a `b` that is a mask learns nothing from it. A factor that merely passes through 0 and is to be
/// learned wants the plain product, whose gradient there is `g a`.
///
/// # Errors
/// As [`safe_mul`].
///
/// ```
/// let (mut da, mut db) = ([1.0_f32; 3], [1.0; 3]);
/// let (a, b) = ([f32::NEG_INFINITY, 3.0, 4.0], [0.0, 2.0, 5.0]);
/// assert_eq!(nanproof::safe_mul_backward(&a, &b, &[1.0, 1.0, 0.0], &mut da, &mut db)?, 1);
/// assert_eq!((da, db), ([0.0, 2.0, 0.0], [0.0, 3.0, 0.0]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn safe_mul_backward<T: Float>(a: &[T], b: &[T], g: &[T], da: &mut [T], db: &mut [T]) -> Result<usize> {
    let pair = Pair { operation: "safe_mul_backward", a: ("a", a), b: ("b", b) };
    pair.check_gradients(g, ("da", da), ("db", db))?;
    let seen = pair.gradients(ProductBackward, g, da, db)?;
    if !seen.finite {
        pair.diagnose_gradients(g, ("da", da), ("db", db), is_masked, [|_, _| false; 2])?;
    }
    Ok(seen.guarded)
}

fn is_masked<T: Float>(_: T, b: T) -> bool {
    b.is_zero()
}

/// `a b`, or 0 where `b` is.
#[derive(Clone, Copy, Debug)]
pub struct Product;

impl<T: Float> Formula<T, 2, 1> for Product {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [a, b]: [Lanes<T, S>; 2],
        _: [Lanes<T, S>; 1],
        guard: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 1] {
        let zero = b.all(T::zero());
        let masked = b.eq(zero);
        guard.note(masked);
        [masked.select(zero, a * b)]
    }
}

/// `g b` and `g a`, or zeros where `b` is 0.
#[derive(Clone, Copy, Debug)]
pub struct ProductBackward;

/// Where both gradients are 0.
#[inline(always)]
fn has_no_gradients<T: Float, S: Simd<T>>([a, b, g]: [Lanes<T, S>; 3]) -> Mask<T, S> {
    let zero = b.all(T::zero());
    b.eq(zero) | (g.eq(zero) & a.eq(a) & b.eq(b))
}

impl<T: Float> Formula<T, 3, 2> for ProductBackward {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [a, b, g]: [Lanes<T, S>; 3],
        _: [Lanes<T, S>; 2],
        guard: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 2] {
        let zero = b.all(T::zero());
        guard.note(b.eq(zero));
        let nothing = has_no_gradients([a, b, g]);
        [nothing.select(zero, g * b), nothing.select(zero, g * a)]
    }
}

impl<T: Float> Gradients<T> for ProductBackward {
    #[inline(always)]
    fn second<S: Simd<T>>(self, [a, b, g]: [Lanes<T, S>; 3]) -> [Lanes<T, S>; 2] {
        let nothing = has_no_gradients([a, b, g]);
        let ((g, g_exp), (a, a_exp)) = (math::split_exponent(g), math::split_exponent(a));
        [nothing.select(b.all(T::zero()), g * a), g_exp + a_exp]
    }
}
