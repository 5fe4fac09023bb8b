//! Steps of optimisers, fused over a tensor: stochastic gradient descent with momentum, Adam, and AdamW.

use crate::error::{Error, Result, check_len};
use crate::finite::{Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::Runs;
use crate::lanes::Lanes;
use crate::long::Long;
use crate::scaled::power;
use crate::simd::Simd;
use crate::sweep::{Elementwise, Formula, Guard, Rehearsal, apply, apply_if_finite, rehearse};

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
    /// [`Error::NonFinite`] if an operand is not finite, or the new `v` or `w` would not be: then nothing is written.
    /// With `momentum = 0` the old `v` is not read. What overflows on the way does no harm.
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
        let step = SgdStep { settings: *self };
        // What the largest calm operands may lead to.
        let calm = Calm::<T>::limit();
        let worst_v = calm + calm + calm * weight_decay;
        if apply_if_calm(step, [g], [&mut *w, &mut *v], worst_v + calm + learning_rate * worst_v)? {
            return Ok(());
        }
        let read_v = if momentum.is_zero() { &[] } else { &*v };
        let inputs = [Operand::slice("g", g), Operand::slice("w", w), Operand::slice("v", read_v)];
        diagnose(NAME, inputs, [], overflow_or_invalid)?;
        apply_in_any_range(NAME, step, g, [("w", w), ("v", v)])
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
    /// What keeps the quotient finite where the mean square is 0: a normal number above 0. Gradients whose squares
    /// underflow are divided by it alone, so it bounds a step by the mean gradient times `learning_rate / eps`.
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
    /// [`Error::NonFinite`] if an operand is not finite, or the new `m`, `v` (as the square of a gradient may) or `w`
    /// would not be: then nothing is written. With `beta1 = 0` the old `m` is not read, with `beta2 = 0` the old `v`. What
    /// overflows on the way does no harm.
    ///
    /// ```
    /// let (mut w, mut m, mut v) = ([1.0_f32], [0.0], [0.0]);
    /// nanproof::AdamW::default().step(1, &mut w, &[0.0], &mut m, &mut v)?; // no 0 / 0
    /// assert_eq!(w, [0.99999]);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    pub fn step(&self, t: u32, w: &mut [T], g: &[T], m: &mut [T], v: &mut [T]) -> Result<()> {
        adam_step("adamw", *self, Decay::Weights, t, w, g, m, v)
    }
}

/// Adam: with `g' = g + weight_decay w`, `m = beta1 m + (1 - beta1) g'` and `v = beta2 v + (1 - beta2) g'^2`,
/// `w = w - learning_rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)` at step `t`.
///
/// Source: Kingma and Ba, "Adam: a method for stochastic optimization", 2015.
///
/// ```
/// let adam = nanproof::Adam { learning_rate: 0.1, ..nanproof::Adam::default() };
/// let (mut w, mut m, mut v) = ([1.0_f64], [0.0], [0.0]);
/// adam.step(1, &mut w, &[1e-3], &mut m, &mut v)?;
/// assert!((w[0] - 0.9).abs() < 1e-5);
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam<T> {
    /// The length of a step, 0 or more.
    pub learning_rate: T,
    /// How much of the mean gradient is kept, in `[0, 1)`.
    pub beta1: T,
    /// How much of the mean square is kept, in `[0, 1)`.
    pub beta2: T,
    /// What keeps the quotient finite where the mean square is 0: a normal number above 0. Gradients whose squares
    /// underflow are divided by it alone, so it bounds a step by the mean gradient times `learning_rate / eps`.
    pub eps: T,
    /// The part of each weight that is added to its gradient, 0 or more; 0 by default.
    pub weight_decay: T,
}

impl<T: Float> Default for Adam<T> {
    fn default() -> Self {
        let AdamW { learning_rate, beta1, beta2, eps, weight_decay: _ } = AdamW::default();
        Self { learning_rate, beta1, beta2, eps, weight_decay: T::zero() }
    }
}

