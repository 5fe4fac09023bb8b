//! Sums over rows, one for each column, with more digits than the type has: of `dy` times the normalised row, and of `dy`.

use alloc::vec;
use alloc::vec::Vec;

use crate::float::{Float, Format};
use crate::kernel::{Join, Kernel};
use crate::lanes::Lanes;
use crate::line::Line;
use crate::moments::Extended;
use crate::reduce::TwoTerm;
use crate::scaled::wide;
use crate::simd::Simd;
use crate::sweep::load_tail;

/// The sums of as many columns as a block of the type has lanes.
#[derive(Clone, Copy, Debug)]
struct Block<T: Float> {
    /// See [`Extended`].
    products: [<f64 as Format>::Block; 2],
    /// In two terms: they may cancel.
    dy: [T::Block; 2],
}

/// The lanes of a block of the smallest type.
const MOST_LANES: usize = 2 * <f64 as Format>::LANES;

/// Sums over rows, one for each column: of `dy` times the normalised row, and of `dy`.
#[derive(Clone, Debug)]
pub(crate) struct ColumnSums<T: Float> {
    cols: usize,
    blocks: Vec<Block<T>>,
}

impl<T: Float> ColumnSums<T> {
    pub(crate) fn new(cols: usize) -> Self {
        let zero = Block { products: [f64::fill(0.0); 2], dy: [T::fill(T::zero()); 2] };
        Self { cols, blocks: vec![zero; cols.div_ceil(T::LANES)] }
    }

    /// Of the columns of block `j` the sums of the products, and those of `dy`, over all pieces, which are added in order.
    pub(crate) fn totals(pieces: &[Self], j: usize) -> [[TwoTerm<f64>; MOST_LANES]; 2] {
        let mut totals = [[TwoTerm::zero(); MOST_LANES]; 2];
        for (i, piece) in pieces.iter().enumerate() {
            for (totals, terms) in totals.iter_mut().zip(piece.blocks[j].terms()) {
                for (total, terms) in totals.iter_mut().zip(terms) {
                    *total = if i == 0 { terms } else { total.join(terms) };
                }
            }
        }
        totals
    }
}

impl<T: Float> Block<T> {
    /// The sums of each column.
    fn terms(&self) -> [[TwoTerm<f64>; MOST_LANES]; 2] {
        let [mut products, mut dy] = [[TwoTerm::zero(); MOST_LANES]; 2];
        let (low, high) = products.split_at_mut(f64::LANES);
        let [first, second] = &self.products;
        for i in 0..f64::LANES {
            low[i].sum = first[i];
            *if T::PRODUCTS_FIT_F64 { &mut high[i].sum } else { &mut low[i].error } = second[i];
        }
        let [sums, errors] = self.dy.each_ref().map(|block| block.as_ref());
        for ((dy, &sum), &error) in dy.iter_mut().zip(sums).zip(errors) {
            *dy = TwoTerm { sum: wide(sum), error: wide(error) };
        }
        [products, dy]
    }
}

/// A row of the operands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summand<'a, T> {
    pub(crate) line: Line<T>,
    pub(crate) x: &'a [T],
    pub(crate) dy: &'a [T],
}

/// Adds rows to the sums, with `dy` multiplied by the scale.
#[derive(Debug)]
pub(crate) struct AddRows<'a, T: Float> {
    pub(crate) rows: &'a [Summand<'a, T>],
    pub(crate) scale: T,
    pub(crate) sums: &'a mut ColumnSums<T>,
}

impl<T: Float> Kernel for AddRows<'_, T> {
    type Elem = T;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) {
        let Self { rows, scale, sums } = self;
        let (pairs, rest) = rows.as_chunks::<2>();
        for pair in pairs {
            sums.add(simd, pair, scale);
        }
        for row in rest {
            sums.add(simd, &[*row], scale);
        }
    }
}

impl<T: Float> ColumnSums<T> {
    #[inline(always)]
    fn add<S: Simd<T>, const N: usize>(&mut self, simd: S, rows: &[Summand<'_, T>; N], scale: T) {
        let (whole, last) = self.blocks.split_at_mut(self.cols / T::LANES);
        let (mut x, mut dy) = ([(&[][..], &[][..]); N], [(&[][..], &[][..]); N]);
        for (k, row) in rows.iter().enumerate() {
            (x[k], dy[k]) = (T::blocks(row.x), T::blocks(row.dy));
        }
        for (j, block) in whole.iter_mut().enumerate() {
            let mut sums = Sums::load(simd, block);
            for k in 0..N {
                sums.add(rows[k].line, Lanes::load(simd, &x[k].0[j]), Lanes::load(simd, &dy[k].0[j]), scale);
            }
            *block = sums.store();
        }
        for block in last {
            let mut sums = Sums::load(simd, block);
            for k in 0..N {
                let [x, dy] = [load_tail(simd, x[k].1, T::zero()), load_tail(simd, dy[k].1, T::zero())];
                sums.add(rows[k].line, x, dy, scale);
            }
            *block = sums.store();
        }
    }
}

/// A [`Block`] in registers.
struct Sums<T: Float, S: Simd<T>> {
    products: Extended<T, S>,
    dy: Lanes<T, S>,
    error: Lanes<T, S>,
}

impl<T: Float, S: Simd<T>> Sums<T, S> {
    #[inline(always)]
    fn load(simd: S, Block { products, dy: [dy, error] }: &Block<T>) -> Self {
        Self { products: Extended::load(simd, products), dy: Lanes::load(simd, dy), error: Lanes::load(simd, error) }
    }

    #[inline(always)]
    fn store(self) -> Block<T> {
        Block { products: self.products.store(), dy: [self.dy.store(), self.error.store()] }
    }

    #[inline(always)]
    fn add(&mut self, line: Line<T>, x: Lanes<T, S>, dy: Lanes<T, S>, scale: T) {
        let dy = dy * dy.all(scale);
        self.products = self.products.add_product(Extended::of(dy), Extended::of(line.apply(x)));
        let (sum, rounding) = self.dy.two_sum(dy);
        (self.dy, self.error) = (sum, self.error + rounding);
    }
}
