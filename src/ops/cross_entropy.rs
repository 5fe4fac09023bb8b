//! Cross-entropy of logits with classes or probabilities as targets, and its gradient.

use alloc::vec;
use alloc::vec::Vec;

use super::logsumexp::LogSumExpRow;
use super::sum::Sum;
use crate::error::{Error, Result, check_len, check_shape};
use crate::exponentials::{RowSums, row_exp};
use crate::finite::{Class, Index, Operand, Origin, Watch, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::{Join, Kernel, launch, outline_rare};
use crate::lanes::Lanes;
use crate::logits::{
    LogitFormula, LogitRows, Logits, RowSum, apply_to_logits, distance, faint_rest, least_sum, row_normalize, row_pair,
};
use crate::math;
use crate::reduce::TwoTerm;
use crate::rows::RowsSeen;
use crate::scaled::{Scaled, WideSum, ldexp, power};
use crate::simd::Simd;
use crate::sweep::sweep;
use crate::view::{MatMut, MatRef};

/// How the losses of the rows become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// Their sum over the number of targets that count; 0 if none does.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

impl Reduction {
    /// The number that losses of so many targets are divided by.
    pub(crate) fn divisor<T: Float>(self, count: usize) -> T {
        match self {
            Self::Mean => T::from(count.max(1)).unwrap_or_else(T::max_value),
            Self::Sum => T::one(),
        }
    }
}

/// Options of the cross-entropy functions.
///
/// ```
/// use nanproof::{CrossEntropy, MatRef, Reduction, cross_entropy};
///
/// let options = CrossEntropy { ignore: Some(99), reduction: Reduction::Sum, ..CrossEntropy::default() };
/// let loss = cross_entropy(options, MatRef::new(&[0.0_f64; 4], 2, 2)?, &[1, 99])?;
/// assert_eq!((loss.value, loss.count), (2.0_f64.ln(), 1));
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy<'a, T> {
    /// A class that does not count as a target: its row is not read and gets the gradient 0.
    pub ignore: Option<u32>,
    /// The mean, or the sum.
    pub reduction: Reduction,
    /// Label smoothing, 0 to 1: the share of each target that is dealt out evenly to the classes that are not masked.
    pub smoothing: T,
    /// A weight for each class, not negative, by which its part of a target is multiplied. A row whose target class has
    /// weight 0 is ignored.
    pub weights: Option<&'a [T]>,
    /// The factor of the z-loss, the square of the log-sum-exp of each row, which keeps logits small.
    pub z_loss: T,
    /// Of the shape of the logits, false where one is masked: the logit is not read, and has probability 0. A target there
    /// is one that cannot be met, see [`cross_entropy`]. A stride of 0 repeats a row or a column.
    pub mask: Option<MatRef<'a, bool>>,
}

impl<T: Float> Default for CrossEntropy<'_, T> {
    fn default() -> Self {
        Self {
            ignore: None,
            reduction: Reduction::Mean,
            smoothing: T::zero(),
            weights: None,
            z_loss: T::zero(),
            mask: None,
        }
    }
}

/// What the rows of logits are compared with: a class each, or a row of probabilities each.
///
/// ```
/// use nanproof::{CrossEntropy, MatRef, cross_entropy};
///
/// let (logits, q) = (MatRef::new(&[0.0_f64, 0.0], 1, 2)?, [0.25, 0.75]);
/// let options = CrossEntropy::default();
/// assert_eq!(cross_entropy(options, logits, &[1])?, cross_entropy(options, logits, MatRef::new(&q, 1, 2)?)?);
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a, T> {
    /// A class for each row.
    Classes(&'a [u32]),
    /// As many rows and columns as there are logits. All are read, those of masked classes too, and taken as they are:
    /// none is refused for being negative, nor a row for its sum. A row of zeros counts in the mean.
    Probabilities(MatRef<'a, T>),
}

impl<'a, T> From<&'a [u32]> for Targets<'a, T> {
    fn from(classes: &'a [u32]) -> Self {
        Self::Classes(classes)
    }
}

impl<'a, T, const N: usize> From<&'a [u32; N]> for Targets<'a, T> {
    fn from(classes: &'a [u32; N]) -> Self {
        Self::Classes(classes)
    }
}

impl<'a, T> From<&'a Vec<u32>> for Targets<'a, T> {
    fn from(classes: &'a Vec<u32>) -> Self {
        Self::Classes(classes)
    }
}

impl<'a, T> From<MatRef<'a, T>> for Targets<'a, T> {
    fn from(probabilities: MatRef<'a, T>) -> Self {
        Self::Probabilities(probabilities)
    }
}

