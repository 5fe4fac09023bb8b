//! Sums over rows, one for each column, with more digits than the type has: of `dy` times the normalised row, and of `dy`.

use alloc::vec;
use alloc::vec::Vec;

use crate::float::{Float, Format};
use crate::kernel::{Join, Kernel};
use crate::lanes::Lanes;
use crate::line::Line;
use crate::moments::Extended;
use crate::reduce::TwoTerm;
use crate::simd::Simd;
use crate::sweep::load_tail;

/// The sums of as many columns as a block of the type has lanes: see [`Extended`].
type Sums = [<f64 as Format>::Block; 2];

/// The lanes of a block of the smallest type.
const MOST_LANES: usize = 2 * <f64 as Format>::LANES;

/// Sums over rows, one for each column: of `dy` times the normalised row, and of `dy`.
#[derive(Clone, Debug)]
pub(crate) struct ColumnSums {
    cols: usize,
    blocks: Vec<[Sums; 2]>,
}

impl ColumnSums {
    pub(crate) fn new<T: Float>(cols: usize) -> Self {
        Self { cols, blocks: vec![[[f64::fill(0.0); 2]; 2]; cols.div_ceil(T::LANES)] }
    }

    /// Of the columns of block `j` the first or second sums, over all pieces, which are added in order.
    pub(crate) fn totals<T: Float>(pieces: &[Self], which: usize, j: usize) -> [TwoTerm<f64>; MOST_LANES] {
        let mut totals = [TwoTerm::zero(); MOST_LANES];
        for (i, piece) in pieces.iter().enumerate() {
            for (total, terms) in totals.iter_mut().zip(terms::<T>(&piece.blocks[j][which])) {
                *total = if i == 0 { terms } else { total.join(terms) };
            }
        }
        totals
    }
}

/// The sums of the columns of a block.
fn terms<T: Float>([first, second]: &Sums) -> [TwoTerm<f64>; MOST_LANES] {
    let mut terms = [TwoTerm::zero(); MOST_LANES];
    let (low, high) = terms.split_at_mut(f64::LANES);
    for i in 0..f64::LANES {
        low[i].sum = first[i];
        *if T::PRODUCTS_FIT_F64 { &mut high[i].sum } else { &mut low[i].error } = second[i];
    }
    terms
}

/// A row of the operands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summand<'a, T> {
    pub(crate) line: Line<T>,
    pub(crate) x: &'a [T],
    pub(crate) dy: &'a [T],
}

/// Adds rows to the sums, of `f64` with `dy` multiplied by the scale: those of `f32` do not overflow.
#[derive(Debug)]
pub(crate) struct AddRows<'a, T> {
    pub(crate) rows: &'a [Summand<'a, T>],
    pub(crate) scale: f64,
    pub(crate) sums: &'a mut ColumnSums,
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

impl ColumnSums {
    #[inline(always)]
    fn add<T: Float, S: Simd<T>, const N: usize>(&mut self, simd: S, rows: &[Summand<'_, T>; N], scale: f64) {
        let (whole, last) = self.blocks.split_at_mut(self.cols / T::LANES);
        let (mut x, mut dy) = ([(&[][..], &[][..]); N], [(&[][..], &[][..]); N]);
        for (k, row) in rows.iter().enumerate() {
            (x[k], dy[k]) = (T::blocks(row.x), T::blocks(row.dy));
        }
        for (j, sums) in whole.iter_mut().enumerate() {
            let mut terms = Terms::load(simd, sums);
            for k in 0..N {
                terms.add(rows[k].line, Lanes::load(simd, &x[k].0[j]), Extended::of_block(simd, &dy[k].0[j]), scale);
            }
            terms.store(sums);
        }
        for sums in last {
            let mut terms = Terms::load(simd, sums);
            for k in 0..N {
                let [x, dy] = [load_tail(simd, x[k].1, T::zero()), load_tail(simd, dy[k].1, T::zero())];
                terms.add(rows[k].line, x, Extended::of(dy), scale);
            }
            terms.store(sums);
        }
    }
}

/// The sums of a block of columns.
struct Terms<T: Float, S: Simd<T>> {
    products: Extended<T, S>,
    dy: Extended<T, S>,
}

impl<T: Float, S: Simd<T>> Terms<T, S> {
    #[inline(always)]
    fn load(simd: S, [products, dy]: &[Sums; 2]) -> Self {
        Self { products: Extended::load(simd, products), dy: Extended::load(simd, dy) }
    }

    #[inline(always)]
    fn store(self, sums: &mut [Sums; 2]) {
        *sums = [self.products.store(), self.dy.store()];
    }

    #[inline(always)]
    fn add(&mut self, line: Line<T>, x: Lanes<T, S>, dy: Extended<T, S>, scale: f64) {
        let dy = dy.scaled(scale);
        self.products = self.products.add_product(dy, Extended::of(line.apply(x)));
        self.dy = self.dy + dy;
    }
}
