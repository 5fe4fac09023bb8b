//! The angle of a point, and its gradient.

use crate::error::Result;
use crate::finite::{Index, Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::lanes::{Lanes, Mask};
use crate::math;
use crate::ops::broadcast::{Gradients, Pair};
use crate::scaled::power;
use crate::simd::Simd;
use crate::sweep::{Formula, Guard};

/// The angle between the positive x-axis and the direction to the point `(x, y)`, from `-pi` to `pi`:
/// `angle = atan2(y, x)`, which is `atan(y / x)` for `x > 0`.
///
/// `x` is as long as `y`, or counts for each of the rows that `y` consists of: one row, or one number. `angle` is as long
/// as `y`. Within 0.66 ULP; `y / x` need not be representable.
///
/// The special values are those of IEEE 754 `atan2`, zeros and infinities with their signs: `atan2(0, 0) = 0`,
/// `atan2(0, -0) = pi`, `atan2(Inf, Inf) = pi/4`, `atan2(y, -Inf) = pi` for `y > 0`; odd in `y`. NaN stays NaN.
///
/// Gradient: [`atan2_backward`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths do not fit; [`Error::NonFinite`](crate::Error::NonFinite) if an
/// operand is NaN.
///
/// ```
/// use std::f32::consts::{FRAC_PI_2, FRAC_PI_4, PI};
///
/// let mut angle = [0.0_f32; 4];
/// nanproof::atan2(&[0.0, 1e-40, 3.0, -0.0], &[1.0, 1e-40, 0.0, -2.0], &mut angle)?;
/// assert_eq!(angle, [0.0, FRAC_PI_4, FRAC_PI_2, -PI]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn atan2<T: Float>(y: &[T], x: &[T], angle: &mut [T]) -> Result<()> {
    let pair = Pair { operation: "atan2", a: ("y", y), b: ("x", x) };
    pair.check()?;
    pair.check_len("angle", angle)?;
    if pair.map(Angle, angle)?.finite {
        return Ok(());
    }
    diagnose(pair.operation, points(y, x), [Operand::slice("angle", angle)], overflow_or_invalid)
}

/// The gradients of [`atan2`]: `dy = g x / r^2` and `dx = -g y / r^2` with `r^2 = x^2 + y^2`; both 0 at the origin, where
/// there is no derivative. Returns how many points were there.
///
/// `g` and `dy` are as long as `y`, `dx` as long as `x`: of an `x` that counts for several rows it is the sum over them, in
/// ascending order, with its rounding errors kept; terms that are too large for the type may cancel.
///
/// Both within 2.5 ULP (where `dx` is a sum, of each term); nothing over- or underflows on the way, `r^2` least of all. At
/// the origin `g` is not read. Where `g` is exactly 0 both are 0 (unless `x` or `y` is NaN), and 0 is their limit at points
/// that are infinitely far.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths do not fit; [`Error::NonFinite`](crate::Error::NonFinite) if a
/// result is not finite.
///
/// ```
/// let (mut dy, mut dx) = ([1.0_f32; 3], [1.0; 3]);
/// let (y, x) = ([2e-23, 1e30, 0.0], [0.0, 1e30, 0.0]); // the squares would under- and overflow
/// assert_eq!(nanproof::atan2_backward(&y, &x, &[1.0, 1.0, 5.0], &mut dy, &mut dx)?, 1);
/// assert_eq!((dy, dx), ([0.0, 5e-31, 0.0], [-5e22, -5e-31, 0.0]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn atan2_backward<T: Float>(y: &[T], x: &[T], g: &[T], dy: &mut [T], dx: &mut [T]) -> Result<usize> {
    let pair = Pair { operation: "atan2_backward", a: ("y", y), b: ("x", x) };
    pair.check_gradients(g, ("dy", dy), ("dx", dx))?;
    let is_origin = |y: T, x: T| y.is_zero() && x.is_zero();
    let seen = pair.gradients(AngleBackward, g, dy, dx)?;
    if !seen.finite {
        let not_read = |index, _| matches!(index, Index::At(i) if is_origin(y[i], x[i % x.len()]));
        let inputs = points(y, x).into_iter().chain([Operand::slice("g", g).overlook(not_read)]);
        let outputs = [Operand::slice("dy", dy), Operand::slice("dx", dx)];
        diagnose(pair.operation, inputs, outputs, overflow_or_invalid)?;
    }
    Ok(seen.guarded)
}

