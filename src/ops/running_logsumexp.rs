//! [`LogSumExp`], the log-sum-exp of a row that comes in pieces.

use alloc::vec;
use alloc::vec::Vec;

use crate::error::{Error, Result};
use crate::exponentials::row_exp;
use crate::finite::{Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::{Join, Kernel, launch};
use crate::lanes::Lanes;
use crate::logits::{LogitRowFormula, Logits, Singly, apply_to_logits, below_max};
use crate::math;
use crate::reduce::TwoTerm;
use crate::rows::RowsSeen;
use crate::simd::Simd;
use crate::view::{MatMut, MatRef};

/// The log-sum-exp of a row that comes in pieces: streamed, tiled, or spread over machines.
///
/// Every piece but the last of a row is of whole blocks, [`LogSumExp::BLOCK`] entries each. The sums of blocks are joined
/// by one tree that only the places of the blocks in the row decide, so the result has the same bits however the row was
/// cut, and in whatever grouping the pieces are merged. It is within 3 ULP of the true value for rows of a million
/// entries or, where the maximum is nearly cancelled, of the maximum.
///
/// ```
/// use nanproof::LogSumExp;
///
/// let x: Vec<f32> = (0..10_000).map(|i| (i % 13) as f32).collect();
/// let (first, second) = x.split_at(LogSumExp::<f32>::BLOCK);
/// let mut left = LogSumExp::new();
/// left.push(first)?;
/// let mut right = LogSumExp::starting_at(first.len())?; // perhaps on another machine
/// right.push(second)?;
///
/// let mut whole = LogSumExp::new();
/// whole.push(&x)?;
/// assert_eq!(left.merge(right)?.value()?, whole.value()?);
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LogSumExp<T> {
    /// Blocks of the row before the first, and up to the last.
    first: usize,
    end: usize,
    /// The last block is not whole.
    is_ended: bool,
    /// The sums of the largest subtrees that lie within, from left to right.
    subtrees: Vec<Subtree<T>>,
}

/// The sum of `2^level` blocks, or of fewer where the row ends.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Subtree<T> {
    level: u32,
    sum: Partial<T>,
}

/// `exp(max) (sum + error)`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Partial<T> {
    max: T,
    sum: T,
    error: T,
}

impl<T: Float> Default for LogSumExp<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Float> LogSumExp<T> {
    /// The entries of a block.
    pub const BLOCK: usize = 4096;

    /// Of no entries, at the start of a row.
    ///
    /// ```
    /// assert_eq!(nanproof::LogSumExp::<f64>::new().value()?, f64::NEG_INFINITY);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self { first: 0, end: 0, is_ended: false, subtrees: Vec::new() }
    }

    /// Of no entries, at another place of a row.
    ///
    /// # Errors
    /// [`Error::Argument`] if no block begins there.
    ///
    /// ```
    /// assert!(nanproof::LogSumExp::<f32>::starting_at(8192).is_ok());
    /// assert!(nanproof::LogSumExp::<f32>::starting_at(100).is_err());
    /// ```
    pub fn starting_at(entry: usize) -> Result<Self> {
        if !entry.is_multiple_of(Self::BLOCK) {
            return Err(refuse("LogSumExp::starting_at", "entry", "must be a multiple of the length of a block"));
        }
        let block = entry / Self::BLOCK;
        Ok(Self { first: block, end: block, ..Self::new() })
    }

    /// Adds the next entries of the row.
    ///
    /// # Errors
    /// [`Error::Argument`] if the entries before did not end with a whole block; [`Error::NonFinite`] if one is NaN or
    /// `+inf`. Nothing is added then.
    ///
    /// ```
    /// let mut sum = nanproof::LogSumExp::new();
    /// sum.push(&[0.0_f64, 0.0])?;
    /// assert_eq!(sum.value()?, 2.0_f64.ln());
    /// assert!(sum.push(&[1.0]).is_err()); // a piece that is not whole blocks is the last
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    pub fn push(&mut self, x: &[T]) -> Result<()> {
        if x.is_empty() {
            return Ok(());
        }
        if self.is_ended {
            return Err(refuse("LogSumExp::push", "x", "follows entries that were not whole blocks"));
        }
        let (whole, rest) = x.split_at(x.len() / Self::BLOCK * Self::BLOCK);
        let mut sums = block_sums(whole, Self::BLOCK)?;
        sums.extend(block_sums(rest, rest.len())?);
        if sums.iter().any(|block| !block.max.is_finite() && block.max > T::zero() || block.sum.is_nan()) {
            let inputs = [Operand::slice("x", x).overlook(|_, x| x == T::neg_infinity())];
            diagnose("LogSumExp::push", inputs, [], overflow_or_invalid)?;
        }
        for sum in sums {
            self.append(Subtree { level: 0, sum })?;
        }
        self.is_ended = !rest.is_empty();
        Ok(())
    }

    /// Joins this piece of the row with the one after it. A piece without entries adds nothing, wherever it stands: a row
    /// may be shorter than what there are machines for.
    ///
    /// # Errors
    /// [`Error::Argument`] if both have entries and `next` does not start where this ends.
    ///
    /// ```
    /// use nanproof::LogSumExp;
    ///
    /// let mut sum = LogSumExp::new();
    /// sum.push(&[1.0_f32])?;
    /// let sum = LogSumExp::new().merge(sum)?.merge(LogSumExp::starting_at(8192)?)?;
    /// assert_eq!(sum.value()?, 1.0);
    ///
    /// let mut last = LogSumExp::starting_at(8192)?;
    /// last.push(&[2.0])?;
    /// assert!(sum.merge(last).is_err()); // a block is missing
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    pub fn merge(mut self, next: Self) -> Result<Self> {
        if next.is_empty() {
            return Ok(self);
        } else if self.is_empty() {
            return Ok(next);
        }
        if next.first != self.end || self.is_ended {
            return Err(refuse("LogSumExp::merge", "next", "must start where this piece ends, after a whole block"));
        }
        for subtree in next.subtrees {
            self.append(subtree)?;
        }
        self.is_ended |= next.is_ended;
        Ok(self)
    }

    /// The log-sum-exp of the entries: `-inf` if there are none, or `-inf` alone.
    ///
    /// # Errors
    /// Those of [`Isa::active`](crate::Isa::active).
    ///
    /// ```
    /// let mut sum = nanproof::LogSumExp::new();
    /// sum.push(&[1000.0_f32, f32::NEG_INFINITY])?;
    /// assert_eq!(sum.value()?, 1000.0);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    pub fn value(&self) -> Result<T> {
        let none = Partial { max: T::neg_infinity(), sum: T::zero(), error: T::zero() };
        let (mut total, mut log) = (none, none);
        for (i, subtree) in self.subtrees.iter().rev().enumerate() {
            let right = (i > 0).then_some(total);
            total = subtree.sum;
            launch(JoinPartials { left: &mut total, right, log: &mut log })?;
        }
        let max = TwoTerm { sum: total.max, error: T::zero() };
        let log = TwoTerm { sum: log.sum, error: log.error };
        Ok(if total.max.is_finite() { max.join(log).value() } else { total.max })
    }

    /// Whether there are no entries.
    fn is_empty(&self) -> bool {
        self.first == self.end
    }

    /// Puts a subtree at the end, and joins what belongs together.
    fn append(&mut self, mut last: Subtree<T>) -> Result<()> {
        let mut start = self.end;
        self.end = start.saturating_add(1 << last.level);
        while let Some(&before) = self.subtrees.last() {
            let is_right_half = start >> last.level & 1 == 1;
            if before.level != last.level || !is_right_half {
                break;
            }
            self.subtrees.pop();
            start -= 1 << before.level;
            let (mut sum, mut unused) = (before.sum, before.sum);
            launch(JoinPartials { left: &mut sum, right: Some(last.sum), log: &mut unused })?;
            last = Subtree { level: last.level + 1, sum };
        }
        self.subtrees.push(last);
        Ok(())
    }
}

