//! Cross-entropy of logits with integer targets, and its gradient.

use alloc::vec;

use super::sum::Sum;
use crate::error::{Error, Result, check_len, check_shape};
use crate::finite::{Index, Operand, Origin, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::{Join, Kernel, launch};
use crate::reduce::TwoTerm;
use crate::rows::{RowSum, each_row, row_exp, row_normalize};
use crate::scaled::WideSum;
use crate::simd::Simd;
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

/// Options of the cross-entropy functions.
///
/// ```
/// use nanproof::{CrossEntropy, MatRef, Reduction, cross_entropy};
///
/// let options = CrossEntropy { ignore: Some(99), reduction: Reduction::Sum };
/// let loss = cross_entropy(options, MatRef::new(&[0.0_f64; 4], 2, 2)?, &[1, 99])?;
/// assert_eq!((loss.value, loss.count), (2.0_f64.ln(), 1));
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrossEntropy {
    /// A target that does not count: its row is not read and gets the gradient 0.
    pub ignore: Option<u32>,
    /// The mean, or the sum.
    pub reduction: Reduction,
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
    /// How many targets count.
    pub count: usize,
}

/// The cross-entropy of softmax with integer targets, from the logits: the mean or the sum over the rows of
/// `ln(sum(exp(x[i, ..]))) - x[i, target[i]]`.
///
/// `targets` has a class for each row of `logits`. The loss of a row is within 2 ULP for rows up to 4096 long, also where
/// it is tiny; terms of the sum that underflow may add as many smallest subnormals as the row is long. Sums of losses are
/// exact but for the last rounding, and may overflow on the way to a mean that does not. With no target that counts the
/// loss is 0. A logit of `-inf` has probability 0; at a target it makes the loss `+inf`.
///
/// Gradient: [`cross_entropy_backward`]; both at once: [`cross_entropy_with_gradient`].
///
/// # Errors
/// [`Error::Shape`] if there is not a target a row; [`Error::Argument`] if a target is neither a class nor ignored;
/// [`Error::NonFinite`] if a logit that is read is NaN or `+inf`, or if the loss is infinite.
///
/// ```
/// use nanproof::{CrossEntropy, MatRef, cross_entropy};
///
/// let logits = MatRef::new(&[20.0_f32, 0.0, 0.0, 20.0], 2, 2)?;
/// let loss = cross_entropy(CrossEntropy::default(), logits, &[0, 1])?;
/// assert_eq!(loss.value, 2.0611537e-9); // not 0
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn cross_entropy<T: Float>(options: CrossEntropy, logits: MatRef<'_, T>, targets: &[u32]) -> Result<Loss<T>> {
    Job::new("cross_entropy", options, logits, targets)?.run(T::one(), None)
}

/// The gradient of [`cross_entropy`]: `dlogits[i, j] = g (softmax(logits)[i, j] - [j = target[i]])`, divided by the
/// number of targets that count if the reduction is the mean; 0 in rows whose target is ignored.
///
/// Within 3 ULP of the true value for rows up to 4096 long, also at a target whose probability rounds to 1.
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
pub fn cross_entropy_backward<T: Float>(
    options: CrossEntropy,
    logits: MatRef<'_, T>,
    targets: &[u32],
    g: T,
    mut dlogits: MatMut<'_, T>,
) -> Result<()> {
    let job = Job::new("cross_entropy_backward", options, logits, targets)?;
    check_shape(job.operation, "dlogits", dlogits.shape(), logits.shape(), "the shape of logits")?;
    job.run(g, Some(&mut dlogits)).map(|_| ())
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
pub fn cross_entropy_with_gradient<T: Float>(
    options: CrossEntropy,
    logits: MatRef<'_, T>,
    targets: &[u32],
    mut dlogits: MatMut<'_, T>,
) -> Result<Loss<T>> {
    let job = Job::new("cross_entropy_with_gradient", options, logits, targets)?;
    check_shape(job.operation, "dlogits", dlogits.shape(), logits.shape(), "the shape of logits")?;
    job.run(T::one(), Some(&mut dlogits))
}

/// A checked call.
struct Job<'a, T> {
    operation: &'static str,
    options: CrossEntropy,
    logits: MatRef<'a, T>,
    targets: &'a [u32],
    count: usize,
}

impl<'a, T: Float> Job<'a, T> {
    fn new(operation: &'static str, options: CrossEntropy, logits: MatRef<'a, T>, targets: &'a [u32]) -> Result<Self> {
        check_len(operation, "targets", targets.len(), logits.rows(), "the number of rows of logits")?;
        let counted = |&&target: &&u32| Some(target) != options.ignore;
        if targets.iter().filter(counted).any(|&target| target as usize >= logits.cols()) {
            let problem = "hold a number that is neither a column of logits nor the ignored one";
            return Err(Error::Argument { operation, argument: "targets", problem });
        }
        let count = targets.iter().filter(counted).count();
        Ok(Self { operation, options, logits, targets, count })
    }

    /// The number that losses are divided by.
    fn divisor(&self) -> T {
        match self.options.reduction {
            Reduction::Mean => T::from(self.count.max(1)).unwrap_or_else(T::max_value),
            Reduction::Sum => T::one(),
        }
    }

    fn run(&self, g: T, mut dlogits: Option<&mut MatMut<'_, T>>) -> Result<Loss<T>> {
        let mut losses = vec![T::zero(); self.targets.len()];
        let finite = launch(CrossEntropyRows {
            ignore: self.options.ignore,
            logits: self.logits,
            targets: self.targets,
            factor: g / self.divisor(),
            losses: &mut losses,
            dlogits: match &mut dlogits {
                Some(dlogits) => dlogits.reborrow(),
                None => MatMut::new(&mut [], self.targets.len(), 0)?,
            },
        })?;
        let value = self.reduce(&losses)?;
        if !(finite && value.is_finite()) {
            diagnose(self.operation, [Operand::scalar("g", g)], [], overflow_or_invalid)?;
            self.diagnose(&losses, value, dlogits.map(|dlogits| dlogits.as_ref()))?;
        }
        Ok(Loss { value, count: self.count })
    }

    fn reduce(&self, losses: &[T]) -> Result<T> {
        let sum = launch(Sum { x: losses })?.value();
        if sum.is_finite() {
            return Ok(sum / self.divisor());
        }
        // The mean may be finite where the sum is not, or where a loss is not: that is then max - logit, beside which
        // the logarithm is nothing.
        let one = T::one();
        let sum = losses.iter().enumerate().fold(WideSum::new(), |sum, (i, &loss)| match self.wide_loss(i, loss) {
            Some((max, logit)) => sum.add_product(max, one).add_product(logit, -one),
            None => sum.add_product(loss, one),
        });
        Ok(sum.divided_by(self.divisor()))
    }

    /// The largest logit of a row and that of its target, where all are finite or `-inf` and the loss overflowed.
    fn wide_loss(&self, i: usize, loss: T) -> Option<(T, T)> {
        let logit = self.logits.get(i, self.targets[i] as usize)?;
        let max = self.logits.row_iter(i).fold(T::neg_infinity(), |max, &x| max.max(x));
        (loss == T::infinity() && logit.is_finite() && max.is_finite()).then_some((max, logit))
    }

    #[cold]
    fn diagnose(&self, losses: &[T], value: T, dlogits: Option<MatRef<'_, T>>) -> Result<()> {
        let is_impossible = |i: usize| self.logits.get(i, self.targets[i] as usize) == Some(T::neg_infinity());
        let unread = |index, x: T| {
            let ignored = matches!(index, Index::Cell(i, _) if Some(self.targets[i]) == self.options.ignore);
            ignored || x == T::neg_infinity()
        };
        let rescued =
            |index, loss| matches!(index, Index::At(i) if value.is_finite() && self.wide_loss(i, loss).is_some());
        let inputs = [Operand::matrix("logits", self.logits).overlook(unread)];
        let outputs = dlogits
            .map(|dlogits| Operand::matrix("dlogits", dlogits))
            .into_iter()
            .chain([Operand::slice("losses", losses).overlook(rescued), Operand::scalar("loss", value)]);
        diagnose(self.operation, inputs, outputs, |index, class| match index {
            Index::At(i) if is_impossible(i) => Origin::DivisionByZero,
            _ => overflow_or_invalid(index, class),
        })
    }
}

/// The kernel of the cross-entropy functions: whether all is finite.
#[derive(Debug)]
pub struct CrossEntropyRows<'a, T> {
    ignore: Option<u32>,
    logits: MatRef<'a, T>,
    targets: &'a [u32],
    /// What the gradient is multiplied by.
    factor: T,
    losses: &'a mut [T],
    /// As many columns as the logits, or none.
    dlogits: MatMut<'a, T>,
}