/// A loss and the number of targets behind it.
///
/// ```
/// use nanproof::{CrossEntropy, MatRef, cross_entropy};
///
/// let options = CrossEntropy { ignore: Some(0), ..CrossEntropy::default() };
/// let loss = cross_entropy(options, MatRef::new(&[f32::NAN; 2], 1, 2)?, &[0])?;
/// assert_eq!((loss.value, loss.count), (0.0, 0));
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Loss<T> {
    /// The mean or the sum over the targets that count; 0 if none does.
    pub value: T,
    /// How many targets count: rows, without those that are ignored.
    pub count: usize,
}

/// The cross-entropy of softmax with its targets, from the logits: the mean or the sum over the rows of
/// `sum_j q[j] (ln(sum(exp(x[i, ..]))) - x[i, j])`, which for a class as target is
/// `ln(sum(exp(x[i, ..]))) - x[i, target[i]]`.
///
/// `targets` are a class for each row of `logits` or a matrix of probabilities `q` of its shape: [`Targets`]. With
/// smoothing `s` over `k` classes and class weights `w`, `q[j]` becomes `w[j] ((1 - s) q[j] + s / k)`; the mean is over
/// the sum of the weights of the target classes. The z-loss adds `z_loss ln(sum(exp(x[i, ..])))^2` to each row.
///
/// The loss of a row with a class as target is within 2 ULP for rows up to 4096 long, also where it is tiny; terms of the
/// sum that underflow may add as many smallest subnormals as the row is long. With smoothing or probabilities it is
/// within 4 ULP of the sum of its terms, none of which is negative. Sums of losses are exact but for the last rounding,
/// and may overflow on the way to a mean that does not. With no target that counts the loss is 0. A logit of `-inf`, or one
/// that is masked, has probability 0; where its target is above 0 it makes the loss `+inf`, also in a row that is masked
/// as a whole. Smoothing raises the targets of classes that are not masked alone.
///
/// Gradient: [`cross_entropy_backward`]; both at once: [`cross_entropy_with_gradient`], [`cross_entropy_in_place`].
///
/// # Errors
/// [`Error::Shape`] if shapes do not fit; [`Error::Argument`] if a target is neither a class nor ignored, or an option is
/// out of its range; [`Error::NonFinite`] if a logit or a probability that is read is NaN or infinite (`-inf` is a
/// logit), or if the loss is infinite.
///
/// ```
/// use nanproof::{CrossEntropy, MatRef, cross_entropy};
///
/// let logits = MatRef::new(&[20.0_f32, 0.0, 0.0, 20.0], 2, 2)?;
/// let loss = cross_entropy(CrossEntropy::default(), logits, &[0, 1])?;
/// assert_eq!(loss.value, 2.0611537e-9); // not 0
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn cross_entropy<'a, T: Float>(
    options: CrossEntropy<'a, T>,
    logits: MatRef<'a, T>,
    targets: impl Into<Targets<'a, T>>,
) -> Result<Loss<T>> {
    Job::new("cross_entropy", options, logits, targets.into())?.run(T::one(), None)
}

/// The gradient of [`cross_entropy`]: `dlogits[i, j] = g (softmax(logits)[i, j] sum(q) - q[j])`, divided as the mean is;
/// 0 in rows whose target is ignored.
///
/// It is exactly 0 where a logit is masked, even if that makes the loss infinite, and in rows without a possible class. A
/// logit of `-inf` that is read has the gradient of its limit, `-g q[j]`.
///
/// With classes as targets within 3 ULP of the true value for rows up to 4096 long, also at a target whose probability
/// rounds to 1. With smoothing, probabilities or the z-loss within 4 ULP of the larger of the terms.
///
/// # Errors
/// As [`cross_entropy`], and if `g` is not finite. [`Error::Shape`] if `dlogits` has another shape than `logits`.
///
/// ```
/// use nanproof::{CrossEntropy, MatMut, MatRef, cross_entropy_backward};
///
/// let mut dx = [0.0_f32; 2];
/// let logits = MatRef::new(&[20.0_f32, 0.0], 1, 2)?;
/// cross_entropy_backward(CrossEntropy::default(), logits, &[0], 1.0, MatMut::new(&mut dx, 1, 2)?)?;
/// assert_eq!(dx, [-2.0611537e-9, 2.0611537e-9]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn cross_entropy_backward<'a, T: Float>(
    options: CrossEntropy<'a, T>,
    logits: MatRef<'a, T>,
    targets: impl Into<Targets<'a, T>>,
    g: T,
    dlogits: MatMut<'a, T>,
) -> Result<()> {
    let job = Job::new("cross_entropy_backward", options, logits, targets.into())?;
    check_shape(job.operation, "dlogits", dlogits.shape(), logits.shape(), "the shape of logits")?;
    job.run(g, Some(dlogits)).map(|_| ())
}

