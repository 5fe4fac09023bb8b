//! Sums of squares: what every norm is made of.
//!
//! A slice is cut into leaves of [`LEAF`] elements. In each of them squares are summed in a fixed order, and the sums of
//! leaves are added without rounding, so neither the number of threads nor the order of tensors changes a bit. `f32`:
//! four squares are added in `f32`, which costs three roundings, and the sums of four in `f64`. `f64`: squares and sums
//! keep their rounding errors. A leaf whose squares over- or underflow is scaled by a power of two and summed again.

use core::ops::Add;

use crate::error::Result;
use crate::exact::Exact;
use crate::finite::{Class, Counts};
use crate::float::Float;
use crate::kernel::{Join, Kernel, launch};
use crate::lanes::Lanes;
use crate::reduce::{TwoTerm, max_abs, sum_terms};
use crate::scaled::{Scaled, power, scaling_exponent};
use crate::simd::Simd;
use crate::sweep::load_tail;

/// Elements that are summed with rounding.
pub(crate) const LEAF: usize = 1 << 14;

/// The sum of the squares of the finite elements, and how many are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Squares<T: Float> {
    pub(crate) total: Exact<T>,
    pub(crate) counts: Counts,
}

impl<T: Float> Squares<T> {
    /// Of nothing.
    pub(crate) fn new() -> Self {
        Self { total: Exact::zero(), counts: Counts::default() }
    }

    /// Of a slice.
    pub(crate) fn of(x: &[T]) -> Result<Self> {
        launch(SumOfSquares { tensors: Tensors::One(x) })
    }

    /// Of several slices.
    pub(crate) fn of_all(tensors: &[&mut [T]]) -> Result<Self> {
        launch(SumOfSquares { tensors: Tensors::Many(tensors) })
    }

    /// Adds `sum * 2^exponent`.
    #[inline(always)]
    fn add(&mut self, sum: TwoTerm<f64>, exponent: i32) {
        self.total.add(sum.sum, exponent);
        if !T::PRODUCTS_FIT_F64 {
            self.total.add(sum.error, exponent);
        }
    }

    /// The norm; NaN or infinite if an element is.
    pub(crate) fn norm(&self) -> Scaled<f64> {
        match self.counts {
            Counts { nan: 0, pos_inf: 0, neg_inf: 0, .. } => self.total.sqrt(),
            Counts { nan: 0, .. } => Scaled::new(f64::INFINITY, 0),
            _ => Scaled::new(f64::NAN, 0),
        }
    }
}

impl<T: Float> Join for Squares<T> {
    fn join(self, b: Self) -> Self {
        Self { total: self.total.join(b.total), counts: self.counts.join(b.counts) }
    }
}

/// Slices to read.
#[derive(Clone, Copy, Debug)]
enum Tensors<'a, T> {
    One(&'a [T]),
    Many(&'a [&'a mut [T]]),
}

impl<T> Tensors<'_, T> {
    #[inline(always)]
    fn count(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(tensors) => tensors.len(),
        }
    }

    #[inline(always)]
    fn get(&self, i: usize) -> &[T] {
        match self {
            Self::One(x) => x,
            Self::Many(tensors) => tensors[i],
        }
    }
}

/// Sums the squares of slices.
#[derive(Debug)]
pub struct SumOfSquares<'a, T> {
    tensors: Tensors<'a, T>,
}

impl<T: Float> Kernel for SumOfSquares<'_, T> {
    type Elem = T;
    type Output = Squares<T>;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> Squares<T> {
        let mut squares = Squares::new();
        for i in 0..self.tensors.count() {
            let x = self.tensors.get(i);
            squares.counts.len = squares.counts.len.wrapping_add(x.len());
            for leaf in x.chunks(LEAF) {
                add_leaf(simd, leaf, &mut squares);
            }
        }
        squares
    }

    fn work(&self) -> usize {
        (0..self.tensors.count()).fold(0, |work, i| work.saturating_add(self.tensors.get(i).len()))
    }

    fn halve(self) -> Result<(Self, Self), Self> {
        let (first, second) = match self.tensors {
            Tensors::One(x) if x.len() > LEAF => {
                let (a, b) = x.split_at(x.len().div_ceil(LEAF) / 2 * LEAF);
                (Tensors::One(a), Tensors::One(b))
            }
            Tensors::Many([x]) => return Self { tensors: Tensors::One(x) }.halve(),
            Tensors::Many(tensors) if tensors.len() > 1 => {
                let (a, b) = tensors.split_at(tensors.len() / 2);
                (Tensors::Many(a), Tensors::Many(b))
            }
            _ => return Err(self),
        };
        Ok((Self { tensors: first }, Self { tensors: second }))
    }
}

