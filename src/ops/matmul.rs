//! The matrix product and its gradients.

use alloc::vec;
use alloc::vec::Vec;

use core::ops::Range;

use crate::error::{Error, Result, Shape, check_shape};
use crate::finite::{Index, Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::gemm::Gemm;
use crate::kernel::launch;
use crate::scaled::{Scaled, unwiden, widen};
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
/// error is at most `b u (|a[i, 0] b[0, j]| + ...)` with `b` the smaller of `k` and the block plus the number of blocks,
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
    product("matmul", NAMES, Matmul::default(), a, b, c)
}

/// [`matmul`] with [options](Matmul): `C = alpha A B + beta C`.
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
    product("matmul", NAMES, options, a, b, c)
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
    let plain = |name| Name { name, transposed: false };
    let transposed = |name| Name { name, transposed: true };
    let first = product(NAME, [plain("dc"), transposed("b"), plain("da")], Matmul::default(), dc, b.t(), da);
    let second = product(NAME, [transposed("a"), plain("dc"), plain("db")], Matmul::default(), a.t(), dc, db);
    first.and(second)
}

/// How the caller knows an operand.
#[derive(Clone, Copy)]
struct Name {
    name: &'static str,
    /// Whether it is the transpose of what the caller passed in.
    transposed: bool,
}

const NAMES: [Name; 3] = [
    Name { name: "a", transposed: false },
    Name { name: "b", transposed: false },
    Name { name: "c", transposed: false },
];

