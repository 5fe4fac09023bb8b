//! Sums that lose nothing: each rounding error is kept and added at the end.
//!
//! The order of the additions is a function of the length alone: leaves of [`LEAF`] elements, in each of them
//! [`CHAINS`] accumulators dealt out block by block, joined pairwise; leaves joined by a tree whose left half is the
//! largest power of two of leaves. Threads work on subtrees, so their number changes no bit.
//!
//! Source: T. Ogita, S. Rump, S. Oishi, "Accurate sum and dot product", SIAM J. Sci. Comput. 26(6), 2005.

use crate::float::Float;
use crate::kernel::{Join, Kernel};
use crate::lanes::Lanes;
use crate::simd::Simd;
use crate::sweep::{GROUP, each_block, each_group};

/// Elements that are summed without a branch of the tree.
pub(crate) const LEAF: usize = 4096;

const CHAINS: usize = GROUP;

/// A sum as an unevaluated pair: the rounded sum and the sum of its rounding errors.
#[derive(Clone, Copy, Debug)]
pub struct TwoTerm<T> {
    pub(crate) sum: T,
    pub(crate) error: T,
}

impl<T: Float> TwoTerm<T> {
    pub(crate) fn zero() -> Self {
        Self { sum: T::zero(), error: T::zero() }
    }

    /// The sum, rounded once.
    pub(crate) fn value(self) -> T {
        self.sum + self.error
    }

    /// The same, and infinity where the sum overflowed: its rounding error is NaN.
    #[inline(always)]
    pub(crate) fn value_or_infinity(self) -> T {
        if self.sum.is_infinite() { self.sum } else { self.value() }
    }

    /// The absolute value, as a rounded number and what it lacks.
    pub(crate) fn magnitude(self) -> (T, T) {
        let sum = self.value();
        let error = (self.sum - sum) + self.error;
        if sum < T::zero() { (-sum, -error) } else { (sum, error) }
    }
}

impl TwoTerm<f64> {
    /// The sum in two terms of another type.
    #[inline(always)]
    pub(crate) fn narrow<T: Float>(self) -> TwoTerm<T> {
        let number = |x: f64| T::from(x).unwrap_or_else(T::nan);
        let sum = number(self.sum);
        let rest = self.sum - sum.to_f64().unwrap_or(f64::NAN);
        TwoTerm { sum, error: number(rest + self.error) }
    }
}

impl<T: Float> Join for TwoTerm<T> {
    /// Adds the sums, keeping the rounding error (Knuth).
    #[inline(always)]
    fn join(self, b: Self) -> Self {
        let sum = self.sum + b.sum;
        let part = sum - self.sum;
        let error = (self.sum - (sum - part)) + (b.sum - part);
        Self { sum, error: error + (self.error + b.error) }
    }
}

/// A running sum in each lane.
#[derive(Clone, Copy)]
pub(crate) struct Accumulator<T: Float, S: Simd<T>> {
    sum: Lanes<T, S>,
    error: Lanes<T, S>,
}

impl<T: Float, S: Simd<T>> Accumulator<T, S> {
    #[inline(always)]
    pub(crate) fn new(simd: S) -> Self {
        Self::of(Lanes::zero(simd), Lanes::zero(simd))
    }

    /// Sums and what they lack.
    #[inline(always)]
    pub(crate) fn of(sum: Lanes<T, S>, error: Lanes<T, S>) -> Self {
        Self { sum, error }
    }

    #[inline(always)]
    pub(crate) fn add(&mut self, x: Lanes<T, S>) {
        let (sum, error) = self.sum.two_sum(x);
        self.sum = sum;
        self.error = self.error + error;
    }

    /// Adds `x` and an amount `error` by which it was rounded.
    #[inline(always)]
    pub(crate) fn add_with_error(&mut self, (x, error): (Lanes<T, S>, Lanes<T, S>)) {
        self.add(x);
        self.error = self.error + error;
    }

    #[inline(always)]
    fn join(self, b: Self) -> Self {
        let mut joined = self;
        joined.add_with_error((b.sum, b.error));
        joined
    }

    /// The sum over the lanes: the upper half is added to the lower one until one lane is left.
    #[inline(always)]
    pub(crate) fn total(self) -> TwoTerm<T> {
        let (mut sums, mut errors) = (self.sum.store(), self.error.store());
        let (sums, errors) = (sums.as_mut(), errors.as_mut());
        let mut half = T::LANES / 2;
        while half > 0 {
            for i in 0..half {
                let joined = TwoTerm { sum: sums[i], error: errors[i] }
                    .join(TwoTerm { sum: sums[i + half], error: errors[i + half] });
                (sums[i], errors[i]) = (joined.sum, joined.error);
            }
            half /= 2;
        }
        TwoTerm { sum: sums[0], error: errors[0] }
    }
}

