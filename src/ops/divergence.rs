//! Losses of probabilities element by element: binary cross-entropy of logits, and the Kullback-Leibler divergence.

use alloc::vec;

use super::cross_entropy::{Loss, Reduction};
use super::sum::sum_over;
use crate::error::{Result, check_len};
use crate::finite::{Index, Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::lanes::Lanes;
use crate::math;
use crate::simd::Simd;
use crate::sweep::{Formula, Guard, apply};

/// The binary cross-entropy of logits `x` with targets `t` from 0 to 1: the mean or the sum of
/// `-t ln(sigmoid(x)) - (1 - t) ln(1 - sigmoid(x))`.
///
/// Computed as `|x| w + ln(1 + exp(-|x|))` with `w = 1 - t` where `x > 0` and `t` elsewhere: no term is negative, each
/// loss is within 2 ULP. Sums are exact but for the last rounding. At `x = -inf` the loss is 0 for `t = 0` and `+inf` for
/// others, at `+inf` 0 for `t = 1`. The loss of nothing is 0. A target outside 0 to 1 is not refused: the formula holds for
/// it, and the loss may be negative.
///
/// Gradient: [`binary_cross_entropy_backward`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths differ; [`Error::NonFinite`](crate::Error::NonFinite) if an
/// operand is NaN, or the loss is infinite.
///
/// ```
/// use nanproof::{Reduction, binary_cross_entropy};
///
/// let loss = binary_cross_entropy(Reduction::Sum, &[100.0_f32, 100.0, -1000.0], &[1.0, 0.0, 0.0])?;
/// assert_eq!((loss.value, loss.count), (100.0, 3));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn binary_cross_entropy<T: Float>(reduction: Reduction, logits: &[T], targets: &[T]) -> Result<Loss<T>> {
    const NAME: &str = "binary_cross_entropy";
    check_len(NAME, "targets", targets.len(), logits.len(), "the length of logits")?;
    let mut losses = vec![T::zero(); logits.len()];
    apply(BinaryCrossEntropy, [logits, targets], [&mut losses])?;
    let value = sum_over(&losses, reduction.divisor(logits.len()))?;
    if !value.is_finite() {
        let outputs = [Operand::slice("losses", &losses), Operand::scalar("loss", value)];
        diagnose(NAME, read(logits, targets), outputs, overflow_or_invalid)?;
    }
    Ok(Loss { value, count: logits.len() })
}

/// The gradient of [`binary_cross_entropy`]: `dlogits = g (sigmoid(x) - t)`, over the number of logits if the mean is
/// taken.
///
/// Computed from `sigmoid(-|x|)`, so that it does not cancel at a target of 0 or 1: there within 3 ULP, elsewhere within
/// 3 ULP of the larger of the two terms.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths differ; [`Error::NonFinite`](crate::Error::NonFinite) if an
/// operand is NaN, or if `g` or a result is not finite.
///
/// ```
/// use nanproof::{Reduction, binary_cross_entropy_backward};
///
/// let mut dx = [0.0_f32; 2];
/// binary_cross_entropy_backward(Reduction::Sum, &[20.0, f32::NEG_INFINITY], &[1.0, 0.9], 1.0, &mut dx)?;
/// assert_eq!(dx, [-2.0611537e-9, -0.9]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn binary_cross_entropy_backward<T: Float>(
    reduction: Reduction,
    logits: &[T],
    targets: &[T],
    g: T,
    dlogits: &mut [T],
) -> Result<()> {
    const NAME: &str = "binary_cross_entropy_backward";
    check_len(NAME, "targets", targets.len(), logits.len(), "the length of logits")?;
    check_len(NAME, "dlogits", dlogits.len(), logits.len(), "the length of logits")?;
    let factor = g / reduction.divisor(logits.len());
    if apply(BinaryCrossEntropyBackward { factor }, [logits, targets], [&mut *dlogits])?.finite && g.is_finite() {
        return Ok(());
    }
    let inputs = [Operand::slice("logits", logits).overlook(|_, x| !x.is_nan()), Operand::slice("targets", targets)];
    let inputs = inputs.into_iter().chain([Operand::scalar("g", g)]);
    diagnose(NAME, inputs, [Operand::slice("dlogits", dlogits)], overflow_or_invalid)
}