/// [`cross_entropy`] and its gradient for `g = 1` in one go.
///
/// # Errors
/// As [`cross_entropy_backward`].
///
/// ```
/// use nanproof::{CrossEntropy, MatMut, MatRef, cross_entropy_with_gradient};
///
/// let mut dx = [0.0_f64; 2];
/// let logits = MatRef::new(&[0.0, 0.0], 1, 2)?;
/// let loss = cross_entropy_with_gradient(CrossEntropy::default(), logits, &[1], MatMut::new(&mut dx, 1, 2)?)?;
/// assert_eq!((loss.value, dx), (2.0_f64.ln(), [0.5, -0.5]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn cross_entropy_with_gradient<'a, T: Float>(
    options: CrossEntropy<'a, T>,
    logits: MatRef<'a, T>,
    targets: impl Into<Targets<'a, T>>,
    dlogits: MatMut<'a, T>,
) -> Result<Loss<T>> {
    let job = Job::new("cross_entropy_with_gradient", options, logits, targets.into())?;
    check_shape(job.operation, "dlogits", dlogits.shape(), logits.shape(), "the shape of logits")?;
    job.run(T::one(), Some(dlogits))
}

/// [`cross_entropy_with_gradient`] in place: the logits become their gradient.
///
/// # Errors
/// As [`cross_entropy`]; the logits are then left as they were. Also [`Error::NonFinite`] if the gradient overflows and the
/// loss does not: it is written then.
///
/// ```
/// use nanproof::{CrossEntropy, MatMut, cross_entropy_in_place};
///
/// let mut x = [0.0_f64, 0.0];
/// let loss = cross_entropy_in_place(CrossEntropy::default(), MatMut::new(&mut x, 1, 2)?, &[1])?;
/// assert_eq!((loss.value, x), (2.0_f64.ln(), [0.5, -0.5]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn cross_entropy_in_place<'a, T: Float>(
    options: CrossEntropy<'_, T>,
    mut logits: MatMut<'_, T>,
    targets: impl Into<Targets<'a, T>>,
) -> Result<Loss<T>> {
    let targets = targets.into();
    let job = Job::new("cross_entropy_in_place", options, logits.as_ref(), targets)?;
    let loss = if job.is_tame() { None } else { Some(job.run(T::one(), None)?) };
    let batch = Batch::of(options, targets, job.count);
    let mut losses = vec![T::zero(); logits.rows()];
    if !batch.run_in_place(0, &mut losses, logits.reborrow())? {
        let gradient = Operand::matrix("dlogits", logits.as_ref());
        diagnose("cross_entropy_in_place", [], [gradient], overflow_or_invalid)?;
    }
    loss.map_or_else(|| batch.loss(&losses), Ok)
}

/// A checked call on logits that are overwritten by their gradients, a few rows at a time.
pub(super) struct Batch<'a, T> {
    options: InRange<'a, T>,
    targets: Targets<'a, T>,
    divisor: T,
    count: usize,
}

impl<'a, T: Float> Batch<'a, T> {
    pub(super) fn new(
        operation: &'static str,
        options: CrossEntropy<'a, T>,
        rows: usize,
        cols: usize,
        targets: Targets<'a, T>,
    ) -> Result<Self> {
        let shape_alone = [T::zero()];
        let count = Job::new(operation, options, MatRef::with_strides(&shape_alone, rows, cols, 0, 0)?, targets)?.count;
        Ok(Self::of(options, targets, count))
    }

    /// Of so many targets that count.
    fn of(options: CrossEntropy<'a, T>, targets: Targets<'a, T>, count: usize) -> Self {
        let options = InRange::new(options, targets);
        let divisor = options.get().divisor(targets, count);
        Self { options, targets, divisor, count }
    }

    /// The losses of the rows from `first` on, and their gradients in the place of their logits; whether all is finite.
    pub(super) fn run_in_place(&self, first: usize, losses: &mut [T], output: MatMut<'_, T>) -> Result<bool> {
        let row = CrossEntropyRow::new(self.options.get(), self.targets, self.divisor, T::one());
        let logits = Logits { mask: row.options.mask, ..Logits::plain(None) };
        Ok(launch(LogitRows { formula: row, logits, first, values: losses, output })?.finite)
    }

    /// The loss, from those of all rows.
    pub(super) fn loss(&self, losses: &[T]) -> Result<Loss<T>> {
        Ok(Loss { value: launch(Sum { x: losses })?.value() / self.divisor, count: self.count })
    }
}

/// The power of two that losses are divided by whose sum overflows, or that do so themselves before they are divided.
const FAR: i32 = 80;

/// A checked call.
struct Job<'a, T> {
    operation: &'static str,
    options: CrossEntropy<'a, T>,
    logits: MatRef<'a, T>,
    targets: Targets<'a, T>,
    count: usize,
}