/// Where the tree of a sum of `len` elements is cut; `None` in a leaf.
pub(crate) fn cut(len: usize) -> Option<usize> {
    let leaves = len.div_ceil(LEAF);
    (leaves > 1).then(|| leaves.next_power_of_two() / 2 * LEAF)
}

/// Sums `term(block of each input)`, a two-term value, over whole slices of one length.
#[inline(always)]
pub(crate) fn sum_terms<T: Float, S: Simd<T>, const N: usize>(
    simd: S,
    inputs: [&[T]; N],
    term: impl Fn([Lanes<T, S>; N]) -> (Lanes<T, S>, Lanes<T, S>) + Copy,
) -> TwoTerm<T> {
    // The tree as a stack of subtrees of falling size, like the digits of the number of leaves: needed from two on.
    let mut stack: Option<[TwoTerm<T>; usize::BITS as usize]> = None;
    let mut depth = 0;
    let len = inputs[0].len();
    let mut leaf = 0;
    while leaf * LEAF < len {
        let range = leaf * LEAF..len.min((leaf + 1) * LEAF);
        let mut part = inputs;
        for x in &mut part {
            *x = &x[range.clone()];
        }
        let mut total = sum_leaf(simd, part, term);
        leaf += 1;
        if len <= LEAF {
            return total;
        }
        let stack = stack.get_or_insert([TwoTerm::zero(); usize::BITS as usize]);
        for _ in 0..leaf.trailing_zeros() {
            depth -= 1;
            total = stack[depth].join(total);
        }
        stack[depth] = total;
        depth += 1;
    }
    match stack.as_ref().and_then(|stack| stack[..depth].split_last()) {
        None => TwoTerm::zero(),
        Some((&last, rest)) => rest.iter().rfold(last, |right, left| left.join(right)),
    }
}

#[inline(always)]
fn sum_leaf<T: Float, S: Simd<T>, const N: usize>(
    simd: S,
    inputs: [&[T]; N],
    term: impl Fn([Lanes<T, S>; N]) -> (Lanes<T, S>, Lanes<T, S>),
) -> TwoTerm<T> {
    let mut chains = [Accumulator::new(simd); CHAINS];
    each_group(
        simd,
        inputs,
        T::zero(),
        #[inline(always)]
        |group| {
            for (chain, x) in chains.iter_mut().zip(group) {
                chain.add_with_error(term(x));
            }
        },
    );
    let [a, b, c, d] = chains;
    a.join(b).join(c.join(d)).total()
}

/// The largest magnitude; NaN if there is one.
#[inline(always)]
pub(crate) fn max_abs<T: Float, S: Simd<T>>(simd: S, x: &[T]) -> T {
    let mut largest = Lanes::zero(simd);
    let mut nan = Lanes::zero(simd);
    each_block(
        simd,
        x,
        T::zero(),
        #[inline(always)]
        |x| {
            largest = x.abs().larger(largest);
            nan = nan | x.eq(x).select(Lanes::zero(simd), x);
        },
    );
    let is_nan = nan.store().as_ref().iter().any(|x| x.is_nan());
    if is_nan { T::nan() } else { largest.store().as_ref().iter().fold(T::zero(), |a, &b| a.max(b)) }
}

/// Finds the largest magnitude.
#[derive(Debug)]
pub struct MaxAbs<'a, T> {
    pub(crate) x: &'a [T],
}

impl<T: Float> Kernel for MaxAbs<'_, T> {
    type Elem = T;
    type Output = Largest<T>;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> Largest<T> {
        Largest(max_abs(simd, self.x))
    }

    fn work(&self) -> usize {
        self.x.len()
    }

    fn halve(self) -> Result<(Self, Self), Self> {
        let (a, b) = self.x.split_at(self.x.len() / 2);
        Ok((Self { x: a }, Self { x: b }))
    }
}

/// A largest magnitude, or NaN.
#[derive(Debug)]
pub struct Largest<T>(pub(crate) T);

impl<T: Float> Join for Largest<T> {
    fn join(self, b: Self) -> Self {
        let either_nan = self.0.is_nan() || b.0.is_nan();
        Self(if either_nan { T::nan() } else { self.0.max(b.0) })
    }
}
