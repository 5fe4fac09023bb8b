//! Cross-entropy of logits with classes or probabilities as targets, and its gradient.

use alloc::vec;
use alloc::vec::Vec;

use super::sum::Sum;
use crate::error::{Error, Result, check_len, check_shape};
use crate::finite::{Index, Operand, Origin, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::{Join, Kernel, launch};
use crate::lanes::Lanes;
use crate::logits::{
    LogitRowFormula, LogitRows, Logits, RowSum, Singly, apply_to_logits, distance, row_exp, row_normalize,
};
use crate::reduce::TwoTerm;
use crate::rows::RowsSeen;
use crate::scaled::{WideSum, power};
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
    /// Of the shape of the logits, false where one is masked: it is not read, and has probability 0. A stride of 0
    /// repeats a row or a column.
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
    /// As many rows and columns as there are logits.
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
/// and may overflow on the way to a mean that does not. With no target that counts the loss is 0. A logit of `-inf` has
/// probability 0; where its target is above 0 it makes the loss `+inf`.
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
/// As [`cross_entropy`]; the logits are then left as they were.
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
    logits: MatMut<'_, T>,
    targets: impl Into<Targets<'a, T>>,
) -> Result<Loss<T>> {
    let targets = targets.into();
    let job = Job::new("cross_entropy_in_place", options, logits.as_ref(), targets)?;
    let loss = if job.is_tame() { None } else { Some(job.run(T::one(), None)?) };
    let batch = Batch::of(options, targets, job.count);
    let mut losses = vec![T::zero(); logits.rows()];
    batch.run_in_place(0, &mut losses, logits)?;
    loss.map_or_else(|| batch.loss(&losses), Ok)
}