impl<'a, T: Float> Job<'a, T> {
    fn new(
        operation: &'static str,
        options: CrossEntropy<'a, T>,
        logits: MatRef<'a, T>,
        targets: Targets<'a, T>,
    ) -> Result<Self> {
        options.check(operation, logits)?;
        let count = match targets {
            Targets::Classes(classes) => {
                check_len(operation, "targets", classes.len(), logits.rows(), "the number of rows of logits")?;
                let read = |class: &&u32| Some(**class) != options.ignore;
                if classes.iter().filter(read).any(|&class| class as usize >= logits.cols()) {
                    let problem = "hold a number that is neither a column of logits nor the ignored one";
                    return Err(Error::Argument { operation, argument: "targets", problem });
                }
                classes.iter().filter(|&&class| !options.ignores(class)).count()
            }
            Targets::Probabilities(q) => {
                check_shape(operation, "targets", q.shape(), logits.shape(), "the shape of logits")?;
                if q.cols() == 0 && q.rows() > 0 {
                    return Err(Error::Argument { operation, argument: "logits", problem: "have no columns" });
                }
                logits.rows()
            }
        };
        Ok(Self { operation, options, logits, targets, count })
    }

    fn run(&self, g: T, mut dlogits: Option<MatMut<'_, T>>) -> Result<Loss<T>> {
        let mut losses = vec![T::zero(); self.logits.rows()];
        let options = InRange::new(self.options, self.targets);
        let divisor = options.get().divisor(self.targets, self.count);
        let row = CrossEntropyRow::new(options.get(), self.targets, divisor, g);
        let dx = dlogits.as_mut().map(MatMut::reborrow);
        let finite = apply_to_logits(row, self.read(), &mut losses, dx)?.finite;
        let value = self.reduce(&losses, row)?;
        if !(finite && value.is_finite() && g.is_finite()) {
            diagnose(self.operation, [Operand::scalar("g", g)], [], overflow_or_invalid)?;
            self.diagnose(&losses, value, dlogits.as_ref().map(|dlogits| dlogits.as_ref()))?;
        }
        Ok(Loss { value, count: self.count })
    }

    fn read(&self) -> Logits<'a, T> {
        Logits { mask: self.options.mask, ..Logits::plain(Some(self.logits)) }
    }

    fn reduce(&self, losses: &[T], row: CrossEntropyRow<'_, T>) -> Result<T> {
        let sum = launch(Sum { x: losses })?.value();
        if sum.is_finite() { Ok(sum / row.divisor) } else { self.reduce_far(losses, row) }
    }

    /// The mean may be finite where the sum is not, or where a loss is not: that of all losses over a power of two, times
    /// that. What small losses lose by it is nothing to those that overflowed.
    #[cold]
    fn reduce_far(&self, losses: &[T], row: CrossEntropyRow<'_, T>) -> Result<T> {
        if (0..losses.len()).any(|i| self.is_impossible(i)) {
            return Ok(losses.iter().fold(T::zero(), |sum, &loss| sum + loss));
        }
        let without_z = CrossEntropy { z_loss: T::zero(), ..row.options };
        let small = InRange::scaled(without_z, self.logits.cols(), power(-FAR));
        let mut losses = vec![T::zero(); losses.len()];
        let far_row = CrossEntropyRow { options: small.get(), ..row };
        apply_to_logits(far_row, self.read(), &mut losses, None)?;
        let sum = Scaled::of(launch(Sum { x: &losses })?.value()).mul(Scaled::new(1.0, FAR));
        let total = if row.options.z_loss.is_zero() { sum } else { sum.add(self.z_loss_far(losses, row.options)?) };
        Ok(total.div(Scaled::of(row.divisor)).narrow())
    }

    /// The sum of the z-losses of all rows. `log_sums` are as many numbers.
    fn z_loss_far(&self, mut log_sums: Vec<T>, options: CrossEntropy<'_, T>) -> Result<Scaled<f64>> {
        apply_to_logits(LogSumExpRow, self.read(), &mut log_sums, None)?;
        let counted = log_sums.iter().enumerate().filter(|&(i, _)| !options.ignores_row(self.targets, i));
        let squares = counted.fold(WideSum::new(), |sum, (_, &lse)| sum.add_product(lse, lse));
        Ok(squares.scaled().mul(Scaled::of(options.z_loss)))
    }

    /// Whether a class of probability 0 is part of the target of a row that counts.
    fn is_impossible(&self, i: usize) -> bool {
        let (logits, mut classes) = (self.read(), 0..self.logits.cols());
        !self.options.ignores_row(self.targets, i)
            && classes.any(|j| logits.get(i, j) == Some(T::neg_infinity()) && self.is_wanted(i, j))
    }

    /// Whether all that is read is so far from the ends of the range that no loss or gradient can be infinite or NaN.
    fn is_tame(&self) -> bool {
        let (limit, options): (T, _) = (power(40), self.options);
        let Targets::Classes(classes) = self.targets else { return false };
        let logits = self.read();
        let is_tame = |x: T| x.abs() < limit || x == T::neg_infinity();
        // The z-loss is divided by the sum of the weights and not multiplied by any.
        let least: T = if options.z_loss == T::zero() { T::zero() } else { power(-20) };
        let is_tame_weight = |weight: &T| weight.is_zero() || (least..power(20)).contains(weight);
        options.smoothing == T::zero()
            && options.z_loss < power(20)
            && options.weights.is_none_or(|weights| weights.iter().all(is_tame_weight))
            && (0..self.logits.rows()).filter(|&i| !self.options.ignores_row(self.targets, i)).all(|i| {
                let target = logits.get(i, classes[i] as usize).unwrap_or_else(T::nan);
                target.abs() < limit
                    && match options.mask {
                        None => self.logits.all_of_row(i, is_tame),
                        Some(mask) => {
                            let mut row = self.logits.row_iter(i).zip(mask.row_iter(i));
                            row.all(|(&x, &keep)| !keep || is_tame(x))
                        }
                    }
            })
    }

    #[cold]
    fn diagnose(&self, losses: &[T], value: T, dlogits: Option<MatRef<'_, T>>) -> Result<()> {
        let logits = self.read();
        let is_read = |i, j| !self.options.ignores_row(self.targets, i) && logits.keeps(i, j);
        let counts = |index| !matches!(index, Index::Cell(i, j) if !is_read(i, j));
        // The sum or the mean is finite all the same.
        let rescued = |_, loss| value.is_finite() && loss == T::infinity();
        let labels = match self.targets {
            Targets::Classes(_) => None,
            Targets::Probabilities(q) => Some(Operand::matrix("targets", q)),
        };
        let x = Operand::matrix("logits", self.logits);
        let inputs = [x.overlook(|index, x| x == T::neg_infinity() || !counts(index))].into_iter().chain(labels);
        let outputs = dlogits
            .map(|dlogits| Operand::matrix("dlogits", dlogits))
            .into_iter()
            .chain([Operand::slice("losses", losses).overlook(rescued), Operand::scalar("loss", value)]);
        diagnose(self.operation, inputs, outputs, |index, class| match (index, class) {
            (Index::At(i), Class::PosInf) if self.is_impossible(i) => Origin::DivisionByZero,
            _ => overflow_or_invalid(index, class),
        })
    }

    /// Whether a class is part of the target of a row.
    fn is_wanted(&self, i: usize, j: usize) -> bool {
        let CrossEntropy { smoothing, .. } = self.options;
        let is_target = match self.targets {
            Targets::Classes(classes) => classes[i] as usize == j,
            Targets::Probabilities(q) => q.get(i, j).is_some_and(|q| q > T::zero()),
        };
        let is_smoothed = smoothing > T::zero() && self.read().keeps(i, j);
        self.options.weight(j) > T::zero() && (is_smoothed || is_target && smoothing < T::one())
    }
}

