//! Sums over a row, with more digits than its type has: of its elements and their squares, and of products of two rows.
//!
//! `f32` is summed in `f64`, where no product overflows or underflows and a product of two is exact; `f64` in two terms,
//! scaled by a power of two so that the largest element is near 1. A row is summed in a fixed order, which is a function
//! of its length alone.
//!
//! Squares are those of the differences from the mean, rounded to the type, if the mean is not small beside them; what
//! the rounding leaves is made up for by the sum of the differences. Source: T. Chan, G. Golub, R. `LeVeque`, "Algorithms
//! for computing the sample variance", The American Statistician 37(3), 1983.

use core::ops::{Add, Mul};

use crate::float::{Float, Format};
use crate::kernel::{Join, Kernel, outline, outline_rare};
use crate::lanes::{Lanes, Mask};
use crate::long::Long;
use crate::reduce::{Accumulator, MaxAbs, TwoTerm};
use crate::scaled::{narrow, power, scaling_exponent, wide};
use crate::simd::Simd;
use crate::sweep::{each_group, load_tail};

/// Lanes of `T` with more digits: of `f32` the lower and the upper half in `f64`, of `f64` two terms.
#[derive(Clone, Copy)]
pub(crate) struct Extended<T: Float, S: Simd<T>>([Lanes<f64, S::Wide>; 2]);

impl<T: Float, S: Simd<T>> Extended<T, S> {
    /// Whether the lanes are two terms.
    const TERMS: bool = !T::PRODUCTS_FIT_F64;

    #[inline(always)]
    pub(crate) fn zero(simd: S) -> Self {
        Self([Lanes::zero(simd.wide()); 2])
    }

    #[inline(always)]
    pub(crate) fn of(x: Lanes<T, S>) -> Self {
        Self(x.widen())
    }

    /// The sums of two terms.
    #[inline(always)]
    pub(crate) fn of_terms(x: Lanes<T, S>, error: Lanes<T, S>) -> Self {
        if Self::TERMS { Self([x.widen()[0], error.widen()[0]]) } else { Self::of(x) + Self::of(error) }
    }

    /// The lanes of a block.
    #[inline(always)]
    pub(crate) fn of_block(simd: S, block: &T::Block) -> Self {
        let [a, b] = simd.load_wide(block);
        Self([Lanes::new(simd.wide(), a), Lanes::new(simd.wide(), b)])
    }

    #[inline(always)]
    pub(crate) fn load(simd: S, [a, b]: &[<f64 as Format>::Block; 2]) -> Self {
        Self([Lanes::load(simd.wide(), a), Lanes::load(simd.wide(), b)])
    }

    #[inline(always)]
    pub(crate) fn store(self) -> [<f64 as Format>::Block; 2] {
        let [a, b] = self.0;
        [a.store(), b.store()]
    }

    /// `self + a b`, of lanes of `T` that are widened.
    #[inline(always)]
    pub(crate) fn add_product(self, a: Self, b: Self) -> Self {
        let ([sum, high], [a, a_high], [b, b_high]) = (self.0, a.0, b.0);
        if Self::TERMS {
            let (product, error) = a.two_mul(b);
            self + Self([product, error])
        } else {
            Self([a.mul_add_exact(b, sum), a_high.mul_add_exact(b_high, high)])
        }
    }

    /// `x - shift`, exactly but for one rounding in `f64`.
    #[inline(always)]
    fn difference(x: Lanes<T, S>, shift: Lanes<f64, S::Wide>) -> Self {
        let [a, b] = x.widen();
        if Self::TERMS {
            let (high, low) = a.two_sum(-shift);
            Self([high, low])
        } else {
            Self([a - shift, b - shift])
        }
    }

    #[inline(always)]
    fn product(a: Lanes<T, S>, b: Lanes<T, S>) -> Self {
        let ([a, a_high], [b, b_high]) = (a.widen(), b.widen());
        if Self::TERMS {
            let (product, error) = a.two_mul(b);
            Self([product, error])
        } else {
            Self([a * b, a_high * b_high])
        }
    }

    /// The sum over the lanes.
    #[inline(always)]
    pub(crate) fn total(self) -> TwoTerm<f64> {
        let [a, b] = self.0;
        if Self::TERMS { Accumulator::of(a, b).total() } else { TwoTerm { sum: (a + b).fold(Add::add), error: 0.0 } }
    }
}