/// The Kullback-Leibler divergence of `q` from `p`: `sum(p (ln p - ln q))`, from probabilities `p` and log-probabilities
/// `log_q`, such as [`log_softmax`](crate::log_softmax) gives.
///
/// Where `p = 0` nothing is added, and `log_q` is not read. Neither `p` nor `q` need add up to 1. Each term is within 2 ULP
/// of `p (|ln p| + |log_q|)`, the sum is exact but for its last rounding.
///
/// Gradient: [`kl_divergence_backward`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the lengths differ; [`Error::NonFinite`](crate::Error::NonFinite) if an
/// operand that is read is NaN or infinite, and if a `p` is negative.
///
/// ```
/// assert_eq!(nanproof::kl_divergence(&[0.0_f32, 1.0], &[f32::NEG_INFINITY, -0.5])?, 0.5);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn kl_divergence<T: Float>(p: &[T], log_q: &[T]) -> Result<T> {
    const NAME: &str = "kl_divergence";
    check_len(NAME, "log_q", log_q.len(), p.len(), "the length of p")?;
    let mut terms = vec![T::zero(); p.len()];
    apply(Divergence, [p, log_q], [&mut terms])?;
    let value = sum_over(&terms, T::one())?;
    if value.is_finite() {
        return Ok(value);
    }
    let outputs = [Operand::slice("terms", &terms), Operand::scalar("divergence", value)];
    diagnose(NAME, divergence_operands(p, log_q), outputs, overflow_or_invalid)?;
    Ok(value)
}

/// The gradients of [`kl_divergence`]: `dp = g (ln p + 1 - log_q)` and `dlog_q = -g p`.
///
/// Where `p = 0` both are 0, and `log_q` is not read. At `log_q = -inf` `dp` is infinite, or 0 if `g` is.
/// `dlog_q` is rounded once, `dp` within 2 ULP of `|g| (|ln p| + |log_q| + 1)`.
///
/// # Errors
/// As [`kl_divergence`], and if `g` or an element written is not finite.
///
/// ```
/// let (mut dp, mut dlog_q) = ([9.0_f32; 2], [9.0; 2]);
/// nanproof::kl_divergence_backward(&[0.0, 1.0], &[f32::NEG_INFINITY, 0.0], 2.0, &mut dp, &mut dlog_q)?;
/// assert_eq!((dp, dlog_q), ([0.0, 2.0], [0.0, -2.0]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn kl_divergence_backward<T: Float>(p: &[T], log_q: &[T], g: T, dp: &mut [T], dlog_q: &mut [T]) -> Result<()> {
    const NAME: &str = "kl_divergence_backward";
    for (operand, len) in [("log_q", log_q.len()), ("dp", dp.len()), ("dlog_q", dlog_q.len())] {
        check_len(NAME, operand, len, p.len(), "the length of p")?;
    }
    if apply(DivergenceBackward { g }, [p, log_q], [&mut *dp, &mut *dlog_q])?.finite && g.is_finite() {
        return Ok(());
    }
    let inputs = divergence_operands(p, log_q).into_iter().chain([Operand::scalar("g", g)]);
    diagnose(NAME, inputs, [Operand::slice("dp", dp), Operand::slice("dlog_q", dlog_q)], overflow_or_invalid)
}

/// The operands, without the infinite logits that are not at fault: those whose loss is 0, or whose target is no number.
fn read<'a, T: Float>(logits: &'a [T], targets: &'a [T]) -> [Operand<'a, T>; 2] {
    let is_harmless = |index, x: T| match index {
        Index::At(i) if x.is_infinite() => {
            !targets[i].is_finite() || targets[i] == if x > T::zero() { T::one() } else { T::zero() }
        }
        _ => false,
    };
    [Operand::slice("logits", logits).overlook(is_harmless), Operand::slice("targets", targets)]
}