/// The operands to be looked at: an infinite one is no fault.
fn points<'a, T: Float>(y: &'a [T], x: &'a [T]) -> [Operand<'a, T>; 2] {
    [("y", y), ("x", x)].map(|(name, x)| Operand::slice(name, x).overlook(|_, x| !x.is_nan()))
}

/// `atan2(y, x)`.
#[derive(Clone, Copy, Debug)]
pub struct Angle;

impl<T: Float> Formula<T, 2, 1> for Angle {
    #[inline(always)]
    fn apply<S: Simd<T>>(self, [y, x]: [Lanes<T, S>; 2], _: [Lanes<T, S>; 1], _: &mut Guard<T, S>) -> [Lanes<T, S>; 1] {
        [math::atan2(y, x)]
    }
}

/// `g x / r^2` and `-g y / r^2`, or zeros at the origin.
#[derive(Clone, Copy, Debug)]
pub struct AngleBackward;

impl<T: Float> Formula<T, 3, 2> for AngleBackward {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [y, x, g]: [Lanes<T, S>; 3],
        _: [Lanes<T, S>; 2],
        guard: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 2] {
        let zero = y.all(T::zero());
        let at_origin = y.eq(zero) & x.eq(zero);
        guard.note(at_origin);
        if (is_moderate(y) & is_moderate(x) & is_moderate(g) & !at_origin).all() {
            let square = x.mul_add(x, y * y);
            return [g * x / square, g * -y / square];
        }
        parts([y, x, g]).map(
            #[inline(always)]
            |[part, exponent]| math::scale(part, exponent),
        )
    }
}

impl<T: Float> Gradients<T> for AngleBackward {
    #[inline(always)]
    fn second<S: Simd<T>>(self, x: [Lanes<T, S>; 3]) -> [Lanes<T, S>; 2] {
        let [_, dx] = parts(x);
        dx
    }
}

/// Both gradients as `[m, n]`, for `m 2^n`.
#[inline(always)]
fn parts<T: Float, S: Simd<T>>([y, x, g]: [Lanes<T, S>; 3]) -> [[Lanes<T, S>; 2]; 2] {
    let zero = y.all(T::zero());
    let at_origin = y.eq(zero) & x.eq(zero);
    let ((y_part, y_exp), (x_part, x_exp), (g_part, g_exp)) =
        (math::split_exponent(y), math::split_exponent(x), math::split_exponent(g));
    // r^2 in units of 4^exp, in which the larger of its two squares is between 1 and 4.
    let exp = x.abs().lt(y.abs()).select(y_exp, x_exp);
    let (y_near, x_near) = (math::scale(y_part, y_exp - exp), math::scale(x_part, x_exp - exp));
    let square = x_near.mul_add(x_near, y_near * y_near);
    let is_far = square.eq(y.all(T::infinity()));
    let up = g_exp - (exp + exp);
    let [dy, dx] = [x_part, -y_part].map(
        #[inline(always)]
        |part| at_origin.select(zero, is_far.select(g * zero, g_part * part / square)),
    );
    [[dy, x_exp + up], [dx, y_exp + up]]
}

/// Where a number is 0, or so near to 1 that nothing made of such numbers over- or underflows on the way to the gradients:
/// without exponents of their own they have the same bits.
#[inline(always)]
fn is_moderate<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Mask<T, S> {
    let quarter = T::BIAS / 4 - 1;
    let magnitude = x.abs();
    x.eq(x.all(T::zero())) | (x.all(power(-quarter)).le(magnitude) & magnitude.le(x.all(power(quarter))))
}