impl<T: Float> CrossEntropy<'_, T> {
    fn check(&self, operation: &'static str, logits: MatRef<'_, T>) -> Result<()> {
        let refuse = |argument, problem| Err(Error::Argument { operation, argument, problem });
        let is_weight = |&x: &T| x >= T::zero() && x.is_finite();
        if !(T::zero()..=T::one()).contains(&self.smoothing) {
            return refuse("smoothing", "must be from 0 to 1");
        }
        if !is_weight(&self.z_loss) {
            return refuse("z_loss", "must be finite and not negative");
        }
        if let Some(weights) = self.weights {
            check_len(operation, "weights", weights.len(), logits.cols(), "the number of columns of logits")?;
            if !weights.iter().all(is_weight) {
                return refuse("weights", "must be finite and not negative");
            }
        }
        let mask = self.mask.map_or(logits.shape(), MatRef::shape);
        check_shape(operation, "mask", mask, logits.shape(), "the shape of logits")
    }

    /// What losses are divided by, if so many targets count.
    fn divisor(&self, targets: Targets<'_, T>, count: usize) -> T {
        match (self.reduction, self.weights, targets) {
            (Reduction::Mean, Some(_), Targets::Classes(classes)) if count > 0 => {
                compensated(self.counted_weights(classes))
            }
            (reduction, ..) => reduction.divisor(count),
        }
    }

    /// The weights of the targets that count.
    fn counted_weights(&self, classes: &[u32]) -> impl Iterator<Item = T> {
        let counted = classes.iter().filter(|&&class| !self.ignores(class));
        counted.map(|&class| self.weight(class as usize))
    }

    /// The power of two that the weights are to be scaled by, given the largest that counts. Small weights stay in range
    /// beside it, and so do larger ones that only smoothing uses.
    fn shift(&self, weights: &[T], largest: T) -> i32 {
        const ORDINARY: i32 = 48;
        let exponent = |x| Scaled::new(x, 0).exponent;
        let others = if self.smoothing.is_zero() { &[] } else { weights };
        let most = others.iter().copied().fold(largest.max(self.z_loss), T::max);
        match exponent(largest) {
            low if low < -ORDINARY => (-low).min(T::BIAS - 1 - exponent(most)).max(0),
            high if high > ORDINARY => ORDINARY - high,
            _ => 0,
        }
    }

    /// Whether a loss is that of a class alone.
    pub(crate) fn is_plain(&self) -> bool {
        self.smoothing == T::zero() && self.z_loss == T::zero() && self.weights.is_none() && self.mask.is_none()
    }

    /// Whether a row has no loss.
    fn ignores_row(&self, targets: Targets<'_, T>, i: usize) -> bool {
        matches!(targets, Targets::Classes(classes) if self.ignores(classes[i]))
    }

    /// Whether rows with this class as target are ignored.
    fn ignores(&self, class: u32) -> bool {
        Some(class) == self.ignore || self.weight(class as usize) == T::zero()
    }

    fn weight(&self, class: usize) -> T {
        self.weights.and_then(|weights| weights.get(class).copied()).unwrap_or_else(T::one)
    }
}

