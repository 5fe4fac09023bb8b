//! The activations and their gradients as formulas over lanes: one kernel for all of each.

use crate::float::Float;
use crate::lanes::{Lanes, Mask};
use crate::math;
use crate::simd::Simd;
use crate::sweep::{Formula, Guard};

/// An activation that is not a [`math::Function`].
#[derive(Clone, Copy, Debug)]
pub enum Forward<T> {
    Relu,
    /// With the slope below 0.
    LeakyRelu(T),
    /// With the limit at `-Inf`, negated.
    Elu(T),
    Gelu,
    GeluTanh,
    Silu,
    Mish,
    HardSigmoid,
    HardSwish,
    HardTanh,
}

/// The gradient of an activation.
#[derive(Clone, Copy, Debug)]
pub enum Backward<T> {
    Relu,
    LeakyRelu(T),
    Elu(T),
    Gelu,
    GeluTanh,
    Silu,
    Mish,
    Softplus,
    LogSigmoid,
    Tanh,
    Sigmoid,
    HardSigmoid,
    HardSwish,
    HardTanh,
}

impl<T: Float> Formula<T, 0, 1> for Forward<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(self, _: [Lanes<T, S>; 0], [x]: [Lanes<T, S>; 1], _: &mut Guard<T, S>) -> [Lanes<T, S>; 1] {
        [match self {
            Self::Relu => rectify(x),
            Self::LeakyRelu(slope) => below_zero(x, x * x.all(slope)),
            Self::Elu(alpha) => below_zero(x, math::exp_m1::exp_m1_times(x, x.all(alpha))),
            Self::Gelu => math::gelu(x),
            Self::GeluTanh => math::gelu_tanh(x),
            Self::Silu => math::silu(x),
            Self::Mish => math::mish(x),
            Self::HardSigmoid => hard_sigmoid(x),
            Self::HardSwish => x.le(-x.all(three())).select(x.all(T::zero()), x * hard_sigmoid(x)),
            Self::HardTanh => math::clamp(x, -T::one(), T::one()),
        }]
    }
}

impl<T: Float> Formula<T, 2, 1> for Backward<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [x, dy]: [Lanes<T, S>; 2],
        _: [Lanes<T, S>; 1],
        _: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 1] {
        let zero = x.all(T::zero());
        [match self {
            Self::Relu => rectify_backward(x, dy),
            Self::LeakyRelu(slope) => bent_backward(x, dy, slope, dy * x.all(slope)),
            Self::Elu(alpha) => {
                let ((m, n), (a, a_exp)) = (math::exp_parts(x, zero), math::split_exponent(x.all(alpha)));
                bent_backward(x, dy, alpha, math::scaled_product(dy, m * a, n + a_exp))
            }
            Self::Gelu => math::gelu_derivative_times(x, dy),
            Self::GeluTanh => math::gelu_tanh_derivative_times(x, dy),
            Self::Silu => math::silu_derivative_times(x, dy),
            Self::Mish => math::mish_derivative_times(x, dy),
            Self::Softplus => math::sigmoid_times(dy, x, zero),
            Self::LogSigmoid => math::sigmoid_times(dy, -x, zero),
            Self::Tanh => math::tanh_derivative_times(x, dy),
            Self::Sigmoid => math::sigmoid_derivative_times(x, dy),
            Self::HardSigmoid => unless(x, x.all(three()).le(x.abs()), dy / x.all(six())),
            Self::HardSwish => {
                let between = dy * ((x + x + x.all(three())) / x.all(six()));
                let above = x.all(three()).le(x).select(dy, between);
                unless(x, x.le(-x.all(three())), above)
            }
            Self::HardTanh => unless(x, x.all(T::one()).le(x.abs()), dy),
        }]
    }
}

/// 0 where the mask is true, NaN where `x` is, elsewhere `dx`.
#[inline(always)]
fn unless<T: Float, S: Simd<T>>(x: Lanes<T, S>, flat: Mask<T, S>, dx: Lanes<T, S>) -> Lanes<T, S> {
    flat.select(x.all(T::zero()), x.eq(x).select(dx, x))
}

/// `max(x, 0)`; NaN for NaN.
#[inline(always)]
pub(crate) fn rectify<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    below_zero(x, x.all(T::zero()))
}

/// `dy` where `x > 0`, else 0; NaN where `x` is.
#[inline(always)]
pub(crate) fn rectify_backward<T: Float, S: Simd<T>>(x: Lanes<T, S>, dy: Lanes<T, S>) -> Lanes<T, S> {
    unless(x, x.le(x.all(T::zero())), dy)
}

/// `y` where `x <= 0`, else `x`.
#[inline(always)]
fn below_zero<T: Float, S: Simd<T>>(x: Lanes<T, S>, y: Lanes<T, S>) -> Lanes<T, S> {
    x.le(x.all(T::zero())).select(y, x)
}

/// `dx` where `x < 0`, `dy` where `x > 0`; NaN where `x` is. At 0, where the slope leaps from `slope` to 1, the subgradient
/// of least norm.
#[inline(always)]
fn bent_backward<T: Float, S: Simd<T>>(x: Lanes<T, S>, dy: Lanes<T, S>, slope: T, dx: Lanes<T, S>) -> Lanes<T, S> {
    let zero = x.all(T::zero());
    let least = if slope < T::zero() { zero } else { dy * x.all(slope.min(T::one())) };
    let kept = x.eq(x).select(dy, x);
    x.lt(zero).select(dx, x.eq(zero).select(least, kept))
}

/// `(x + 3) / 6` from 0 to 1.
#[inline(always)]
fn hard_sigmoid<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> Lanes<T, S> {
    math::clamp((x + x.all(three())) / x.all(six()), T::zero(), T::one())
}

#[inline(always)]
fn three<T: Float>() -> T {
    T::one() + T::one() + T::one()
}

#[inline(always)]
fn six<T: Float>() -> T {
    three::<T>() + three()
}
