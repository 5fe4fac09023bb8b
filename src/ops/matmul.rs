//! The matrix product and its gradients.

use alloc::vec;
use alloc::vec::Vec;

use core::ops::Range;

use crate::error::{Error, Result, Shape, check_shape};
use crate::finite::{Factor, Index, Operand, Term, diagnose, name_largest_term, overflow_or_invalid};
use crate::float::Float;
use crate::gemm::{Gemm, Old, Target, lend_lists};
use crate::isa::Isa;
use crate::kernel::launch;
use crate::ops::linear::Activation;
use crate::scaled::{Scaled, WideSum, unwiden, widen};
use crate::view::{MatMut, MatRef};

/// Options of [`matmul_with`]: `C = alpha A B + beta C`.
///
/// ```
/// use nanproof::{MatMut, MatRef, Matmul, matmul_with};
///
/// let mut c = [1.0_f32];
/// let options = Matmul { alpha: 2.0, beta: 10.0 };
/// matmul_with(options, MatRef::new(&[3.0], 1, 1)?, MatRef::new(&[4.0], 1, 1)?, MatMut::new(&mut c, 1, 1)?)?;
/// assert_eq!(c, [34.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Matmul<T> {
    /// The factor of the product: 1 by default. With 0, A and B are not read.
    pub alpha: T,
    /// The factor of the old C: 0 by default. With 0, C is not read.
    pub beta: T,
}

impl<T: Float> Default for Matmul<T> {
    fn default() -> Self {
        Self { alpha: T::one(), beta: T::zero() }
    }
}

/// The matrix product `C = A B`: `c[i, j] = a[i, 0] b[0, j] + a[i, 1] b[1, j] + ...`.
///
/// A is `m x k`, B is `k x n`, C is `m x n`; transposes are views ([`MatRef::t`]), any strides will do. The sum over `k`
/// is cut into blocks of 512 (`f32`) or 256 (`f64`); within a block it is one ascending chain of fused multiply-adds
/// from 0, and the blocks are added in order. So an element has the same bits in every product that it stands in, and its
/// error is at most `b u (|a[i, 0] b[0, j]| + ...)` with `b = min(k, block) + number of blocks` and
/// `u = 2^-24` or `2^-53`. A running sum that overflows on the way to a representable value does no harm: the element is
/// computed again in wider arithmetic. Products that underflow add `k` smallest subnormals to the error, times `alpha`.
/// With `k = 0` the product is 0.
///
/// Gradient: [`matmul_backward`].
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit; [`Error::NonFinite`] if an element of C is not finite.
///
/// ```
/// use nanproof::{MatMut, MatRef, matmul};
///
/// let a = [1.0_f32, 2.0, 3.0, 4.0];
/// let mut c = [0.0; 4];
/// let a = MatRef::new(&a, 2, 2)?;
/// matmul(a, a.t(), MatMut::new(&mut c, 2, 2)?)?;
/// assert_eq!(c, [5.0, 11.0, 11.0, 25.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn matmul<T: Float>(a: MatRef<'_, T>, b: MatRef<'_, T>, c: MatMut<'_, T>) -> Result<()> {
    Product::new(a, b).run("matmul", NAMES, c)
}

/// [`matmul`] with [options](Matmul): `C = alpha A B + beta C`.
///
/// Its error is that of [`matmul`] times `|alpha|`, and `4 u (|alpha| (|a[i, 0] b[0, j]| + ...) + |beta c[i, j]|)`.
///
/// # Errors
/// As [`matmul`]; C is written then as well. [`Error::Argument`] if `alpha` or `beta` is not finite.
///
/// ```
/// use nanproof::{MatMut, MatRef, Matmul, matmul_with};
///
/// // Gradients are accumulated with beta = 1.
/// let mut c = [1.0_f64];
/// let options = Matmul { beta: 1.0, ..Matmul::default() };
/// matmul_with(options, MatRef::new(&[3.0], 1, 1)?, MatRef::new(&[4.0], 1, 1)?, MatMut::new(&mut c, 1, 1)?)?;
/// assert_eq!(c, [13.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn matmul_with<T: Float>(options: Matmul<T>, a: MatRef<'_, T>, b: MatRef<'_, T>, c: MatMut<'_, T>) -> Result<()> {
    check_factors("matmul", options)?;
    let Matmul { alpha, beta } = options;
    Product { alpha, old: Old::Scaled(beta), ..Product::new(a, b) }.run("matmul", NAMES, c)
}