fn refuse(operation: &'static str, argument: &'static str, problem: &'static str) -> Error {
    Error::Argument { operation, argument, problem }
}

/// The sums of blocks of this length.
fn block_sums<T: Float>(x: &[T], block: usize) -> Result<Vec<Partial<T>>> {
    if x.is_empty() {
        return Ok(Vec::new());
    }
    let (blocks, mut sums) = (x.len() / block, vec![T::zero(); 3 * (x.len() / block)]);
    let logits = Logits::plain(Some(MatRef::new(x, blocks, block)?));
    apply_to_logits(Singly(BlockSumRow), logits, &mut [], Some(MatMut::new(&mut sums, blocks, 3)?))?;
    Ok(sums.as_chunks().0.iter().map(|&[max, sum, error]| Partial { max, sum, error }).collect())
}

/// The maximum, the sum of `exp(x - max)`, and what the sum lacks.
#[derive(Clone, Copy, Debug)]
pub struct BlockSumRow;

impl<T: Float> LogitRowFormula<T> for BlockSumRow {
    const WORK: usize = 6;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, _: usize, x: &[T], y: &mut [T], _: &mut T, _: &mut Vec<T>) -> RowsSeen {
        let row = row_exp(simd, x, &mut []);
        let total = if row.is_empty() { TwoTerm::zero() } else { row.total() };
        y.copy_from_slice(&[row.max, total.sum, total.error]);
        RowsSeen::finite(true)
    }
}

/// Adds `right` to `left`, and takes the logarithm of the sum.
#[derive(Debug)]
pub struct JoinPartials<'a, T> {
    left: &'a mut Partial<T>,
    right: Option<Partial<T>>,
    /// Its sum and error are the logarithm.
    log: &'a mut Partial<T>,
}

impl<T: Float> Kernel for JoinPartials<'_, T> {
    type Elem = T;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) {
        let Self { left, right, log } = self;
        if let Some(right) = right {
            *left = if left.max < right.max { join(simd, right, *left) } else { join(simd, *left, right) };
        }
        let total = TwoTerm { sum: left.sum, error: left.error };
        let (sum, error) = total.magnitude();
        let (high, low) = math::ln_parts(Lanes::splat(simd, sum), Lanes::splat(simd, error));
        (log.sum, log.error) = (high.first(), low.first());
    }
}

/// The sum of two, of which the first has the larger maximum.
#[inline(always)]
fn join<T: Float, S: Simd<T>>(simd: S, large: Partial<T>, small: Partial<T>) -> Partial<T> {
    let (factor, exponent) = if small.max == large.max {
        (Lanes::splat(simd, T::one()), Lanes::zero(simd))
    } else {
        let (difference, error) = below_max(Lanes::splat(simd, small.max), large.max);
        math::exp_parts(difference, error)
    };
    // Scaled last, as the factor alone may be subnormal.
    let (product, low) = Lanes::splat(simd, small.sum).two_mul(factor);
    let low = low + Lanes::splat(simd, small.error) * factor;
    let [sum, error] = [product, low].map(
        #[inline(always)]
        |term| math::scale(term, exponent).first(),
    );
    let term = TwoTerm { sum, error };
    let total = TwoTerm { sum: large.sum, error: large.error }.join(term);
    Partial { max: large.max, sum: total.sum, error: total.error }
}