impl<T: Float, S: Simd<T>> Add for Extended<T, S> {
    type Output = Self;

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        let ([a, a_low], [b, b_low]) = (self.0, b.0);
        if Self::TERMS {
            let (sum, error) = a.two_sum(b);
            Self([sum, error + (a_low + b_low)])
        } else {
            Self([a + b, a_low + b_low])
        }
    }
}

impl<T: Float, S: Simd<T>> Mul for Extended<T, S> {
    type Output = Self;

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        let ([a, a_low], [b, b_low]) = (self.0, b.0);
        if Self::TERMS {
            let (product, error) = a.two_mul(b);
            Self([product, error + (a * b_low + a_low * b)])
        } else {
            Self([a * b, a_low * b_low])
        }
    }
}

/// Two sums.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sums([TwoTerm<f64>; 2]);

impl Join for Sums {
    fn join(self, b: Self) -> Self {
        Self([self.0[0].join(b.0[0]), self.0[1].join(b.0[1])])
    }
}

/// The sums of `x - shift` and of its squares, with `x` taken times `scale`, in `f64`, after some of its bits are
/// cleared.
#[derive(Debug)]
struct ShiftedSums<'a, T> {
    x: &'a [T],
    bits: T,
    scale: T,
    shift: T,
}

impl<T: Float> Kernel for ShiftedSums<'_, T> {
    type Elem = T;
    type Output = Sums;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> Sums {
        let (blocks, tail) = T::blocks(self.x);
        let (bits, scale) = (Lanes::splat(simd, self.bits), Lanes::splat(simd, self.scale));
        let shift = Lanes::splat(simd, self.shift);
        let wide_shift = Lanes::splat(simd.wide(), self.shift.to_f64().unwrap_or(f64::NAN));
        let [mut sum, mut squares] = [Extended::zero(simd); 2];
        for i in 0..blocks.len() + usize::from(!tail.is_empty()) {
            let x = match blocks.get(i) {
                Some(block) => scaled(Lanes::load(simd, block), bits, scale),
                // Lanes past the end are made to have no difference.
                None => {
                    Mask::first(simd, tail.len()).select(scaled(load_tail(simd, tail, T::zero()), bits, scale), shift)
                }
            };
            let difference = Extended::difference(x, wide_shift);
            sum = sum + difference;
            squares = squares + difference * difference;
        }
        Sums([sum.total(), squares.total()])
    }
}

/// [`ShiftedSums`] of `f32` as it is.
#[derive(Debug)]
struct PlainSums<'a, T> {
    x: &'a [T],
}

impl<T: Float> Kernel for PlainSums<'_, T> {
    type Elem = T;
    type Output = Sums;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> Sums {
        let [sum, squares] = plain_sums(simd, self.x);
        Sums([sum.total(), squares.total()])
    }
}

/// The sums of the elements of a row of `f32`, and of their squares: each takes one operation, since squares are exact.
#[inline(always)]
fn plain_sums<T: Float, S: Simd<T>>(simd: S, x: &[T]) -> [Extended<T, S>; 2] {
    let (blocks, tail) = T::blocks(x);
    let [mut sum, mut squares] = [Extended::zero(simd); 2];
    for block in blocks {
        let x = Extended::of_block(simd, block);
        (sum, squares) = (sum + x, squares.add_product(x, x));
    }
    let x = Extended::of(load_tail(simd, tail, T::zero()));
    [sum + x, squares.add_product(x, x)]
}

/// [`plain_sums`] of `x`, and the sums of `a b` and of `a b x`.
#[inline(always)]
fn plain_sums_and_products<T: Float, S: Simd<T>>(simd: S, [a, b, x]: [&[T]; 3]) -> [Extended<T, S>; 4] {
    let ((a, a_tail), (b, b_tail), (x, x_tail)) = (T::blocks(a), T::blocks(b), T::blocks(x));
    let zero = Extended::zero(simd);
    let mut sums = MomentsAndProducts { sum: zero, squares: zero, products: zero, along: zero };
    for ((a, b), x) in a.iter().zip(b).zip(x) {
        sums.add(Extended::of_block(simd, a), Extended::of_block(simd, b), Extended::of_block(simd, x));
    }
    let zero = T::zero();
    let (a, b, x) = (load_tail(simd, a_tail, zero), load_tail(simd, b_tail, zero), load_tail(simd, x_tail, zero));
    sums.add(Extended::of(a), Extended::of(b), Extended::of(x));
    let MomentsAndProducts { sum, squares, products, along } = sums;
    [sum, squares, products, along]
}