/// Options whose weights have a sum, and an inverse of it, that are in range.
struct InRange<'a, T> {
    options: CrossEntropy<'a, T>,
    /// Weights in the place of those of the options.
    weights: Option<Vec<T>>,
}

impl<'a, T: Float> InRange<'a, T> {
    /// The mean over the sum of the weights stays the same if all are scaled: where the largest of those that count is
    /// far from 1, by a power of two that brings it near.
    fn new(options: CrossEntropy<'a, T>, targets: Targets<'_, T>) -> Self {
        match (options.reduction, options.weights, targets) {
            (Reduction::Mean, Some(weights), Targets::Classes(classes)) => {
                let largest = options.counted_weights(classes).fold(T::zero(), T::max);
                match options.shift(weights, largest) {
                    0 => Self { options, weights: None },
                    shift => Self::scaled(options, weights.len(), power(shift)),
                }
            }
            _ => Self { options, weights: None },
        }
    }

    /// With the weights of so many classes and the factor of the z-loss times a power of two, which scales all losses.
    fn scaled(options: CrossEntropy<'a, T>, classes: usize, scale: T) -> Self {
        // A weight that is not 0 stays so, also times a label: it counts.
        let least = T::min_positive_value();
        let scaled = |weight: T| if weight.is_zero() { weight } else { (weight * scale).max(least) };
        let weights = (0..classes).map(|class| scaled(options.weight(class))).collect();
        Self { options: CrossEntropy { z_loss: options.z_loss * scale, ..options }, weights: Some(weights) }
    }

    fn get(&self) -> CrossEntropy<'_, T> {
        CrossEntropy { weights: self.weights.as_deref().or(self.options.weights), ..self.options }
    }
}

/// A sum in twice the precision.
fn compensated<T: Float>(terms: impl Iterator<Item = T>) -> T {
    let sum = terms.fold(TwoTerm::zero(), |sum, term| sum.join(TwoTerm { sum: term, error: T::zero() }));
    sum.value_or_infinity()
}

/// The loss of a row and, where there is room for it, its gradient.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropyRow<'a, T> {
    options: CrossEntropy<'a, T>,
    targets: Targets<'a, T>,
    /// What losses are divided by.
    divisor: T,
    /// What gradients are multiplied by.
    factor: T,
}

impl<T: Float> LogitFormula<T> for CrossEntropyRow<'_, T> {
    const WORK: usize = 6;

    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        simd: S,
        first: usize,
        x: MatRef<'_, T>,
        dx: MatMut<'_, T>,
        losses: &mut [T],
        labels: &mut Vec<T>,
    ) -> RowsSeen {
        let mut seen = RowsSeen::finite(true);
        RowSums::each::<true, S>(
            simd,
            x,
            dx,
            #[inline(always)]
            |i| self.options.ignores_row(self.targets, first + i),
            #[inline(always)]
            |_, e, _| e,
            #[inline(always)]
            |sums, rows, dx| {
                let logs = sums.logs(simd).0.store();
                for (k, i) in rows.enumerate() {
                    let (x, dx) = row_pair(x, dx, i);
                    let sum = (&sums.row(k), logs.as_ref()[k]);
                    let (loss, is_finite) = self.finish(simd, first + i, x, sum, dx, labels);
                    losses[i] = loss;
                    seen.finite &= is_finite;
                }
            },
        );
        seen
    }
}