impl<T: Float> Adam<T> {
    /// Updates the weights `w` and the means `m` and `v`, which start as zeros, by the gradient `g`; `t` counts the steps
    /// from 1.
    ///
    /// # Errors
    /// Those of [`AdamW::step`].
    ///
    /// ```
    /// let (mut w, mut m, mut v) = ([1.0_f32], [0.0], [0.0]);
    /// nanproof::Adam::default().step(1, &mut w, &[0.0], &mut m, &mut v)?; // no 0 / 0
    /// assert_eq!(w, [1.0]);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    pub fn step(&self, t: u32, w: &mut [T], g: &[T], m: &mut [T], v: &mut [T]) -> Result<()> {
        let Self { learning_rate, beta1, beta2, eps, weight_decay } = *self;
        let settings = AdamW { learning_rate, beta1, beta2, eps, weight_decay };
        adam_step("adam", settings, Decay::Gradients, t, w, g, m, v)
    }
}

/// What the weight decay is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decay {
    Weights,
    Gradients,
}

#[expect(clippy::too_many_arguments, reason = "those of step, and what tells the two optimisers apart")]
fn adam_step<T: Float>(
    name: &'static str,
    settings: AdamW<T>,
    decay: Decay,
    t: u32,
    w: &mut [T],
    g: &[T],
    m: &mut [T],
    v: &mut [T],
) -> Result<()> {
    let AdamW { learning_rate, beta1, beta2, eps, weight_decay } = settings;
    check_setting(name, "learning_rate", learning_rate, T::max_value())?;
    check_setting(name, "beta1", beta1, below_one())?;
    check_setting(name, "beta2", beta2, below_one())?;
    check_setting(name, "weight_decay", weight_decay, T::max_value())?;
    if !(eps >= T::min_positive_value() && eps.is_finite()) {
        return Err(Error::Argument { operation: name, argument: "eps", problem: "must be a normal number above 0" });
    }
    if t == 0 {
        return Err(Error::Argument { operation: name, argument: "t", problem: "is 0; steps count from 1" });
    }
    for (operand, len) in [("g", g.len()), ("m", m.len()), ("v", v.len())] {
        check_len(name, operand, len, w.len(), "the length of w")?;
    }
    let mean_correction = one_minus_power(beta1, t);
    let step = AdamWStep {
        settings,
        decay,
        mean_correction,
        rate: learning_rate / mean_correction,
        correction: one_minus_power(beta2, t).recip(),
    };
    // What the largest calm operands may lead to.
    let calm = Calm::<T>::limit();
    let pull = calm + calm * weight_decay;
    let worst_w = calm + learning_rate * weight_decay * calm + ((calm + pull) / eps) * step.rate;
    let worst_v = (calm + pull * pull) * step.correction;
    if apply_if_calm(step, [g], [&mut *w, &mut *m, &mut *v], worst_w + worst_v)? {
        return Ok(());
    }
    let read = |beta: T, mean| if beta.is_zero() { &[][..] } else { mean };
    let (read_m, read_v) = (read(beta1, &*m), read(beta2, &*v));
    let inputs = [("g", g), ("w", &*w), ("m", read_m), ("v", read_v)].map(|(name, x)| Operand::slice(name, x));
    diagnose(name, inputs, [], overflow_or_invalid)?;
    apply_in_any_range(name, step, g, [("w", w), ("m", m), ("v", v)])
}

/// Applies a step if all that it would write is finite, and says so; else leaves everything as it was.
///
/// Calm operands can be told at the speed at which they are read. If `worst`, the largest that they lead to, is not near
/// the largest number, the step is then taken at once; if they are not, it is rehearsed.
fn apply_if_calm<T, F: Formula<T, 1, M>, const M: usize>(
    step: F,
    inputs: [&[T]; 1],
    mut outputs: [&mut [T]; M],
    worst: T,
) -> Result<bool>
where
    Calm<T>: Formula<T, 1, M>,
    T: Float
        + for<'a> Runs<Elementwise<'a, T, F, 1, M>>
        + for<'a> Runs<Rehearsal<'a, T, F, 1, M>>
        + for<'a> Runs<Rehearsal<'a, T, Calm<T>, 1, M>>,
{
    let half = T::one() / (T::one() + T::one());
    if worst <= T::max_value() * half {
        let seen = rehearse(Calm::new(), inputs, outputs.each_ref().map(|y| &**y))?;
        if seen.finite && seen.guarded == 0 {
            apply(step, inputs, outputs.each_mut().map(|y| &mut **y))?;
            return Ok(true);
        }
    }
    Ok(apply_if_finite(step, inputs, outputs)?.finite)
}