/// The gradients of [`matmul`]: `dA = dC B^T` and `dB = A^T dC`.
///
/// # Errors
/// As [`matmul`], for either product; all shapes are checked before anything is written.
///
/// ```
/// use nanproof::{MatMut, MatRef, matmul_backward};
///
/// let (a, b, dc) = ([2.0_f32], [3.0, 5.0], [1.0, 10.0]);
/// let (mut da, mut db) = ([0.0; 1], [0.0; 2]);
/// let (a, b, dc) = (MatRef::new(&a, 1, 1)?, MatRef::new(&b, 1, 2)?, MatRef::new(&dc, 1, 2)?);
/// matmul_backward(a, b, dc, MatMut::new(&mut da, 1, 1)?, MatMut::new(&mut db, 1, 2)?)?;
/// assert_eq!((da, db), ([53.0], [2.0, 20.0]));
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn matmul_backward<T: Float>(
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    dc: MatRef<'_, T>,
    da: MatMut<'_, T>,
    db: MatMut<'_, T>,
) -> Result<()> {
    const NAME: &str = "matmul_backward";
    check_shape(NAME, "b", b.shape(), Shape::Matrix(a.cols(), b.cols()), "the columns of a by its own")?;
    check_shape(NAME, "dc", dc.shape(), Shape::Matrix(a.rows(), b.cols()), "the shape of the product")?;
    check_shape(NAME, "da", da.shape(), a.shape(), "the shape of a")?;
    check_shape(NAME, "db", db.shape(), b.shape(), "the shape of b")?;
    let names = [Name::plain("dc"), Name::transposed("b"), Name::plain("da")];
    let first = Product::new(dc, b.t()).run(NAME, names, da);
    let names = [Name::transposed("a"), Name::plain("dc"), Name::plain("db")];
    let second = Product::new(a.t(), dc).run(NAME, names, db);
    first.and(second)
}

/// Refuses factors that are not finite.
pub(crate) fn check_factors<T: Float>(operation: &'static str, options: Matmul<T>) -> Result<()> {
    for (argument, x) in [("alpha", options.alpha), ("beta", options.beta)] {
        if !x.is_finite() {
            return Err(Error::Argument { operation, argument, problem: "must be finite" });
        }
    }
    Ok(())
}

/// How the caller knows an operand.
#[derive(Clone, Copy)]
pub(crate) struct Name {
    name: &'static str,
    /// Whether it is the transpose of what the caller passed in.
    transposed: bool,
}

const NAMES: [Name; 3] = [Name::plain("a"), Name::plain("b"), Name::plain("c")];

impl Name {
    pub(crate) const fn plain(name: &'static str) -> Self {
        Self { name, transposed: false }
    }

    pub(crate) const fn transposed(name: &'static str) -> Self {
        Self { name, transposed: true }
    }

    /// The operand as the caller passed it in, to be reported.
    fn operand<T: Float>(self, x: MatRef<'_, T>) -> Operand<'_, T> {
        Operand::matrix(self.name, if self.transposed { x.t() } else { x })
    }

    /// An element of it, to be reported.
    fn factor<T: Float>(self, x: MatRef<'_, T>, row: usize, col: usize) -> Option<Factor> {
        let index = if self.transposed { Index::Cell(col, row) } else { Index::Cell(row, col) };
        Some(Factor::new(self.name, index, x.get(row, col)?))
    }
}

/// A product to be computed: `f(alpha A B + old)`.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a, T> {
    pub(crate) alpha: T,
    pub(crate) a: MatRef<'a, T>,
    pub(crate) b: MatRef<'a, T>,
    pub(crate) old: Old<'a, T>,
    pub(crate) activation: Activation,
}

impl<'a, T: Float> Product<'a, T> {
    pub(crate) fn new(a: MatRef<'a, T>, b: MatRef<'a, T>) -> Self {
        Self { alpha: T::one(), a, b, old: Old::Scaled(T::zero()), activation: Activation::Identity }
    }

