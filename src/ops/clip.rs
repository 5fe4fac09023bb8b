//! Gradient clipping: by value, by norm, and by the global norm of many tensors.

use super::norm::norm_of;
use super::scale::scale;
use crate::error::{Error, Result, check_len};
use crate::finite::{Index, Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::lanes::Lanes;
use crate::scaled::Scaled;
use crate::simd::Simd;
use crate::sweep::{Formula, Guard, apply, apply_if_finite};
use alloc::vec::Vec;

/// What clipping by a norm found and did.
///
/// ```
/// let mut g = [3.0_f32, 4.0];
/// let clip = nanproof::clip_by_norm(&mut g, 1.0)?;
/// assert_eq!((clip.norm, clip.scale, clip.clipped), (5.0, 0.2, true));
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Clip<T> {
    /// The norm before clipping; infinite if it is too large for the type, which does not disturb the clipping.
    pub norm: T,
    /// What every element was multiplied by; 1 if nothing was.
    pub scale: T,
    /// Whether the norm was larger than allowed.
    pub clipped: bool,
}

/// Scales `x` down to the L2 norm `max_norm` if it is longer: `x *= max_norm / |x|` if `|x| > max_norm`.
///
/// No epsilon is added. `max_norm = 0` gives zeros, `+Inf` never clips. Neither `|x|` nor the factor needs to be
/// representable. Within 4 ULP of the true value.
///
/// # Errors
/// [`Error::Argument`] if `max_norm` is negative or NaN; [`Error::NonFinite`] if an element is not finite, and then
/// nothing is written.
///
/// ```
/// let mut g = [3e38_f32, 3e38, 3e38, 3e38];
/// nanproof::clip_by_norm(&mut g, 2.0)?;
/// assert_eq!(g, [1.0; 4]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn clip_by_norm<T: Float>(x: &mut [T], max_norm: T) -> Result<Clip<T>> {
    clip("clip_by_norm", &mut [x], max_norm, |tensors| Operand::slice("x", tensors[0]))
}

/// Scales all tensors by one factor, down to the common L2 norm `max_norm` if it is larger:
/// `x *= max_norm / norm` if `norm > max_norm`, with `norm = sqrt(sum of the squares of all elements)`.
///
/// No epsilon is added. `max_norm = 0` gives zeros, `+Inf` never clips. Neither the norm nor the factor needs to be
/// representable. No tensors, and empty ones, have norm 0. Within 4 ULP of the true value. Source: Pascanu, Mikolov
/// and Bengio, "On the difficulty of training recurrent neural networks", 2013.
///
/// # Errors
/// [`Error::Argument`] if `max_norm` is negative or NaN; [`Error::NonFinite`] if an element is not finite: the report
/// says which tensor, which element, and how many of each class, and nothing is written.
///
/// ```
/// let (mut dw, mut db) = ([3.0_f32, 0.0], [4.0_f32]);
/// let clip = nanproof::clip_by_global_norm(&mut [&mut dw, &mut db], 1.0)?;
/// assert_eq!((clip.norm, dw, db), (5.0, [0.6, 0.0], [0.8]));
///
/// let mut bad = [0.0, f32::INFINITY];
/// let error = nanproof::clip_by_global_norm(&mut [&mut dw, &mut bad], 1.0).unwrap_err();
/// assert_eq!(error.to_string(), "clip_by_global_norm: tensors[1][1] is +Inf, passed in; 1 of 4 elements is not finite");
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn clip_by_global_norm<T: Float>(tensors: &mut [&mut [T]], max_norm: T) -> Result<Clip<T>> {
    clip("clip_by_global_norm", tensors, max_norm, |tensors| Operand::tensors("tensors", tensors))
}

fn clip<T: Float>(
    operation: &'static str,
    tensors: &mut [&mut [T]],
    max_norm: T,
    operand: impl for<'a> Fn(&'a [&mut [T]]) -> Operand<'a, T>,
) -> Result<Clip<T>> {
    check_limit(operation, "max_norm", max_norm)?;
    let norm = norm_of(&tensors.iter().map(|x| &**x).collect::<Vec<_>>())?;
    if !norm.mantissa.is_finite() {
        diagnose(operation, [operand(tensors)], [], overflow_or_invalid)?;
    }
    let value = norm.value();
    if value <= max_norm {
        return Ok(Clip { norm: value, scale: T::one(), clipped: false });
    }
    let factor = Scaled::new(max_norm, 0).div(norm);
    for x in tensors {
        if max_norm.is_zero() {
            x.fill(T::zero());
        } else {
            scale(x, factor)?;
        }
    }
    Ok(Clip { norm: value, scale: factor.value(), clipped: true })
}

