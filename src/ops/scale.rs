//! Multiplication of a slice by one number, in place: what the gradients of norms and sums and the clipping share.

use crate::error::Result;
use crate::float::Float;
use crate::lanes::Lanes;
use crate::math;
use crate::scaled::Scaled;
use crate::simd::Simd;
use crate::sweep::{Formula, Guard, apply};

/// Multiplies `x` by `factor` and says whether all of it is finite; no factor is too large or too small for `T`.
pub(crate) fn scale<T: Float>(x: &mut [T], factor: Scaled<T>) -> Result<bool> {
    let plain = factor.value();
    let representable = plain.is_normal() || factor.mantissa.is_zero() || !factor.mantissa.is_finite();
    if representable {
        return scale_by(x, plain);
    }
    let exponent = |n: i32| T::from(n).unwrap_or_else(T::zero);
    let steps = if factor.exponent > 0 {
        // The power of two goes first: the result is at least as large, so only an infinite one overflows.
        ScaleSteps { before: exponent(factor.exponent), factor: factor.mantissa, after: T::zero() }
    } else {
        // It goes last, after half the mantissa, which is below 1 and cannot overflow.
        let half = T::one() / (T::one() + T::one());
        ScaleSteps { before: T::zero(), factor: factor.mantissa * half, after: exponent(factor.exponent + 1) }
    };
    Ok(apply(steps, [], [x])?.finite)
}

/// The same with a factor that is a number of the type, also a subnormal one: each product is rounded once.
pub(crate) fn scale_by<T: Float>(x: &mut [T], factor: T) -> Result<bool> {
    Ok(apply(Scale { factor }, [], [x])?.finite)
}

/// `x * factor`.
#[derive(Clone, Copy, Debug)]
pub struct Scale<T> {
    factor: T,
}

impl<T: Float> Formula<T, 0, 1> for Scale<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(self, []: [Lanes<T, S>; 0], [x]: [Lanes<T, S>; 1], _: &mut Guard<T, S>) -> [Lanes<T, S>; 1] {
        [x * x.all(self.factor)]
    }
}

/// `x * 2^before * factor * 2^after`, in this order.
#[derive(Clone, Copy, Debug)]
pub struct ScaleSteps<T> {
    before: T,
    factor: T,
    after: T,
}

impl<T: Float> Formula<T, 0, 1> for ScaleSteps<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(self, []: [Lanes<T, S>; 0], [x]: [Lanes<T, S>; 1], _: &mut Guard<T, S>) -> [Lanes<T, S>; 1] {
        let raised = math::scale(x, x.all(self.before));
        [math::scale(raised * x.all(self.factor), x.all(self.after))]
    }
}