/// See [`plain_sums_and_products`].
struct MomentsAndProducts<T: Float, S: Simd<T>> {
    sum: Extended<T, S>,
    squares: Extended<T, S>,
    products: Extended<T, S>,
    along: Extended<T, S>,
}

impl<T: Float, S: Simd<T>> MomentsAndProducts<T, S> {
    #[inline(always)]
    fn add(&mut self, a: Extended<T, S>, b: Extended<T, S>, x: Extended<T, S>) {
        let product = a * b;
        (self.sum, self.squares) = (self.sum + x, self.squares.add_product(x, x));
        (self.products, self.along) = (self.products + product, self.along + product * x);
    }
}

/// Sums over each of a block of rows.
struct BlockSums<const N: usize>([[<f64 as Format>::Block; ROWS_AT_ONCE]; N]);

/// As many rows as a block of `f64` has lanes.
pub(crate) const ROWS_AT_ONCE: usize = <f64 as Format>::LANES;

impl<const N: usize> BlockSums<N> {
    fn new() -> Self {
        Self([[f64::fill(0.0); ROWS_AT_ONCE]; N])
    }

    /// The sums over row `i` of `f32`.
    #[inline(always)]
    fn put<T: Float, S: Simd<T>>(&mut self, i: usize, sums: [Extended<T, S>; N]) {
        for (place, Extended([a, b])) in self.0.iter_mut().zip(sums) {
            place[i] = (a + b).store();
        }
    }

    /// Two sums over row `i`, from the sum `first` on.
    fn replace(&mut self, first: usize, i: usize, Sums(sums): &Sums) {
        for (place, total) in self.0[first..].iter_mut().zip(sums) {
            place[i] = f64::fill(0.0);
            place[i][0] = total.sum;
        }
    }

    /// Each sum over each row, added in the order of [`Lanes::fold`].
    #[inline(always)]
    fn totals<W: Simd<f64>>(&mut self, simd: W) -> [Lanes<f64, W>; N] {
        let mut totals = [Lanes::zero(simd); N];
        for (total, blocks) in totals.iter_mut().zip(&mut self.0) {
            let mut lanes = [Lanes::zero(simd); ROWS_AT_ONCE];
            simd.transpose(
                f64::flatten_mut(blocks),
                ROWS_AT_ONCE,
                ROWS_AT_ONCE,
                #[inline(always)]
                |i, lane| lanes[i] = Lanes::new(simd, lane),
            );
            let [a, b, c, d, e, f, g, h] = lanes;
            *total = ((a + e) + (c + g)) + ((b + f) + (d + h));
        }
        totals
    }
}

/// The sums over each of a block of rows of `f32`.
pub(crate) struct BlockMoments<W: Simd<f64>> {
    pub(crate) count: f64,
    /// The mean, rounded to `f32`, where it is large and to be subtracted; else 0.
    shift: Lanes<f64, W>,
    /// Of `x - shift`.
    sum: Lanes<f64, W>,
    /// Of its squares.
    pub(crate) squares: Lanes<f64, W>,
}

