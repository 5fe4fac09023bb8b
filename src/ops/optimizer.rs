//! Steps of optimisers, fused over a tensor: stochastic gradient descent with momentum, and AdamW.

use crate::error::{Error, Result, check_len};
use crate::finite::{Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::lanes::Lanes;
use crate::simd::Simd;
use crate::sweep::{Formula, Guard, apply_if_finite};

/// Stochastic gradient descent with momentum: `v = momentum v + g + weight_decay w`, then `w = w - learning_rate v`.
///
/// ```
/// let sgd = nanproof::Sgd { learning_rate: 0.1, momentum: 0.9, weight_decay: 0.0 };
/// let (mut w, mut v) = ([1.0_f32], [1.0]);
/// sgd.step(&mut w, &[0.1], &mut v)?;
/// assert_eq!((w, v), ([0.9], [1.0]));
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd<T> {
    /// The length of a step, 0 or more.
    pub learning_rate: T,
    /// How much of the last step is kept, in `[0, 1)`; 0 is plain gradient descent.
    pub momentum: T,
    /// The pull of each weight towards 0, 0 or more.
    pub weight_decay: T,
}

impl<T: Float> Sgd<T> {
    /// Updates the weights `w` and the velocity `v`, which starts as zeros, by the gradient `g`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the lengths differ; [`Error::Argument`] if a setting is out of its range;
    /// [`Error::NonFinite`] if a gradient is not finite, or a new weight would not be: then nothing is written.
    ///
    /// ```
    /// let sgd = nanproof::Sgd { learning_rate: 1.0_f32, momentum: 0.0, weight_decay: 0.0 };
    /// let (mut w, mut v) = ([1.0, 2.0], [0.0; 2]);
    /// let error = sgd.step(&mut w, &[1.0, f32::NAN], &mut v).unwrap_err();
    /// assert_eq!(error.to_string(), "sgd: g[1] is NaN, passed in; 1 of 2 elements is not finite");
    /// assert_eq!(w, [1.0, 2.0]);
    /// ```
    pub fn step(&self, w: &mut [T], g: &[T], v: &mut [T]) -> Result<()> {
        const NAME: &str = "sgd";
        let Self { learning_rate, momentum, weight_decay } = *self;
        check_setting(NAME, "learning_rate", learning_rate, T::max_value())?;
        check_setting(NAME, "momentum", momentum, below_one())?;
        check_setting(NAME, "weight_decay", weight_decay, T::max_value())?;
        check_len(NAME, "g", g.len(), w.len(), "the length of w")?;
        check_len(NAME, "v", v.len(), w.len(), "the length of w")?;
        if apply_if_finite(SgdStep { settings: *self }, [g], [&mut *w, &mut *v])?.finite {
            return Ok(());
        }
        fault(NAME, [("g", g), ("w", w), ("v", v)])
    }
}

/// Adam with decoupled weight decay: with `m = beta1 m + (1 - beta1) g` and `v = beta2 v + (1 - beta2) g^2`,
/// `w = w - learning_rate (weight_decay w + (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps))` at step `t`.
///
/// Source: Loshchilov and Hutter, "Decoupled weight decay regularization", 2019.
///
/// ```
/// let adamw = nanproof::AdamW { learning_rate: 0.1, ..nanproof::AdamW::default() };
/// let (mut w, mut m, mut v) = ([1.0_f64], [0.0], [0.0]);
/// adamw.step(1, &mut w, &[1e-3], &mut m, &mut v)?;
/// assert!((w[0] - 0.899).abs() < 1e-5);
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW<T> {
    /// The length of a step, 0 or more.
    pub learning_rate: T,
    /// How much of the mean gradient is kept, in `[0, 1)`.
    pub beta1: T,
    /// How much of the mean square is kept, in `[0, 1)`.
    pub beta2: T,
    /// What keeps the quotient finite where the mean square is 0: a normal number above 0.
    pub eps: T,
    /// The pull of each weight towards 0, 0 or more.
    pub weight_decay: T,
}

impl<T: Float> Default for AdamW<T> {
    /// `learning_rate` 0.001, `beta1` 0.9, `beta2` 0.999, `eps` 1e-8, `weight_decay` 0.01.
    fn default() -> Self {
        let number = |x: f64| T::from(x).unwrap_or_else(T::zero);
        Self {
            learning_rate: number(1e-3),
            beta1: number(0.9),
            beta2: number(0.999),
            eps: number(1e-8),
            weight_decay: number(0.01),
        }
    }
}

impl<T: Float> AdamW<T> {
    /// Updates the weights `w` and the means `m` and `v`, which start as zeros, by the gradient `g`; `t` counts the steps
    /// from 1.
    ///
    /// # Errors
    /// [`Error::Shape`] if the lengths differ; [`Error::Argument`] if `t` is 0 or a setting is out of its range;
    /// [`Error::NonFinite`] if a gradient is not finite, or a result would not be (the square of a gradient may
    /// overflow): then nothing is written.
    ///
    /// ```
    /// let (mut w, mut m, mut v) = ([1.0_f32], [0.0], [0.0]);
    /// nanproof::AdamW::default().step(1, &mut w, &[0.0], &mut m, &mut v)?; // no 0 / 0
    /// assert_eq!(w, [0.99999]);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    pub fn step(&self, t: u32, w: &mut [T], g: &[T], m: &mut [T], v: &mut [T]) -> Result<()> {
        const NAME: &str = "adamw";
        let Self { learning_rate, beta1, beta2, eps, weight_decay } = *self;
        check_setting(NAME, "learning_rate", learning_rate, T::max_value())?;
        check_setting(NAME, "beta1", beta1, below_one())?;
        check_setting(NAME, "beta2", beta2, below_one())?;
        check_setting(NAME, "weight_decay", weight_decay, T::max_value())?;
        if !(eps >= T::min_positive_value() && eps.is_finite()) {
            return Err(Error::Argument {
                operation: NAME,
                argument: "eps",
                problem: "must be a normal number above 0",
            });
        }
        if t == 0 {
            return Err(Error::Argument { operation: NAME, argument: "t", problem: "is 0; steps count from 1" });
        }
        for (operand, len) in [("g", g.len()), ("m", m.len()), ("v", v.len())] {
            check_len(NAME, operand, len, w.len(), "the length of w")?;
        }
        let step = AdamWStep {
            settings: *self,
            correction1: T::one() - integer_power(beta1, t),
            correction2: T::one() - integer_power(beta2, t),
        };
        if apply_if_finite(step, [g], [&mut *w, &mut *m, &mut *v])?.finite {
            return Ok(());
        }
        fault(NAME, [("g", g), ("w", w), ("m", m), ("v", v)])
    }
}