/// Moves each element into `-limit ..= limit`: `x = min(max(x, -limit), limit)`. Returns how many were outside.
///
/// Infinities become the limit; `limit = +Inf` never clips.
///
/// Gradient: [`clip_by_value_backward`].
///
/// # Errors
/// [`Error::Argument`] if `limit` is negative or NaN; [`Error::NonFinite`] if the result would not be finite (an element
/// is NaN, or infinite with an infinite limit), and then nothing is written.
///
/// ```
/// let mut g = [0.5_f32, -3.0, f32::INFINITY];
/// assert_eq!(nanproof::clip_by_value(&mut g, 1.0)?, 2);
/// assert_eq!(g, [0.5, -1.0, 1.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn clip_by_value<T: Float>(x: &mut [T], limit: T) -> Result<usize> {
    check_limit("clip_by_value", "limit", limit)?;
    // A sum, not a filter: the compiler makes it a loop over vectors.
    let outside = x.iter().map(|x| usize::from(x.abs() > limit)).sum();
    if !apply_if_finite(Clamp { limit }, [], [&mut *x])?.finite {
        let clipped = |_, x: T| x.abs() > limit;
        diagnose("clip_by_value", [Operand::slice("x", x).overlook(clipped)], [], overflow_or_invalid)?;
    }
    Ok(outside)
}

/// The gradient of [`clip_by_value`]: `dx = dy` where `-limit <= x <= limit`, 0 where it was clipped, where `dy` is not
/// read. A NaN in `x` gives NaN.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ; [`Error::Argument`] if `limit` is negative or NaN; [`Error::NonFinite`] if an
/// element written is not finite.
///
/// ```
/// let mut dx = [0.0_f32; 3];
/// nanproof::clip_by_value_backward(&[0.5, -3.0, 1.0], 1.0, &[1.0, f32::NAN, 2.0], &mut dx)?;
/// assert_eq!(dx, [1.0, 0.0, 2.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn clip_by_value_backward<T: Float>(x: &[T], limit: T, dy: &[T], dx: &mut [T]) -> Result<()> {
    const NAME: &str = "clip_by_value_backward";
    check_limit(NAME, "limit", limit)?;
    check_len(NAME, "dy", dy.len(), x.len(), "the length of x")?;
    check_len(NAME, "dx", dx.len(), x.len(), "the length of x")?;
    if apply(ClampBackward { limit }, [x, dy], [&mut *dx])?.finite {
        return Ok(());
    }
    let is_clipped = |index| matches!(index, Index::At(i) if x[i].abs() > limit);
    let inputs = [
        Operand::slice("x", x).overlook(|_, x| !x.is_nan()),
        Operand::slice("dy", dy).overlook(move |index, _| is_clipped(index)),
    ];
    diagnose(NAME, inputs, [Operand::slice("dx", dx)], overflow_or_invalid)
}

fn check_limit<T: Float>(operation: &'static str, argument: &'static str, limit: T) -> Result<()> {
    if limit >= T::zero() {
        Ok(())
    } else {
        Err(Error::Argument { operation, argument, problem: "is negative or NaN and must be 0 or more" })
    }
}

/// `clamp(x, -limit, limit)`.
#[derive(Clone, Copy, Debug)]
pub struct Clamp<T> {
    limit: T,
}

impl<T: Float> Formula<T, 0, 1> for Clamp<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(self, []: [Lanes<T, S>; 0], [x]: [Lanes<T, S>; 1], _: &mut Guard<T, S>) -> [Lanes<T, S>; 1] {
        let limit = x.all(self.limit);
        [limit.lt(x.abs()).select(limit.copy_sign(x), x)]
    }
}

/// The gradient of [`Clamp`].
#[derive(Clone, Copy, Debug)]
pub struct ClampBackward<T> {
    limit: T,
}

impl<T: Float> Formula<T, 2, 1> for ClampBackward<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [x, dy]: [Lanes<T, S>; 2],
        _: [Lanes<T, S>; 1],
        _: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 1] {
        let kept = x.eq(x).select(dy, x);
        [x.all(self.limit).lt(x.abs()).select(x.all(T::zero()), kept)]
    }
}