impl<W: Simd<f64>> BlockMoments<W> {
    #[inline(always)]
    pub(crate) fn of<'a, T: Float, S: Simd<T, Wide = W>>(
        simd: S,
        rows: impl Iterator<Item = &'a [T]> + Clone,
        center: Center,
    ) -> Self {
        let (mut sums, mut count) = (BlockSums::<2>::new(), 0.0);
        for (i, x) in rows.clone().enumerate() {
            sums.put(i, plain_sums(simd, x));
            count = as_f64(x.len());
        }
        let [sum, squares] = sums.totals(simd.wide());
        let moments = Self { count, shift: sum.all(0.0), sum, squares };
        let Some(shifts) = moments.shifts::<T>(center) else { return moments };
        for ((i, x), &shift) in rows.enumerate().zip(&shifts) {
            if !shift.is_zero() {
                sums.replace(0, i, &shifted_sums(simd, x, shift));
            }
        }
        let [sum, squares] = sums.totals(simd.wide());
        Self { count, shift: load_shifts(simd.wide(), shifts), sum, squares }
    }

    /// The same of `x`, and the sums of `a b` and of `a b (x - shift)`.
    #[inline(always)]
    pub(crate) fn with_products<'a, T: Float, S: Simd<T, Wide = W>>(
        simd: S,
        rows: impl Iterator<Item = [&'a [T]; 3]> + Clone,
        center: Center,
    ) -> (Self, [Lanes<f64, W>; 2]) {
        let (mut sums, mut count) = (BlockSums::<4>::new(), 0.0);
        for (i, operands) in rows.clone().enumerate() {
            sums.put(i, plain_sums_and_products(simd, operands));
            count = as_f64(operands[0].len());
        }
        let [sum, squares, products, along] = sums.totals(simd.wide());
        let moments = Self { count, shift: sum.all(0.0), sum, squares };
        let Some(shifts) = moments.shifts::<T>(center) else { return (moments, [products, along]) };
        for ((i, operands), &shift) in rows.enumerate().zip(&shifts) {
            if !shift.is_zero() {
                sums.replace(0, i, &shifted_sums(simd, operands[2], shift));
                sums.replace(2, i, &outline_rare(simd, ProductSums { operands, scales: [T::one(); 3], shift }));
            }
        }
        let [sum, squares, products, along] = sums.totals(simd.wide());
        (Self { count, shift: load_shifts(simd.wide(), shifts), sum, squares }, [products, along])
    }

    /// What is to be subtracted from the elements of each row, if anything is: see [`Moments::is_centered`].
    #[inline(always)]
    fn shifts<T: Float>(&self, center: Center) -> Option<[T; ROWS_AT_ONCE]> {
        let Self { count, sum, squares, .. } = *self;
        let count = sum.all(count);
        let is_centered = (sum * sum).le(squares * count * sum.all(CENTERED));
        if center != Center::Mean || is_centered.all() {
            return None;
        }
        let shifts = is_centered.select(sum.all(0.0), sum / count).store();
        Some(shifts.map(narrow))
    }

    /// Of which rows all elements are finite.
    #[inline(always)]
    pub(crate) fn are_finite(&self) -> Mask<f64, W> {
        self.squares.lt(self.squares.all(f64::INFINITY))
    }

    /// The mean of `x - shift`.
    #[inline(always)]
    pub(crate) fn mean_difference(&self) -> Lanes<f64, W> {
        self.sum / self.sum.all(self.count)
    }

    /// The mean of `x` in two terms.
    #[inline(always)]
    pub(crate) fn mean(&self) -> [Lanes<f64, W>; 2] {
        [self.shift, self.mean_difference()]
    }

    /// The sum of the squares of `x - mean`.
    #[inline(always)]
    pub(crate) fn deviations(&self) -> Lanes<f64, W> {
        (self.squares - self.sum * self.mean_difference()).larger(self.sum.all(0.0))
    }
}

#[inline(always)]
fn load_shifts<T: Float, W: Simd<f64>>(simd: W, shifts: [T; ROWS_AT_ONCE]) -> Lanes<f64, W> {
    Lanes::load(simd, &shifts.map(wide))
}

#[inline(always)]
fn shifted_sums<T: Float, S: Simd<T>>(simd: S, x: &[T], shift: T) -> Sums {
    outline_rare(simd, ShiftedSums { x, bits: T::from_bits(u64::MAX), scale: T::one(), shift })
}

#[inline(always)]
fn scaled<T: Float, S: Simd<T>>(x: Lanes<T, S>, bits: Lanes<T, S>, scale: Lanes<T, S>) -> Lanes<T, S> {
    if Extended::<T, S>::TERMS { (x & bits) * scale } else { x & bits }
}

/// The sums of `a b` and of `a b (x - shift)`, with each taken times its scale.
#[derive(Debug)]
struct ProductSums<'a, T> {
    operands: [&'a [T]; 3],
    scales: [T; 3],
    shift: T,
}

impl<T: Float> Kernel for ProductSums<'_, T> {
    type Elem = T;
    type Output = Sums;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> Sums {
        let [a_scale, b_scale, x_scale] = self.scales;
        let [a_scale, b_scale, x_scale] =
            [Lanes::splat(simd, a_scale), Lanes::splat(simd, b_scale), Lanes::splat(simd, x_scale)];
        let shift = Lanes::splat(simd.wide(), self.shift.to_f64().unwrap_or(f64::NAN));
        let [mut sum, mut products] = [Extended::zero(simd); 2];
        each_group(
            simd,
            self.operands,
            T::zero(),
            #[inline(always)]
            |group| {
                for [a, b, x] in group {
                    let product = Extended::product(a * a_scale, b * b_scale);
                    sum = sum + product;
                    products = products + product * Extended::difference(x * x_scale, shift);
                }
            },
        );
        Sums([sum.total(), products.total()])
    }
}