impl<T: Float> CrossEntropyRow<'_, T> {
    /// Makes the exponentials in `dx` the gradient of row `i`, and returns the loss and whether all is finite.
    #[inline(always)]
    fn finish<S: Simd<T>>(
        &self,
        simd: S,
        i: usize,
        x: &[T],
        (row, log): (&RowSum<T>, T),
        dx: &mut [T],
        labels: &mut Vec<T>,
    ) -> (T, bool) {
        if self.options.ignores_row(self.targets, i) {
            dx.fill(T::zero());
            return (T::zero(), true);
        }
        let (z, lse) = (self.options.z_loss, row.max + log);
        let half_slope = if z == T::zero() { z } else { z * lse };
        let z_loss = if z == T::zero() { z } else { half_slope * lse };
        let z_slope = half_slope + half_slope;
        let class = match self.targets {
            Targets::Classes(classes) if self.options.smoothing == T::zero() => Some(classes[i] as usize),
            _ => None,
        };
        let (loss, has_finite_gradient) = match class {
            Some(class) => {
                let weight = self.options.weight(class);
                let value = weight * row_loss(row, log, x[class]);
                let value = if value.is_finite() { value } else { far_loss(row, log, &[weight], &[x[class]], value) };
                let loss = value + z_loss;
                let (target, slope) = (self.factor * weight, self.factor * z_slope);
                row_gradient(simd, x, row, class, target, slope, dx);
                if !loss.is_finite() {
                    self.hide(i, dx);
                }
                // No element of the gradient is larger than this sum.
                (loss, dx.is_empty() || (target.abs() + slope.abs()).is_finite())
            }
            None => {
                let total = self.write_labels(simd, i, x.len(), labels);
                let value = total * log + distance(simd, labels, x, row.max);
                let is_usual = value.is_finite() && row.is_plain();
                let loss = z_loss + if is_usual { value } else { far_loss(row, log, labels, x, value) };
                if !loss.is_finite() {
                    self.hide(i, labels);
                }
                (loss, labels_gradient(simd, x, row, labels, self.factor, total + z_slope, dx))
            }
        };
        let is_finite = row.is_plain() && loss.is_finite() && self.factor.is_finite();
        if !is_finite || has_finite_gradient {
            return (loss, is_finite);
        }
        let target = class.map(|class| (class, self.options.weight(class)));
        (loss, outline_rare(simd, FarGradient { x, target, labels, factor: self.factor, half_slope, dx }))
    }
}

impl<'a, T: Float> CrossEntropyRow<'a, T> {
    /// For losses that are divided by a number, and an upstream gradient `g`.
    fn new(options: CrossEntropy<'a, T>, targets: Targets<'a, T>, divisor: T, g: T) -> Self {
        Self { options, targets, divisor, factor: g / divisor }
    }

    /// Makes 0 of what stands where a class is masked: a target there makes the loss infinite, and has no gradient.
    #[cold]
    fn hide(&self, i: usize, row: &mut [T]) {
        if let Some(mask) = self.options.mask {
            mask.zip_row(i, row, |x, keep| *x = if keep { *x } else { T::zero() });
        }
    }

    /// Writes what each class of a row counts: `w ((1 - s) q + s / k)`, without `s / k` where it is masked; returns the sum.
    #[inline(always)]
    fn write_labels<S: Simd<T>>(&self, simd: S, i: usize, len: usize, labels: &mut Vec<T>) -> T {
        let CrossEntropy { smoothing, mask, weights, .. } = self.options;
        match self.targets {
            Targets::Classes(classes) => {
                labels.clear();
                labels.resize(len, T::zero());
                labels[classes[i] as usize] = T::one();
            }
            Targets::Probabilities(q) => q.copy_row(i, labels),
        }
        if smoothing > T::zero() {
            let kept = mask.map_or(len, |mask| mask.row_iter(i).filter(|&&keep| keep).count());
            let (sharp, even) = (T::one() - smoothing, smoothing / T::from(kept.max(1)).unwrap_or_else(T::max_value));
            if let Some(mask) = mask {
                mask.zip_row(i, labels, |q, keep| *q = sharp * *q + if keep { even } else { T::zero() });
            } else {
                let [sharp, even] = [Lanes::splat(simd, sharp), Lanes::splat(simd, even)];
                sweep(
                    simd,
                    [],
                    [&mut *labels],
                    #[inline(always)]
                    |[], [q]| [sharp * q + even],
                );
            }
        }
        if let Some(weights) = weights {
            sweep(
                simd,
                [weights],
                [&mut *labels],
                #[inline(always)]
                |[weight], [label]| [weight * label],
            );
        }
        Sum { x: labels }.run(simd).value_or_infinity()
    }
}

/// `max - x[target] + ln(sum(exp(x - max)))`: both terms are positive, nothing cancels.
#[inline(always)]
fn row_loss<T: Float>(row: &RowSum<T>, log: T, logit: T) -> T {
    let term = |sum| TwoTerm { sum, error: T::zero() };
    if row.is_empty() {
        T::infinity()
    } else if row.rest.sum.is_nan() {
        row.rest.sum
    } else if logit == row.max {
        log
    } else if (row.max - logit).is_finite() {
        term(row.max).join(term(-logit)).join(term(log)).value()
    } else {
        row.max - logit
    }
}

