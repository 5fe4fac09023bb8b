//! The L2 norm and its gradient.

use super::scale::scale;
use crate::error::{Result, check_len};
use crate::finite::{Factor, Operand, Term, diagnose, name_largest_term, overflow_or_invalid};
use crate::float::Float;
use crate::scaled::Scaled;
use crate::squares::Squares;

/// The L2 norm of a slice: `sqrt(x[0]^2 + x[1]^2 + ...)`.
///
/// Within 2 ULP of the true value in `f32`, 1 in `f64`. Squares that over- or underflow do no harm, they are then scaled
/// by a power of two and summed again. The norm of nothing is 0.
///
/// Gradient: [`l2_norm_backward`].
///
/// # Errors
/// [`Error::NonFinite`](crate::Error::NonFinite) if an element is, or if the norm itself overflows.
///
/// ```
/// assert_eq!(nanproof::l2_norm(&[3e30_f32, 4e30])?, 5e30);
/// assert_eq!(nanproof::l2_norm(&[3e-40_f64, 4e-40])?, 5e-40);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn l2_norm<T: Float>(x: &[T]) -> Result<T> {
    let norm = Squares::of(x)?.norm().narrow::<T>();
    if norm.is_finite() {
        return Ok(norm);
    }
    let found = diagnose("l2_norm", [Operand::slice("x", x)], [Operand::scalar("norm", norm)], overflow_or_invalid);
    name_largest_term(found, |_| Factor::slice("x", x).map(Term::from))?;
    Ok(norm)
}

/// The gradient of [`l2_norm`]: `dx = g x / |x|`, and 0 where the norm is 0 (the subgradient of least norm).
///
/// Within 4 ULP of the true value. Neither the norm nor `g / |x|` needs to be representable.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths differ; [`Error::NonFinite`](crate::Error::NonFinite) if an
/// element of `x` or `g` is.
///
/// ```
/// let mut dx = [0.0_f32; 2];
/// nanproof::l2_norm_backward(&[3e38, 3e38], 1.0, &mut dx)?; // the norm overflows, its gradient does not
/// assert_eq!(dx, [0.70710677; 2]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn l2_norm_backward<T: Float>(x: &[T], g: T, dx: &mut [T]) -> Result<()> {
    check_len("l2_norm_backward", "dx", dx.len(), x.len(), "the length of x")?;
    let norm = Squares::of(x)?.norm();
    if norm.is_zero() {
        dx.fill(T::zero());
        return diagnose("l2_norm_backward", [Operand::scalar("g", g)], [], overflow_or_invalid);
    }
    dx.copy_from_slice(x);
    if scale(dx, Scaled::of(g).div(norm).round())? {
        return Ok(());
    }
    if norm.mantissa.is_finite() && g.is_finite() {
        // No element of the gradient is larger than g: rounding alone led past the largest number.
        dx.iter_mut().filter(|dx| dx.is_infinite()).for_each(|dx| *dx = g.abs().copysign(*dx));
    }
    let inputs = [Operand::slice("x", x), Operand::scalar("g", g)];
    diagnose("l2_norm_backward", inputs, [Operand::slice("dx", dx)], overflow_or_invalid)
}