    /// Computes C and reports what is not finite in it.
    pub(crate) fn run(&self, operation: &'static str, names: [Name; 3], mut c: MatMut<'_, T>) -> Result<()> {
        check_shape(
            operation,
            names[1].name,
            self.b.shape(),
            Shape::Matrix(self.a.cols(), self.b.cols()),
            "the columns of the left operand by its own",
        )?;
        let shape = Shape::Matrix(self.a.rows(), self.b.cols());
        check_shape(operation, names[2].name, c.shape(), shape, "the shape of the product")?;
        if c.as_ref().area() == 0 {
            return Ok(());
        }
        let mut old_faults = Vec::new();
        let finite = match self.old {
            Old::Scaled(beta) if !beta.is_zero() => {
                lend_lists(|[copy, ..]| self.accumulate(c.reborrow(), copy, &mut old_faults))?
            }
            _ => self.multiply(c.reborrow())? || self.rescue(&[], c.reborrow())?,
        };
        if finite { Ok(()) } else { self.diagnose(operation, names, old_faults, c.as_ref()) }
    }

    /// Adds to C, whose old elements a rescue needs: they are copied, a part at a time. Whether C is finite; those old
    /// elements that are not, if it is not.
    fn accumulate(self, mut c: MatMut<'_, T>, old: &mut Vec<T>, old_faults: &mut Vec<(Index, T)>) -> Result<bool> {
        let mut finite = true;
        for rows in ranges(c.rows(), COPY_SIDE) {
            for cols in ranges(c.cols(), COPY_SIDE) {
                let part = self.part(rows.clone(), cols.clone())?;
                let mut c = c.reborrow().submatrix(rows.clone(), cols.clone())?;
                c.as_ref().map_into(old, |x| x);
                if part.multiply(c.reborrow())? || part.rescue(old, c)? {
                    continue;
                }
                finite = false;
                let width = cols.len();
                let cell = |(i, &x): (usize, &T)| (Index::Cell(rows.start + i / width, cols.start + i % width), x);
                old_faults.extend(old.iter().enumerate().map(cell).filter(|(_, x)| !x.is_finite()));
            }
        }
        old_faults.sort_by_key(|&(index, _)| match index {
            Index::Cell(row, col) => (row, col),
            _ => (0, 0),
        });
        Ok(finite)
    }

    /// What the rows and columns of C in these ranges are made of.
    fn part(self, rows: Range<usize>, cols: Range<usize>) -> Result<Self> {
        let old = match self.old {
            Old::Row(row) => Old::Row(&row[cols.clone()]),
            Old::Column(column) => Old::Column(&column[rows.clone()]),
            scaled @ Old::Scaled(_) => scaled,
        };
        let a = self.a.submatrix(rows, 0..self.a.cols())?;
        Ok(Self { a, b: self.b.submatrix(0..self.b.rows(), cols)?, old, ..self })
    }

    /// The report of what is not finite.
    #[cold]
    fn diagnose(
        self,
        operation: &'static str,
        names: [Name; 3],
        old_faults: Vec<(Index, T)>,
        c: MatRef<'_, T>,
    ) -> Result<()> {
        let read = if self.alpha.is_zero() { 0..0 } else { 0..self.a.cols() };
        let inputs = [
            names[0].operand(self.a.submatrix(0..self.a.rows(), read.clone())?),
            names[1].operand(self.b.submatrix(read, 0..self.b.cols())?),
            match self.old {
                Old::Scaled(_) => Operand::listed(names[2].name, old_faults, c.area()),
                Old::Row(bias) | Old::Column(bias) => Operand::slice("bias", bias),
            },
        ];
        let found = diagnose(operation, inputs, [names[2].operand(c)], overflow_or_invalid);
        name_largest_term(found, |index| {
            let (i, j, terms) = match index {
                Index::Cell(i, j) if !self.alpha.is_zero() => (i, j, self.a.cols()),
                _ => (0, 0, 0),
            };
            (0..terms).filter_map(move |k| {
                Some(Term { left: names[0].factor(self.a, i, k)?, right: Some(names[1].factor(self.b, k, j)?) })
            })
        })
    }