/// Applies a step to operands that are finite if its results are, too: elements that are not are computed again, as
/// something on the way may have been too large.
#[cold]
fn apply_in_any_range<T, F: Step<T, M>, const M: usize>(
    name: &'static str,
    step: F,
    g: &[T],
    outputs: [(&'static str, &mut [T]); M],
) -> Result<()>
where
    T: Float + for<'a> Runs<Elementwise<'a, T, F, 1, M>>,
{
    let mut results = outputs.each_ref().map(|(_, y)| y.to_vec());
    apply(step, [g], results.each_mut().map(|y| &mut y[..]))?;
    for (i, &g) in g.iter().enumerate() {
        if results.iter().any(|y| !y[i].is_finite()) {
            let new = step.of(g, outputs.each_ref().map(|(_, y)| y[i]));
            results.iter_mut().zip(new).for_each(|(y, new)| y[i] = new);
        }
    }
    // The weights last: they are made of the others.
    let operands = (1..M).chain([0]).map(|k| Operand::slice(outputs[k].0, &results[k]));
    diagnose(name, [], operands, overflow_or_invalid)?;
    outputs.into_iter().zip(&results).for_each(|((_, y), new)| y.copy_from_slice(new));
    Ok(())
}

fn check_setting<T: Float>(operation: &'static str, argument: &'static str, x: T, largest: T) -> Result<()> {
    if x >= T::zero() && x <= largest {
        return Ok(());
    }
    let problem = if largest < T::one() { "must be at least 0 and below 1" } else { "must be finite and not negative" };
    Err(Error::Argument { operation, argument, problem })
}

/// The largest number below 1.
fn below_one<T: Float>() -> T {
    T::one() - T::epsilon() / (T::one() + T::one())
}

/// `1 - x^n`, as `(1 - x) (1 + x + ... + x^(n-1))`: nothing cancels, and the bits are the same everywhere, which `powi`
/// does not promise. In `f64`, as the rounding errors of so many terms add up.
fn one_minus_power<T: Float>(x: T, n: u32) -> T {
    let x = x.to_f64().unwrap_or(f64::NAN);
    let (mut sum, mut power) = (0.0, 1.0); // of no terms, and x^0
    for bit in (0..u32::BITS - n.leading_zeros()).rev() {
        sum += sum * power;
        power *= power;
        if n >> bit & 1 == 1 {
            sum = sum * x + 1.0;
            power *= x;
        }
    }
    T::from((1.0 - x) * sum).unwrap_or_else(T::nan)
}

/// `beta mean + new`; with `beta = 0` the mean is not read.
#[inline(always)]
fn decayed<T: Float, S: Simd<T>>(mean: Lanes<T, S>, beta: T, new: Lanes<T, S>) -> Lanes<T, S> {
    if beta.is_zero() { new } else { mean.mul_add(mean.all(beta), new) }
}

/// One element of a step of an optimiser.
trait Step<T: Float, const M: usize>: Formula<T, 1, M> {
    /// The same in arithmetic of more digits, in which nothing but the results can leave the range of the type.
    fn of(self, g: T, y: [T; M]) -> [T; M];
}

/// `beta mean + new`, rounded; with `beta = 0` the mean is not read.
fn rounded_mean<T: Float>(mean: T, beta: T, new: Long) -> T {
    let old = if beta.is_zero() { Long::ZERO } else { Long::of(mean).mul(Long::of(beta)) };
    old.add(new).round(0)
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
        let pull = w.mul_add(g.all(weight_decay), g);
        let v = decayed(v, momentum, pull);
        [v.mul_add(g.all(-learning_rate), w), v]
    }
}

impl<T: Float> Step<T, 2> for SgdStep<T> {
    fn of(self, g: T, [w, v]: [T; 2]) -> [T; 2] {
        let Sgd { learning_rate, momentum, weight_decay } = self.settings;
        let w = Long::of(w);
        let pull = w.mul(Long::of(weight_decay)).add(Long::of(g));
        let v = rounded_mean(v, momentum, pull);
        let step = Long::of(v).mul(Long::of(learning_rate));
        [w.add(step.neg()).round(0), v]
    }
}

/// One element of [`AdamW::step`] or [`Adam::step`].
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep<T> {
    settings: AdamW<T>,
    decay: Decay,
    /// What the mean is divided by.
    mean_correction: T,
    /// The learning rate over that.
    rate: T,
    /// What the mean square is multiplied by.
    correction: T,
}

impl<T: Float> AdamWStep<T> {
    /// The root of the corrected mean square, which may itself be too large.
    #[inline(always)]
    fn root<S: Simd<T>>(self, v: Lanes<T, S>) -> Lanes<T, S> {
        let corrected = v * v.all(self.correction);
        let too_large = corrected.eq(v.all(T::infinity()));
        if !too_large.any() {
            return corrected.sqrt();
        }
        // No correction is as large as the square of this power.
        let half = T::FRACTION_BITS.cast_signed() / 2 + 2;
        let smaller = v * v.all(power(-2 * half)) * v.all(self.correction);
        too_large.select(smaller.sqrt() * v.all(power(half)), corrected.sqrt())
    }
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
        let g = if self.decay == Decay::Gradients { w.mul_add(g.all(weight_decay), g) } else { g };
        let m = decayed(m, beta1, g * g.all(one - beta1));
        let v = decayed(v, beta2, (g * g.all(one - beta2)) * g);
        let direction = m / (self.root(v) + g.all(eps));
        let w = if self.decay == Decay::Weights { w.mul_add(g.all(-learning_rate * weight_decay), w) } else { w };
        [direction.mul_add(g.all(-self.rate), w), m, v]
    }
}

