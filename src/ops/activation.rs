//! Activations, forward and backward.

use crate::error::{Result, check_len};
use crate::finite::{Index, Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::lanes::Lanes;
use crate::math;
use crate::simd::Simd;
use crate::sweep::{Formula, Guard, apply};

/// The rectified linear unit: `y = max(x, 0)`, exactly. NaN stays NaN; -0 gives +0.
///
/// Gradient: [`relu_backward`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths differ; [`Error::NonFinite`](crate::Error::NonFinite) if a
/// result is NaN or +Inf.
///
/// ```
/// let mut y = [0.0_f32; 3];
/// nanproof::relu(&[-1.0, f32::NEG_INFINITY, 2.0], &mut y)?;
/// assert_eq!(y, [0.0, 0.0, 2.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn relu<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    check_len("relu", "y", y.len(), x.len(), "the length of x")?;
    if apply(Relu, [x], [&mut *y])?.finite {
        return Ok(());
    }
    let rectified = |_, x: T| x < T::zero();
    diagnose("relu", [Operand::slice("x", x).overlook(rectified)], [Operand::slice("y", y)], overflow_or_invalid)
}

/// The gradient of [`relu`]: `dx = dy` where `x > 0`; 0 where `x <= 0`, and `dy` is not read there. A NaN in `x` gives
/// NaN.
///
/// At the kink the subgradient of least norm is taken, 0.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths differ; [`Error::NonFinite`](crate::Error::NonFinite) if a
/// result is not finite.
///
/// ```
/// let mut dx = [0.0_f32; 3];
/// nanproof::relu_backward(&[-1.0, 0.0, 2.0], &[f32::NAN, 5.0, 5.0], &mut dx)?;
/// assert_eq!(dx, [0.0, 0.0, 5.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn relu_backward<T: Float>(x: &[T], dy: &[T], dx: &mut [T]) -> Result<()> {
    check_len("relu_backward", "dy", dy.len(), x.len(), "the length of x")?;
    check_len("relu_backward", "dx", dx.len(), x.len(), "the length of x")?;
    if apply(ReluBackward, [x, dy], [&mut *dx])?.finite {
        return Ok(());
    }
    let cut_off = |index, _| matches!(index, Index::At(i) if x[i] <= T::zero());
    let inputs = [Operand::slice("x", x).overlook(|_, x| !x.is_nan()), Operand::slice("dy", dy).overlook(cut_off)];
    diagnose("relu_backward", inputs, [Operand::slice("dx", dx)], overflow_or_invalid)
}

/// The hyperbolic tangent: `y = tanh(x)`, within 1 ULP (`f32`) or 1.5 ULP (`f64`).
///
/// The sign of a zero is kept; infinities give ±1; NaN stays NaN. Source: `expm1` in two terms, the quotient corrected
/// once.
///
/// Gradient: [`tanh_backward`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths differ; [`Error::NonFinite`](crate::Error::NonFinite) if a
/// result is NaN.
///
/// ```
/// let mut y = [0.0_f64; 3];
/// nanproof::tanh(&[0.5, 1e-300, f64::INFINITY], &mut y)?;
/// assert_eq!(y, [0.46211715726000973, 1e-300, 1.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn tanh<T: Float>(x: &[T], y: &mut [T]) -> Result<()> {
    check_len("tanh", "y", y.len(), x.len(), "the length of x")?;
    if apply(Tanh, [x], [&mut *y])?.finite {
        return Ok(());
    }
    let saturated = |_, x: T| x.is_infinite();
    diagnose("tanh", [Operand::slice("x", x).overlook(saturated)], [Operand::slice("y", y)], overflow_or_invalid)
}

/// The gradient of [`tanh`]: `dx = dy / cosh(x)^2`, from `x` and not from `y`, whose rounding to 1 would make it 0.
///
/// Within 4 ULP. At an infinite `x` it is 0. A NaN in `x` gives NaN.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths differ; [`Error::NonFinite`](crate::Error::NonFinite) if a
/// result is not finite.
///
/// ```
/// let mut dx = [0.0_f32; 2];
/// nanproof::tanh_backward(&[0.0, 20.0], &[3.0, 1.0], &mut dx)?;
/// assert_eq!(dx[0], 3.0);
/// assert!((dx[1] - 1.6993417e-17).abs() < 1e-23);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn tanh_backward<T: Float>(x: &[T], dy: &[T], dx: &mut [T]) -> Result<()> {
    check_len("tanh_backward", "dy", dy.len(), x.len(), "the length of x")?;
    check_len("tanh_backward", "dx", dx.len(), x.len(), "the length of x")?;
    if apply(TanhBackward, [x, dy], [&mut *dx])?.finite {
        return Ok(());
    }
    let inputs = [Operand::slice("x", x).overlook(|_, x| !x.is_nan()), Operand::slice("dy", dy)];
    diagnose("tanh_backward", inputs, [Operand::slice("dx", dx)], overflow_or_invalid)
}

/// `max(x, 0)`.
#[derive(Clone, Copy, Debug)]
pub struct Relu;

impl<T: Float> Formula<T, 1, 1> for Relu {
    #[inline(always)]
    fn apply<S: Simd<T>>(self, [x]: [Lanes<T, S>; 1], _: [Lanes<T, S>; 1], _: &mut Guard<T, S>) -> [Lanes<T, S>; 1] {
        [rectify(x)]
    }
}

/// `max(x, 0)`; NaN for NaN.
#[inline(always)]
pub(crate) fn rectify<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    let zero = x.all(T::zero());
    x.le(zero).select(zero, x)
}

/// `dy` where `x > 0`.
#[derive(Clone, Copy, Debug)]
pub struct ReluBackward;

impl<T: Float> Formula<T, 2, 1> for ReluBackward {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [x, dy]: [Lanes<T, S>; 2],
        _: [Lanes<T, S>; 1],
        _: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 1] {
        [rectify_backward(x, dy)]
    }
}

/// `dy` where `x > 0`, else 0; NaN where `x` is.
#[inline(always)]
pub(crate) fn rectify_backward<T: Float, S: Simd<T>>(x: Lanes<T, S>, dy: Lanes<T, S>) -> Lanes<T, S> {
    let zero = x.all(T::zero());
    let kept = x.eq(x).select(dy, x);
    x.le(zero).select(zero, kept)
}

/// `tanh(x)`.
#[derive(Clone, Copy, Debug)]
pub struct Tanh;

impl<T: Float> Formula<T, 1, 1> for Tanh {
    #[inline(always)]
    fn apply<S: Simd<T>>(self, [x]: [Lanes<T, S>; 1], _: [Lanes<T, S>; 1], _: &mut Guard<T, S>) -> [Lanes<T, S>; 1] {
        [math::tanh(x)]
    }
}

/// `dy / cosh(x)^2`.
#[derive(Clone, Copy, Debug)]
pub struct TanhBackward;

impl<T: Float> Formula<T, 2, 1> for TanhBackward {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [x, dy]: [Lanes<T, S>; 2],
        _: [Lanes<T, S>; 1],
        _: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 1] {
        [math::tanh_derivative_times(x, dy)]
    }
}