    /// The product by the kernel, for any layout of C; whether it is finite.
    pub(crate) fn multiply(&self, mut c: MatMut<'_, T>) -> Result<bool> {
        let Self { alpha, a, b, old, activation } = *self;
        if alpha.is_zero() || a.cols() == 0 {
            return self.multiply_nothing(c);
        }
        let (rows_contiguous, cols_contiguous) = (c.as_ref().row(0).is_some(), c.as_ref().t().row(0).is_some());
        let (rows, cols) = (c.rows(), c.cols());
        let few = cols % T::LANES;
        let has_few_at_end = cols > T::LANES && (1..=T::LANES / 4).contains(&few) && rows >= 4 * T::LANES;
        if has_few_at_end && rows_contiguous && !Isa::active()?.has_half_tiles() {
            // As a product of their own, so that they do not cost as much as a whole block.
            let (first, last) = (0..cols - few, cols - few..cols);
            let finite = self.part(0..rows, first.clone())?.multiply(c.reborrow().submatrix(0..rows, first)?)?;
            return Ok(self.part(0..rows, last.clone())?.multiply(c.submatrix(0..rows, last)?)? && finite);
        }
        if cols_contiguous && (rows > cols || !rows_contiguous) {
            launch(Gemm { alpha, a: b.t(), b: a.t(), old: old.t(), c: Target::Matrix(c.t()), activation })
        } else if rows_contiguous
            && cols <= T::LANES / 2
            && rows >= T::LANES
            && a.cols() > 2 * T::LANES
            && !Isa::active()?.has_half_tiles()
        {
            // Lanes along the columns would be empty, many of them, and so often that turning the result pays.
            launch(Gemm { alpha, a: b.t(), b: a.t(), old: old.t(), c: Target::Columns(c), activation })
        } else if rows_contiguous {
            launch(Gemm { alpha, a, b, old, c: Target::Matrix(c), activation })
        } else {
            let mut dense = c.as_ref().to_vec();
            let target = Target::Matrix(MatMut::new(&mut dense, rows, cols)?);
            let finite = launch(Gemm { alpha, a, b, old, c: target, activation })?;
            c.each_mut(|i, j, c| *c = dense[i * cols + j]);
            Ok(finite)
        }
    }

    /// `C = f(old)`; whether the old is finite.
    fn multiply_nothing(self, mut c: MatMut<'_, T>) -> Result<bool> {
        let mut finite = true;
        c.each_mut(|i, j, c| {
            let old = match self.old {
                Old::Scaled(beta) if beta.is_zero() => T::zero(),
                Old::Scaled(beta) => beta * *c,
                Old::Row(row) => row[j],
                Old::Column(column) => column[i],
            };
            finite &= old.is_finite();
            *c = old;
        });
        Ok(finite & self.activation.apply_matrix(c)?)
    }
}

/// Rows and columns of the largest old C that is copied whole: 2 MiB of `f64` at the most.
const COPY_SIDE: usize = 512;

/// Rows and columns that a rescue computes together.
const RESCUE_SIDE: usize = 64;

/// Length of the sums that a rescue widens at once: 2 MiB an operand.
const RESCUE_DEPTH: usize = 4096;

/// `0..len` in pieces.
pub(crate) fn ranges(len: usize, step: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(step).map(move |start| start..len.min(start.saturating_add(step)))
}