impl<T: Float> Step<T, 3> for AdamWStep<T> {
    fn of(self, g: T, [w, m, v]: [T; 3]) -> [T; 3] {
        let AdamW { learning_rate, beta1, beta2, eps, weight_decay } = self.settings;
        let [w, rate] = [w, learning_rate].map(Long::of);
        let pull = w.mul(Long::of(weight_decay));
        let rest = |beta: T| Long::of(T::one() - beta);
        let g = if self.decay == Decay::Gradients { Long::of(g).add(pull) } else { Long::of(g) };
        let m = rounded_mean(m, beta1, g.mul(rest(beta1)));
        let v = rounded_mean(v, beta2, g.mul(g).mul(rest(beta2)));
        let root = Long::of(v).mul(Long::of(self.correction)).sqrt();
        let direction = Long::of(m).div(Long::of(self.mean_correction)).div(root.add(Long::of(eps)));
        let step = if self.decay == Decay::Weights { direction.add(pull) } else { direction };
        [w.add(step.mul(rate).neg()).round(0), m, v]
    }
}

/// Not a step but a look at its operands: finite if all are small enough that no square or sum of them overflows, not
/// guarded if no mean square is negative.
#[derive(Clone, Copy, Debug)]
pub struct Calm<T> {
    /// A calm number times this is finite.
    factor: T,
}

impl<T: Float> Calm<T> {
    fn new() -> Self {
        Self { factor: power(T::BIAS - T::BIAS / 3) }
    }

    /// No calm number is as large.
    fn limit() -> T {
        power(T::BIAS / 3 + 1)
    }

    /// `x` times the factor; NaN if `g` is not calm.
    #[expect(clippy::eq_op, reason = "not 0 for what is not finite")]
    #[inline(always)]
    fn both<S: Simd<T>>(self, x: Lanes<T, S>, g: Lanes<T, S>) -> Lanes<T, S> {
        let g = g * g.all(self.factor);
        x * x.all(self.factor) + (g - g)
    }
}

impl<T: Float> Formula<T, 1, 2> for Calm<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [g]: [Lanes<T, S>; 1],
        [w, v]: [Lanes<T, S>; 2],
        _: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 2] {
        [self.both(w, g), v * v.all(self.factor)]
    }
}

impl<T: Float> Formula<T, 1, 3> for Calm<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        [g]: [Lanes<T, S>; 1],
        [w, m, v]: [Lanes<T, S>; 3],
        guard: &mut Guard<T, S>,
    ) -> [Lanes<T, S>; 3] {
        guard.note(v.lt(v.all(T::zero())));
        [self.both(w, g), m * m.all(self.factor), v * v.all(self.factor)]
    }
}