/// Adds the squares of a leaf.
#[inline(always)]
fn add_leaf<T: Float, S: Simd<T>>(simd: S, x: &[T], squares: &mut Squares<T>) {
    let sum = sum_leaf(simd, x, None);
    // Below this the squares that underflowed may matter.
    let smallest = power::<f64>(2 - T::BIAS + T::FRACTION_BITS.cast_signed() / 2) * LEAF_LEN;
    if sum.sum >= smallest && sum.value().is_finite() {
        squares.add(sum, 0);
        return;
    }
    let largest = max_abs(simd, x);
    if !largest.is_finite() {
        x.iter().filter_map(|&x| Class::of(x)).for_each(|class| squares.counts.add(class));
    } else if !largest.is_zero() {
        let exponent = scaling_exponent(largest);
        let sum = sum_leaf(simd, x, Some(Lanes::splat(simd, power(-exponent))));
        squares.add(sum, 2 * exponent);
    }
}

/// [`LEAF`] as a number.
const LEAF_LEN: f64 = 16384.0;

/// The sum of the squares of `x`, or of `x * scale`. Inlined, the choice is made by the compiler.
#[inline(always)]
fn sum_leaf<T: Float, S: Simd<T>>(simd: S, x: &[T], scale: Option<Lanes<T, S>>) -> TwoTerm<f64> {
    if !T::PRODUCTS_FIT_F64 {
        let sum = sum_terms(
            simd,
            [x],
            #[inline(always)]
            |[x]| {
                let x = scaled(x, scale);
                x.two_mul(x)
            },
        );
        let [sum, error] = [sum.sum, sum.error].map(|x| x.to_f64().unwrap_or(f64::NAN));
        return TwoTerm { sum, error };
    }
    let mut sums = [Lanes::zero(simd.wide()); 2];
    let (blocks, tail) = T::blocks(x);
    // Two places are read in turn: a core that reads at one place alone waits for memory.
    let half = blocks.len() / 4 * 2;
    let (first, second) = (&blocks[..half], &blocks[half..2 * half]);
    for ([a, b], [c, d]) in first.as_chunks().0.iter().zip(second.as_chunks().0) {
        let (a, b) = (scaled(Lanes::load(simd, a), scale), scaled(Lanes::load(simd, b), scale));
        let (c, d) = (scaled(Lanes::load(simd, c), scale), scaled(Lanes::load(simd, d), scale));
        accumulate(b.mul_add(b, a * a) + d.mul_add(d, c * c), &mut sums);
    }
    for block in &blocks[2 * half..] {
        let x = scaled(Lanes::load(simd, block), scale);
        accumulate(x * x, &mut sums);
    }
    if !tail.is_empty() {
        let x = scaled(load_tail(simd, tail, T::zero()), scale);
        accumulate(x * x, &mut sums);
    }
    TwoTerm { sum: (sums[0] + sums[1]).fold(Add::add), error: 0.0 }
}

#[inline(always)]
fn scaled<T: Float, S: Simd<T>>(x: Lanes<T, S>, scale: Option<Lanes<T, S>>) -> Lanes<T, S> {
    match scale {
        Some(scale) => x * scale,
        None => x,
    }
}

/// Adds in `f64`.
#[inline(always)]
fn accumulate<T: Float, S: Simd<T>>(squares: Lanes<T, S>, sums: &mut [Lanes<f64, S::Wide>; 2]) {
    let [low, high] = squares.widen();
    *sums = [sums[0] + low, sums[1] + high];
}