/// `sum(labels (max - x + log))`, given what came out in the usual way: of rows without a possible class, and where a
/// difference or the sum of the labels overflows.
#[cold]
fn far_loss<T: Float>(row: &RowSum<T>, log: T, labels: &[T], x: &[T], usual: T) -> T {
    let counted = labels.iter().zip(x).filter(|(label, _)| !label.is_zero());
    if row.is_empty() {
        return counted.fold(T::zero(), |sum, (&label, _)| sum + label * T::infinity());
    }
    if !row.is_plain() {
        return usual;
    }
    let quarter = power::<T>(-2);
    let term = |(&label, &x): (&T, &T)| label * ((row.max * quarter - x * quarter) + log * quarter);
    compensated(counted.map(term)) / quarter
}

/// Turns the exponentials in `dx` into `(target + slope) softmax(x) - target onehot(class)`.
#[inline(always)]
fn row_gradient<T: Float, S: Simd<T>>(
    simd: S,
    x: &[T],
    row: &RowSum<T>,
    class: usize,
    target: T,
    slope: T,
    dx: &mut [T],
) {
    if dx.is_empty() || row.is_empty() {
        return dx.fill(T::zero());
    }
    row_normalize(simd, x, row, target + slope, dx);
    dx[class] = if slope == T::zero() && row.is_max_unique() && x[class] == row.max && row.is_plain() {
        // 1 - p would cancel: the probability of all the others is at hand.
        let (weight, rest) = (row.weight(simd, target), row.rest);
        let others = weight.sum * rest.sum + (weight.sum * rest.error + weight.error * rest.sum);
        let is_faint = row.is_faint(x.len()) || others.abs() < least_sum(x.len() - 1);
        -if is_faint { faint_rest(simd, x, row.max, [target, row.total().value()]) } else { others }
    } else {
        dx[class] - target
    };
}

/// The gradient of a row where it may overflow on the way: with factors near 1, and their powers of two last. Returns
/// whether all is finite.
struct FarGradient<'a, T> {
    x: &'a [T],
    /// A class and its weight, if it is the whole target.
    target: Option<(usize, T)>,
    /// The target otherwise.
    labels: &'a mut [T],
    factor: T,
    /// Half of what the z-loss adds to the sum of the target.
    half_slope: T,
    dx: &'a mut [T],
}

impl<T: Float> Kernel for FarGradient<'_, T> {
    type Elem = T;
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> bool {
        let Self { x, target, labels, factor, half_slope, dx } = self;
        let largest = match target {
            Some((_, weight)) => weight,
            None => labels.iter().fold(T::zero(), |largest, label| largest.max(label.abs())),
        };
        let down = Scaled::new(largest.max(half_slope.abs()), 0).exponent;
        // With room below: of a small probability no digit is to be lost.
        let (near, room) = (Scaled::new(factor, 0), T::BIAS / 4);
        let (factor, z_slope) = (near.mantissa * power(room), ldexp(half_slope, 1 - down));
        let row = row_exp(simd, x, dx);
        match target {
            Some((class, weight)) => {
                row_gradient(simd, x, &row, class, factor * ldexp(weight, -down), factor * z_slope, dx);
            }
            None => {
                labels.iter_mut().for_each(|label| *label = ldexp(*label, -down));
                let total = Sum { x: labels }.run(simd).value();
                labels_gradient(simd, x, &row, labels, factor, total + z_slope, dx);
            }
        }
        let up = T::from(near.exponent + down - room).unwrap_or_else(T::infinity);
        let (up, mut watch) = (Lanes::splat(simd, up), Watch::new(simd));
        sweep(
            simd,
            [],
            [dx],
            #[inline(always)]
            |[], [dx]| {
                let dx = math::scale(dx, up);
                watch.see(dx);
                [dx]
            },
        );
        watch.all_finite()
    }
}

/// Turns the exponentials in `dx` into `factor (total softmax(x) - labels)`; whether all is finite.
#[inline(always)]
fn labels_gradient<T: Float, S: Simd<T>>(
    simd: S,
    x: &[T],
    row: &RowSum<T>,
    labels: &[T],
    factor: T,
    total: T,
    dx: &mut [T],
) -> bool {
    if dx.is_empty() || row.is_empty() {
        dx.fill(T::zero());
        return true;
    }
    row_normalize(simd, x, row, factor * total, dx);
    let (factor, mut watch) = (Lanes::splat(simd, -factor), Watch::new(simd));
    sweep(
        simd,
        [labels],
        [dx],
        #[inline(always)]
        |[label], [p]| {
            let dx = label.mul_add(factor, p);
            watch.see(dx);
            [dx]
        },
    );
    watch.all_finite()
}