/// The report on operands of which one is not finite, or whose update would overflow.
#[cold]
fn fault<T: Float, const N: usize>(operation: &'static str, operands: [(&'static str, &[T]); N]) -> Result<()> {
    diagnose(operation, operands.map(|(name, x)| Operand::slice(name, x)), [], overflow_or_invalid)?;
    let result = Operand::scalar("the update", T::infinity());
    diagnose(operation, [], [result], overflow_or_invalid)
}

fn check_setting<T: Float>(operation: &'static str, argument: &'static str, x: T, largest: T) -> Result<()> {
    if x >= T::zero() && x <= largest {
        Ok(())
    } else {
        Err(Error::Argument { operation, argument, problem: "is out of its range" })
    }
}

/// The largest number below 1.
fn below_one<T: Float>() -> T {
    T::one() - T::epsilon() / (T::one() + T::one())
}

/// `x^n` by squaring: the same bits everywhere, which `powi` does not promise.
fn integer_power<T: Float>(mut x: T, mut n: u32) -> T {
    let mut power = T::one();
    while n > 0 {
        if n % 2 == 1 {
            power = power * x;
        }
        x = x * x;
        n /= 2;
    }
    power
}

/// One element of [`Sgd::step`].
#[derive(Clone, Copy, Debug)]
pub struct SgdStep<T> {
    settings: Sgd<T>,
}

impl<T: Float> Formula<T, 1, 2> for SgdStep<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [g]: [Lanes<T, S>; 1],
        [w, v]: [Lanes<T, S>; 2],
        _: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 2] {
        let Sgd { learning_rate, momentum, weight_decay } = self.settings;
        let v = v.mul_add(g.all(momentum), w.mul_add(g.all(weight_decay), g));
        [v.mul_add(g.all(-learning_rate), w), v]
    }
}

/// One element of [`AdamW::step`].
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep<T> {
    settings: AdamW<T>,
    correction1: T,
    correction2: T,
}

impl<T: Float> Formula<T, 1, 3> for AdamWStep<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [g]: [Lanes<T, S>; 1],
        [w, m, v]: [Lanes<T, S>; 3],
        _: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 3] {
        let AdamW { learning_rate, beta1, beta2, eps, weight_decay } = self.settings;
        let one = T::one();
        let m = m.mul_add(g.all(beta1), g * g.all(one - beta1));
        let v = v.mul_add(g.all(beta2), (g * g.all(one - beta2)) * g);
        let scale = (v / g.all(self.correction2)).sqrt() + g.all(eps);
        let direction = (m / g.all(self.correction1)) / scale;
        let w = w.mul_add(g.all(-learning_rate * weight_decay), w);
        [direction.mul_add(g.all(-learning_rate), w), m, v]
    }
}