/// The power of two that the elements of a row are divided by before they are summed; `None` if they are not finite.
#[inline(always)]
pub(crate) fn exponent<T: Float, S: Simd<T>>(simd: S, x: &[T]) -> Option<i32> {
    if T::PRODUCTS_FIT_F64 {
        return Some(0);
    }
    let largest = outline(simd, MaxAbs { x }).0;
    largest.is_finite().then(|| scaling_exponent(largest))
}

/// What the differences are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Center {
    /// Nothing.
    Zero,
    /// Nothing, and magnitudes instead of differences.
    Magnitude,
    /// The mean.
    Mean,
}

/// The sums over a row, of numbers divided by `2^exponent`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moments {
    len: usize,
    exponent: i32,
    shift: f64,
    sum: TwoTerm<f64>,
    squares: TwoTerm<f64>,
}

/// A count, rounded.
#[expect(clippy::cast_precision_loss, reason = "documented")]
pub(crate) fn as_f64(n: usize) -> f64 {
    n as f64
}

/// The largest share of the mean square that the square of the mean may have.
const CENTERED: f64 = 255.0 / 256.0;

impl Moments {
    /// Of a row; `None` if an element is not finite.
    #[inline(always)]
    pub(crate) fn of<T: Float, S: Simd<T>>(simd: S, x: &[T], center: Center) -> Option<Self> {
        let exponent = exponent(simd, x)?;
        let mut shift = T::zero();
        let mut is_last = center != Center::Mean;
        let bits = if center == Center::Magnitude { T::ABS_MASK } else { T::from_bits(u64::MAX) };
        loop {
            let is_plain = T::PRODUCTS_FIT_F64 && shift.is_zero() && center != Center::Magnitude;
            let Sums([sum, squares]) = if is_plain {
                outline(simd, PlainSums { x })
            } else {
                outline(simd, ShiftedSums { x, bits, scale: power(-exponent), shift })
            };
            let moments = Self { len: x.len(), exponent, shift: shift.to_f64()?, sum, squares };
            if !(sum.sum.is_finite() && squares.sum.is_finite()) {
                return None;
            }
            if is_last || moments.is_centered() {
                return Some(moments);
            }
            (shift, is_last) = (moments.mean_in_units(), true);
        }
    }

    /// Whether the mean is at most 16 times the deviation, so that a difference of sums of squares loses 8 bits only.
    fn is_centered(&self) -> bool {
        let total = self.squares.sum * self.count();
        self.sum.sum * self.sum.sum <= total * CENTERED
    }

    fn count(&self) -> f64 {
        as_f64(self.len)
    }

    /// The sum of `x - shift`.
    pub(crate) fn sum(&self) -> Long {
        Long::new(self.sum, self.exponent)
    }

    /// The sum of the squares of `x - shift`.
    pub(crate) fn squares(&self) -> Long {
        Long::new(self.squares, 2 * self.exponent)
    }

    /// The mean of `x - shift`.
    pub(crate) fn mean_difference(&self) -> Long {
        self.sum().div(Long::count(self.len))
    }

    /// The mean of the numbers that are summed, rounded.
    #[inline(never)]
    fn mean_in_units<T: Float>(&self) -> T {
        self.mean().round(-self.exponent)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn exponent(&self) -> i32 {
        self.exponent
    }

    /// The mean of the squares of `x - shift`.
    pub(crate) fn mean_square(&self) -> Long {
        self.squares().div(Long::count(self.len))
    }

    /// The mean of `x`.
    pub(crate) fn mean(&self) -> Long {
        let shift = Long::new(TwoTerm { sum: self.shift, error: 0.0 }, self.exponent);
        self.mean_difference().add(shift)
    }

    /// The sum of the squares of `x - mean`, over `len - ddof`.
    pub(crate) fn variance(&self, ddof: usize) -> Long {
        let sum = self.sum();
        let correction = sum.mul(sum).div(Long::count(self.len)).neg();
        self.squares().add(correction).div(Long::count(self.len - ddof))
    }
}

/// The sums of `a b` and of `a b (x - shift)` over rows, the shift being that of the moments of `x`.
#[inline(always)]
pub(crate) fn products<T: Float, S: Simd<T>>(
    simd: S,
    operands: [&[T]; 3],
    factor_exponents: [i32; 2],
    moments: &Moments,
) -> [Long; 2] {
    let [a, b] = factor_exponents;
    let scales = [power(-a), power(-b), power(-moments.exponent)];
    let shift = T::from(moments.shift).unwrap_or_else(T::nan);
    let Sums([sum, products]) = outline(simd, ProductSums { operands, scales, shift });
    [Long::new(sum, a + b), Long::new(products, a + b + moments.exponent)]
}