/// A checked call on logits that are overwritten by their gradients, a few rows at a time.
pub(super) struct Batch<'a, T> {
    row: CrossEntropyRow<'a, T>,
    mask: Option<MatRef<'a, bool>>,
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
        Self { row: CrossEntropyRow::new(options, targets, count, T::one()), mask: options.mask, count }
    }

    /// The losses of the rows from `first` on, and their gradients in the place of their logits; whether all is finite.
    pub(super) fn run_in_place(&self, first: usize, losses: &mut [T], output: MatMut<'_, T>) -> Result<bool> {
        let logits = Logits { mask: self.mask, ..Logits::plain(None) };
        Ok(launch(LogitRows { formula: Singly(self.row), logits, first, values: losses, output })?.finite)
    }

    /// The loss, from those of all rows.
    pub(super) fn loss(&self, losses: &[T]) -> Result<Loss<T>> {
        Ok(Loss { value: launch(Sum { x: losses })?.value() / self.row.divisor, count: self.count })
    }
}

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
        let (row, logits) = (CrossEntropyRow::new(self.options, self.targets, self.count, g), self.read());
        let finite = apply_to_logits(Singly(row), logits, &mut losses, dlogits.as_mut().map(MatMut::reborrow))?.finite;
        let value = self.reduce(&losses, row.divisor)?;
        if !(finite && value.is_finite() && g.is_finite()) {
            diagnose(self.operation, [Operand::scalar("g", g)], [], overflow_or_invalid)?;
            self.diagnose(&losses, value, dlogits.as_ref().map(|dlogits| dlogits.as_ref()))?;
        }
        Ok(Loss { value, count: self.count })
    }

    fn read(&self) -> Logits<'a, T> {
        Logits { mask: self.options.mask, ..Logits::plain(Some(self.logits)) }
    }

    fn reduce(&self, losses: &[T], divisor: T) -> Result<T> {
        let sum = launch(Sum { x: losses })?.value();
        if sum.is_finite() {
            return Ok(sum / divisor);
        }
        // The mean may be finite where the sum is not, or where a loss is not: that is then max - logit, beside which
        // the logarithm is nothing.
        let one = T::one();
        let sum = losses.iter().enumerate().fold(WideSum::new(), |sum, (i, &loss)| match self.wide_loss(i, loss) {
            Some((max, logit)) => sum.add_product(max, one).add_product(logit, -one),
            None => sum.add_product(loss, one),
        });
        Ok(sum.divided_by(divisor))
    }

    /// The largest logit of a row and that of its target, where all are finite or `-inf` and the loss overflowed.
    fn wide_loss(&self, i: usize, loss: T) -> Option<(T, T)> {
        let Targets::Classes(classes) = self.targets else { return None };
        if !self.options.is_plain() {
            return None;
        }
        let logit = self.logits.get(i, classes[i] as usize)?;
        let max = self.logits.row_iter(i).fold(T::neg_infinity(), |max, &x| max.max(x));
        (loss == T::infinity() && logit.is_finite() && max.is_finite()).then_some((max, logit))
    }

    fn ignores_row(&self, i: usize) -> bool {
        matches!(self.targets, Targets::Classes(classes) if self.options.ignores(classes[i]))
    }

    /// Whether all that is read is so far from the ends of the range that no loss or gradient can be infinite or NaN.
    fn is_tame(&self) -> bool {
        let (limit, options): (T, _) = (power(40), self.options);
        let Targets::Classes(classes) = self.targets else { return false };
        let logits = self.read();
        let is_tame = |x: T| x.abs() < limit || x == T::neg_infinity();
        options.smoothing == T::zero()
            && options.z_loss < power(20)
            && options.weights.is_none_or(|weights| weights.iter().all(|&weight| weight < power(20)))
            && (0..self.logits.rows()).filter(|&i| !self.ignores_row(i)).all(|i| {
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
        let counts = |index| !matches!(index, Index::Cell(i, j) if self.ignores_row(i) || !logits.keeps(i, j));
        let is_impossible = |i: usize| {
            let mut columns = 0..self.logits.cols();
            columns.any(|j| logits.get(i, j) == Some(T::neg_infinity()) && self.is_wanted(i, j))
        };
        let rescued =
            |index, loss| matches!(index, Index::At(i) if value.is_finite() && self.wide_loss(i, loss).is_some());
        let labels = match self.targets {
            Targets::Classes(_) => None,
            Targets::Probabilities(q) => Some(Operand::matrix("targets", q).overlook(|index, _| !counts(index))),
        };
        let x = Operand::matrix("logits", self.logits);
        let inputs = [x.overlook(|index, x| x == T::neg_infinity() || !counts(index))].into_iter().chain(labels);
        let outputs = dlogits
            .map(|dlogits| Operand::matrix("dlogits", dlogits))
            .into_iter()
            .chain([Operand::slice("losses", losses).overlook(rescued), Operand::scalar("loss", value)]);
        diagnose(self.operation, inputs, outputs, |index, class| match index {
            Index::At(i) if is_impossible(i) => Origin::DivisionByZero,
            _ => overflow_or_invalid(index, class),
        })
    }

    /// Whether a class is part of the target of a row.
    fn is_wanted(&self, i: usize, j: usize) -> bool {
        self.options.smoothing > T::zero()
            || match self.targets {
                Targets::Classes(classes) => classes[i] as usize == j,
                Targets::Probabilities(q) => q.get(i, j).is_some_and(|q| q > T::zero()),
            }
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

    /// Whether a loss is that of a class alone.
    pub(crate) fn is_plain(&self) -> bool {
        self.smoothing == T::zero() && self.z_loss == T::zero() && self.weights.is_none() && self.mask.is_none()
    }

    /// Whether rows with this class as target are ignored.
    fn ignores(&self, class: u32) -> bool {
        Some(class) == self.ignore || self.weight(class as usize) == T::zero()
    }

    fn weight(&self, class: usize) -> T {
        self.weights.and_then(|weights| weights.get(class).copied()).unwrap_or_else(T::one)
    }
}

/// A sum in twice the precision.
fn compensated<T: Float>(terms: impl Iterator<Item = T>) -> T {
    terms.fold(TwoTerm::zero(), |sum, term| sum.join(TwoTerm { sum: term, error: T::zero() })).value()
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

impl<T: Float> LogitRowFormula<T> for CrossEntropyRow<'_, T> {
    const WORK: usize = 6;

    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        simd: S,
        i: usize,
        x: &[T],
        dx: &mut [T],
        loss: &mut T,
        labels: &mut Vec<T>,
    ) -> RowsSeen {
        let class = match self.targets {
            Targets::Classes(classes) if self.options.ignores(classes[i]) => {
                dx.fill(T::zero());
                *loss = T::zero();
                return RowsSeen::finite(true);
            }
            Targets::Classes(classes) if self.options.smoothing == T::zero() => Some(classes[i] as usize),
            _ => None,
        };
        let row = row_exp(simd, x, dx);
        let log = row.log(simd);
        let (z, lse) = (self.options.z_loss, row.max + log);
        let z_loss = if z == T::zero() { z } else { z * lse * lse };
        let z_slope = if z == T::zero() { z } else { (z + z) * lse };
        match class {
            Some(class) => {
                let weight = self.options.weight(class);
                *loss = weight * row_loss(row, log, x[class]) + z_loss;
                let (target, slope) = (self.factor * weight, self.factor * z_slope);
                row_gradient(simd, x, row, class, target, slope, dx);
            }
            None => {
                let total = self.write_labels(i, x.len(), labels);
                *loss = total * log + distance(simd, labels, x, row.max) + z_loss;
                labels_gradient(simd, x, row, labels, self.factor, total + z_slope, dx);
            }
        }
        RowsSeen::finite(row.is_plain() && loss.is_finite() && self.factor.is_finite())
    }
}

impl<'a, T: Float> CrossEntropyRow<'a, T> {
    /// For so many targets that count, and an upstream gradient `g`.
    fn new(options: CrossEntropy<'a, T>, targets: Targets<'a, T>, count: usize, g: T) -> Self {
        let divisor = match (options.reduction, options.weights, targets) {
            (Reduction::Mean, Some(_), Targets::Classes(classes)) if count > 0 => {
                let counted = classes.iter().filter(|&&class| !options.ignores(class));
                compensated(counted.map(|&class| options.weight(class as usize)))
            }
            (reduction, ..) => reduction.divisor(count),
        };
        Self { options, targets, divisor, factor: g / divisor }
    }

    /// Writes what each class of a row counts: `w ((1 - s) q + s / k)`; returns the sum.
    fn write_labels(&self, i: usize, len: usize, labels: &mut Vec<T>) -> T {
        let CrossEntropy { smoothing, mask, .. } = self.options;
        let keeps = |j| mask.is_none_or(|mask| mask.get(i, j) == Some(true));
        let kept = T::from((0..len).filter(|&j| keeps(j)).count().max(1)).unwrap_or_else(T::max_value);
        let (sharp, even) = (T::one() - smoothing, smoothing / kept);
        let q = |j| match self.targets {
            Targets::Classes(classes) => {
                if classes[i] as usize == j {
                    T::one()
                } else {
                    T::zero()
                }
            }
            Targets::Probabilities(q) => q.get(i, j).unwrap_or_else(T::zero),
        };
        let smooth = |j| if smoothing == T::zero() { q(j) } else { sharp * q(j) + even };
        let label = |j| if keeps(j) { self.options.weight(j) * smooth(j) } else { T::zero() };
        labels.clear();
        labels.extend((0..len).map(label));
        compensated(labels.iter().copied())
    }
}

/// `max - x[target] + ln(sum(exp(x - max)))`: both terms are positive, nothing cancels.
#[inline(always)]
fn row_loss<T: Float>(row: RowSum<T>, log: T, logit: T) -> T {
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

/// Turns `exp(x - max)` in `dx` into `(target + slope) softmax(x) - target onehot(class)`.
#[inline(always)]
fn row_gradient<T: Float, S: Simd<T>>(
    simd: S,
    x: &[T],
    row: RowSum<T>,
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
        dx[class] = T::zero();
        -Sum { x: dx }.run(simd).value()
    } else {
        dx[class] - target
    };
}

/// Turns `exp(x - max)` in `dx` into `factor (total softmax(x) - labels)`.
#[inline(always)]
fn labels_gradient<T: Float, S: Simd<T>>(
    simd: S,
    x: &[T],
    row: RowSum<T>,
    labels: &[T],
    factor: T,
    total: T,
    dx: &mut [T],
) {
    if dx.is_empty() || row.is_empty() {
        return dx.fill(T::zero());
    }
    row_normalize(simd, x, row, factor * total, dx);
    let factor = Lanes::splat(simd, -factor);
    sweep(
        simd,
        [labels],
        [dx],
        #[inline(always)]
        |[label], [p]| [label.mul_add(factor, p)],
    );
}