impl<T: Float> Product<'_, T> {
    /// Computes those elements again that are not finite though all that they are made of is; whether C is finite then.
    ///
    /// In `f64`, the operands of `f64` scaled so that nothing overflows, by the same kernel; where products cancel so far
    /// that nothing but rounding errors may be left, one by one with those errors kept. The elements of the old C are given
    /// row by row.
    #[cold]
    fn rescue(self, old: &[T], mut c: MatMut<'_, T>) -> Result<bool> {
        if self.activation != Activation::Identity {
            let linear = Self { activation: Activation::Identity, ..self };
            let _ = linear.multiply(c.reborrow())? || linear.rescue(old, c.reborrow())?;
            return self.activation.apply_matrix(c);
        }
        let (a, b) = (self.a, self.b);
        let (row_finite, col_finite) = (finite_rows(a), finite_rows(b.t()));
        let (beta, old) = match self.old {
            Old::Scaled(beta) => (beta, Copied { elements: old, row_stride: b.cols(), col_stride: 1 }),
            Old::Row(row) => (T::one(), Copied { elements: row, row_stride: 0, col_stride: 1 }),
            Old::Column(column) => (T::one(), Copied { elements: column, row_stride: 1, col_stride: 0 }),
        };
        let mut finite = true;
        for rows in ranges(a.rows(), RESCUE_SIDE) {
            for cols in ranges(b.cols(), RESCUE_SIDE) {
                let mut block = c.reborrow().submatrix(rows.clone(), cols.clone())?;
                let mut sums = None;
                for (i, row) in rows.clone().enumerate() {
                    for (j, col) in cols.clone().enumerate() {
                        let Some(c) = block.get_mut(i, j).filter(|c| !c.is_finite()) else { continue };
                        let old = old.get(row, col);
                        if row_finite[row] && col_finite[col] && old.is_finite() {
                            let sums = match &sums {
                                Some(sums) => sums,
                                None => sums.insert(WideProduct::new(
                                    a.submatrix(rows.clone(), 0..a.cols())?,
                                    b.submatrix(0..b.rows(), cols.clone())?,
                                )?),
                            };
                            let sum = sums.get(i, j);
                            *c = Scaled::of(self.alpha).mul(sum).add(Scaled::of(beta).mul(Scaled::of(old))).narrow();
                        }
                        finite &= c.is_finite();
                    }
                }
            }
        }
        Ok(finite)
    }
}

/// Which rows are finite.
fn finite_rows<T: Float>(x: MatRef<'_, T>) -> Vec<bool> {
    (0..x.rows()).map(|i| x.row_iter(i).all(|x| x.is_finite())).collect()
}

/// The elements that a product was added to; zeros if there are none.
#[derive(Clone, Copy)]
struct Copied<'a, T> {
    elements: &'a [T],
    row_stride: usize,
    col_stride: usize,
}

impl<T: Float> Copied<'_, T> {
    fn get(self, i: usize, j: usize) -> T {
        self.elements.get(i * self.row_stride + j * self.col_stride).copied().unwrap_or_else(T::zero)
    }
}

/// A product in wide arithmetic.
struct WideProduct<'a, T> {
    a: MatRef<'a, T>,
    b: MatRef<'a, T>,
    sums: Vec<f64>,
    /// The sums of the magnitudes of the products.
    magnitudes: Vec<f64>,
}

impl<'a, T: Float> WideProduct<'a, T> {
    fn new(a: MatRef<'a, T>, b: MatRef<'a, T>) -> Result<Self> {
        Ok(Self { a, b, sums: wide_product(a, b, |x| x)?, magnitudes: wide_product(a, b, f64::abs)? })
    }

    fn get(&self, i: usize, j: usize) -> Scaled<f64> {
        /// If more than this part of the magnitudes is left of a sum, at least half of its digits are right.
        const CANCELLED: f64 = 1e-8;
        let at = i * self.b.cols() + j;
        if self.sums[at].abs() > CANCELLED * self.magnitudes[at] {
            return unwiden::<T>(self.sums[at]);
        }
        let factors = self.a.row_iter(i).zip(self.b.t().row_iter(j));
        factors.fold(WideSum::new(), |sum, (&a, &b)| sum.add_product(a, b)).scaled()
    }
}

/// The product of the widened matrices, of what `f` makes of their elements.
fn wide_product<T: Float>(a: MatRef<'_, T>, b: MatRef<'_, T>, f: impl Fn(f64) -> f64) -> Result<Vec<f64>> {
    let mut sums = vec![0.0; a.rows() * b.cols()];
    for depth in ranges(a.cols(), RESCUE_DEPTH) {
        let wide = |x: MatRef<'_, T>| x.to_vec().into_iter().map(|x| f(widen(x))).collect::<Vec<_>>();
        let (left, right) =
            (wide(a.submatrix(0..a.rows(), depth.clone())?), wide(b.submatrix(depth.clone(), 0..b.cols())?));
        launch(Gemm {
            alpha: 1.0,
            a: MatRef::new(&left, a.rows(), depth.len())?,
            b: MatRef::new(&right, depth.len(), b.cols())?,
            old: Old::Scaled(1.0),
            c: Target::Matrix(MatMut::new(&mut sums, a.rows(), b.cols())?),
            activation: Activation::Identity,
        })?;
    }
    Ok(sums)
}