/// The operands, without what stands beside a `p` of 0.
fn divergence_operands<'a, T: Float>(p: &'a [T], log_q: &'a [T]) -> [Operand<'a, T>; 2] {
    let unread = |index, _| matches!(index, Index::At(i) if p[i].is_zero());
    [Operand::slice("p", p), Operand::slice("log_q", log_q).overlook(unread)]
}

/// `|x| w + ln(1 + exp(-|x|))`.
#[derive(Clone, Copy, Debug)]
pub struct BinaryCrossEntropy;

impl<T: Float> Formula<T, 2, 1> for BinaryCrossEntropy {
    #[inline(always)]
    fn apply<S: Simd<T>>(self, [x, t]: [Lanes<T, S>; 2], _: [Lanes<T, S>; 1], _: &mut Guard<T, S>) -> [Lanes<T, S>; 1] {
        let (zero, one) = (x.all(T::zero()), x.all(T::one()));
        let w = zero.lt(x).select(one - t, t);
        let linear = w.eq(zero).select(zero, x.abs() * w);
        [linear + math::ln_1p::ln_1p(math::exp_of_difference(-x.abs(), zero))]
    }
}

/// `factor (sigmoid(x) - t)`.
#[derive(Clone, Copy, Debug)]
pub struct BinaryCrossEntropyBackward<T> {
    factor: T,
}

impl<T: Float> Formula<T, 2, 1> for BinaryCrossEntropyBackward<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(self, [x, t]: [Lanes<T, S>; 2], _: [Lanes<T, S>; 1], _: &mut Guard<T, S>) -> [Lanes<T, S>; 1] {
        let (zero, one) = (x.all(T::zero()), x.all(T::one()));
        let e = math::exp_of_difference(-x.abs(), zero);
        let rare = e / (one + e); // sigmoid(-|x|)
        let is_positive = zero.lt(x);
        let rest = is_positive.select(one - t, t);
        let dx = x.all(self.factor) * is_positive.select(rest - rare, rare - rest);
        // The probability of the rare outcome may underflow, and its product with the factor not.
        let least = x.all(T::min_positive_value());
        let is_faint = rare.lt(least) & rest.lt(least / x.all(T::epsilon())) & x.abs().lt(x.all(T::infinity()));
        if !is_faint.any() {
            return [dx];
        }
        let (product, rest) = (math::sigmoid_times(x.all(self.factor), -x.abs(), zero), x.all(self.factor) * rest);
        [is_faint.select(is_positive.select(rest - product, product - rest), dx)]
    }
}

/// `p (ln p - log_q)`.
#[derive(Clone, Copy, Debug)]
pub struct Divergence;

impl<T: Float> Formula<T, 2, 1> for Divergence {
    #[inline(always)]
    fn apply<S: Simd<T>>(self, [p, q]: [Lanes<T, S>; 2], _: [Lanes<T, S>; 1], _: &mut Guard<T, S>) -> [Lanes<T, S>; 1] {
        let zero = p.all(T::zero());
        let (log, rest) = math::ln_parts(p, zero);
        [p.eq(zero).select(zero, p * ((log - q) + rest))]
    }
}

/// `g (ln p + 1 - log_q)` and `-g p`.
#[derive(Clone, Copy, Debug)]
pub struct DivergenceBackward<T> {
    g: T,
}

impl<T: Float> Formula<T, 2, 2> for DivergenceBackward<T> {
    #[inline(always)]
    fn apply<S: Simd<T>>(self, [p, q]: [Lanes<T, S>; 2], _: [Lanes<T, S>; 2], _: &mut Guard<T, S>) -> [Lanes<T, S>; 2] {
        let (zero, one, g) = (p.all(T::zero()), p.all(T::one()), p.all(self.g));
        let (log, rest) = math::ln_parts(p, zero);
        let is_zero = p.eq(zero);
        // An upstream gradient of exactly 0 gives 0 through the pole, too, but not past a NaN.
        let is_nothing = is_zero | (g.eq(zero) & zero.lt(p) & q.eq(p.all(T::neg_infinity())));
        [is_nothing.select(zero, g * (((log - q) + one) + rest)), is_zero.select(zero, -(g * p))]
    }
}