impl Name {
    /// The operand as the caller passed it in, to be reported.
    fn operand<T: Float>(self, x: MatRef<'_, T>) -> Operand<'_, T> {
        Operand::matrix(self.name, if self.transposed { x.t() } else { x })
    }
}

fn product<T: Float>(
    operation: &'static str,
    names: [Name; 3],
    options: Matmul<T>,
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    mut c: MatMut<'_, T>,
) -> Result<()> {
    check_shape(
        operation,
        names[1].name,
        b.shape(),
        Shape::Matrix(a.cols(), b.cols()),
        "the columns of the left operand by its own",
    )?;
    check_shape(operation, names[2].name, c.shape(), Shape::Matrix(a.rows(), b.cols()), "the shape of the product")?;
    let Matmul { alpha, beta } = options;
    for (argument, x) in [("alpha", alpha), ("beta", beta)] {
        if !x.is_finite() {
            return Err(Error::Argument { operation, argument, problem: "is not finite" });
        }
    }
    if c.as_ref().area() == 0 {
        return Ok(());
    }
    // Where there is an old C to add to, the copy of it that a rescue needs is kept small.
    let side = if beta.is_zero() { usize::MAX } else { COPY_SIDE };
    let mut finite = true;
    let mut old_faults = Vec::new();
    for rows in ranges(c.rows(), side) {
        for cols in ranges(c.cols(), side) {
            let a = a.submatrix(rows.clone(), 0..a.cols())?;
            let b = b.submatrix(0..b.rows(), cols.clone())?;
            let mut c = c.reborrow().submatrix(rows.clone(), cols.clone())?;
            let old = if beta.is_zero() { Vec::new() } else { elements(c.as_ref()) };
            if multiply(options, a, b, c.reborrow())? || rescue(options, a, b, &old, c)? {
                continue;
            }
            finite = false;
            let width = cols.len();
            let cell = |(i, &x): (usize, &T)| (Index::Cell(rows.start + i / width, cols.start + i % width), x);
            old_faults.extend(old.iter().enumerate().map(cell).filter(|(_, x)| !x.is_finite()));
        }
    }
    if finite {
        return Ok(());
    }
    old_faults.sort_by_key(|&(index, _)| match index {
        Index::Cell(row, col) => (row, col),
        _ => (0, 0),
    });
    let read = if alpha.is_zero() { 0..0 } else { 0..a.cols() };
    let inputs = [
        names[0].operand(a.submatrix(0..a.rows(), read.clone())?),
        names[1].operand(b.submatrix(read, 0..b.cols())?),
        Operand::listed(names[2].name, old_faults, c.as_ref().area()),
    ];
    diagnose(operation, inputs, [names[2].operand(c.as_ref())], overflow_or_invalid)
}

/// Rows and columns of the largest old C that is copied whole: 8 MiB of `f64` at the most.
const COPY_SIDE: usize = 1024;

/// Rows and columns that a rescue computes together.
const RESCUE_SIDE: usize = 64;

/// Length of the sums that a rescue widens at once: 2 MiB an operand.
const RESCUE_DEPTH: usize = 4096;

/// `0..len` in pieces.
fn ranges(len: usize, step: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(step).map(move |start| start..len.min(start.saturating_add(step)))
}

/// The elements row by row.
fn elements<T: Float>(x: MatRef<'_, T>) -> Vec<T> {
    (0..x.rows()).flat_map(|i| x.row_iter(i).copied()).collect()
}

/// The product by the kernel, for any layout of C; whether it is finite.
fn multiply<T: Float>(options: Matmul<T>, a: MatRef<'_, T>, b: MatRef<'_, T>, mut c: MatMut<'_, T>) -> Result<bool> {
    let Matmul { alpha, beta } = options;
    if alpha.is_zero() || a.cols() == 0 {
        return Ok(scale(beta, c));
    }
    let (rows_contiguous, cols_contiguous) = (c.as_ref().row(0).is_some(), c.as_ref().t().row(0).is_some());
    if rows_contiguous && !(cols_contiguous && c.rows() > c.cols()) {
        launch(Gemm { alpha, a, b, beta, c })
    } else if cols_contiguous {
        launch(Gemm { alpha, a: b.t(), b: a.t(), beta, c: c.t() })
    } else {
        let mut dense = elements(c.as_ref());
        let (rows, cols) = (c.rows(), c.cols());
        let finite = launch(Gemm { alpha, a, b, beta, c: MatMut::new(&mut dense, rows, cols)? })?;
        c.each_mut(|i, j, c| *c = dense[i * cols + j]);
        Ok(finite)
    }
}

/// `C = beta C`; whether it is finite.
fn scale<T: Float>(beta: T, mut c: MatMut<'_, T>) -> bool {
    let mut finite = true;
    c.each_mut(|_, _, c| {
        *c = if beta.is_zero() { T::zero() } else { beta * *c };
        finite &= c.is_finite();
    });
    finite
}

/// Computes those elements again that are not finite though all that they are made of is; whether C is finite then.
///
/// In `f64`, the operands of `f64` scaled so that nothing overflows, by the same kernel.
#[cold]
fn rescue<T: Float>(
    options: Matmul<T>,
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    old: &[T],
    mut c: MatMut<'_, T>,
) -> Result<bool> {
    let all_finite = |x: MatRef<'_, T>| (0..x.rows()).map(|i| x.row_iter(i).all(|x| x.is_finite())).collect::<Vec<_>>();
    let (row_finite, col_finite) = (all_finite(a), all_finite(b.t()));
    let old = |i: usize, j: usize| old.get(i * b.cols() + j).copied().unwrap_or_else(T::zero);
    let mut finite = true;
    for rows in ranges(a.rows(), RESCUE_SIDE) {
        for cols in ranges(b.cols(), RESCUE_SIDE) {
            let mut block = c.reborrow().submatrix(rows.clone(), cols.clone())?;
            let mut sums = None;
            for (i, row) in rows.clone().enumerate() {
                for (j, col) in cols.clone().enumerate() {
                    let Some(c) = block.get_mut(i, j).filter(|c| !c.is_finite()) else { continue };
                    if row_finite[row] && col_finite[col] && old(row, col).is_finite() {
                        let sums = match &sums {
                            Some(sums) => sums,
                            None => sums.insert(wide_product(
                                a.submatrix(rows.clone(), 0..a.cols())?,
                                b.submatrix(0..b.rows(), cols.clone())?,
                            )?),
                        };
                        let sum = unwiden::<T>(sums[i * cols.len() + j]);
                        *c = Scaled::of(options.alpha)
                            .mul(sum)
                            .add(Scaled::of(options.beta).mul(Scaled::of(old(row, col))))
                            .narrow();
                    }
                    finite &= c.is_finite();
                }
            }
        }
    }
    Ok(finite)
}

/// The product of the widened matrices.
fn wide_product<T: Float>(a: MatRef<'_, T>, b: MatRef<'_, T>) -> Result<Vec<f64>> {
    let mut sums = vec![0.0; a.rows() * b.cols()];
    for depth in ranges(a.cols(), RESCUE_DEPTH) {
        let wide = |x: MatRef<'_, T>| elements(x).into_iter().map(widen).collect::<Vec<_>>();
        let (left, right) =
            (wide(a.submatrix(0..a.rows(), depth.clone())?), wide(b.submatrix(depth.clone(), 0..b.cols())?));
        launch(Gemm {
            alpha: 1.0,
            a: MatRef::new(&left, a.rows(), depth.len())?,
            b: MatRef::new(&right, depth.len(), b.cols())?,
            beta: 1.0,
            c: MatMut::new(&mut sums, a.rows(), b.cols())?,
        })?;
    }
    Ok(sums)
}