impl<T: Float> Kernel for CrossEntropyRows<'_, T> {
    type Elem = T;
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> bool {
        let mut finite = true;
        each_row(
            [self.logits],
            self.dlogits,
            #[inline(always)]
            |i, [x], dx| {
                let target = self.targets[i];
                if Some(target) == self.ignore {
                    return dx.fill(T::zero());
                }
                let target = target as usize;
                let row = row_exp(simd, x, dx);
                self.losses[i] = row_loss(row, row.log(simd), x[target]);
                finite &= row.is_plain() && self.losses[i].is_finite() && self.factor.is_finite();
                if !dx.is_empty() {
                    row_gradient(simd, x, row, target, self.factor, dx);
                }
            },
        );
        finite
    }

    fn work(&self) -> usize {
        self.logits.area().saturating_mul(6)
    }

    fn halve(self) -> Result<(Self, Self), Self> {
        let Self { ignore, logits, targets, factor, losses, dlogits } = self;
        match dlogits.halve_rows() {
            Ok((dlogits, dlogits2)) => {
                let at = dlogits.rows();
                let (logits, logits2) = (logits.rows_before(at), logits.rows_from(at));
                let ((targets, targets2), (losses, losses2)) = (targets.split_at(at), losses.split_at_mut(at));
                Ok((
                    Self { ignore, logits, targets, factor, losses, dlogits },
                    Self { ignore, logits: logits2, targets: targets2, factor, losses: losses2, dlogits: dlogits2 },
                ))
            }
            Err(dlogits) => Err(Self { ignore, logits, targets, factor, losses, dlogits }),
        }
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

/// Turns `exp(x - max)` in `dx` into `factor * (softmax(x) - onehot(target))`.
#[inline(always)]
fn row_gradient<T: Float, S: Simd<T>>(simd: S, x: &[T], row: RowSum<T>, target: usize, factor: T, dx: &mut [T]) {
    if row.is_empty() {
        return dx.fill(T::zero());
    }
    row_normalize(simd, x, row, factor, dx);
    dx[target] = if row.unique && x[target] == row.max && row.is_plain() {
        // 1 - p would cancel: the probability of all the others is at hand.
        dx[target] = T::zero();
        -Sum { x: dx }.run(simd).value()
    } else {
        dx[target] - factor
    };
}
