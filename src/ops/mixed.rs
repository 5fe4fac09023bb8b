//! The matrix product of 16-bit operands, in `f32`.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::matmul::{Name, Product, ranges};
use crate::error::{Result, Shape, check_shape};
use crate::finite::{Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::gemm::Old;
use crate::storage::Storage;
use crate::view::{MatMut, MatRef};

const NAME: &str = "matmul_mixed";

/// Rows and columns of C that are computed together: about 1 MiB with their widened operands.
const ROWS: usize = 256;
const COLS: usize = 192;

/// The matrix product `C = A B` of matrices in any [storage type](Storage) of one type to compute in: `bf16` and `f16`
/// are widened to `f32`, exactly, and C is rounded once to its own type.
///
/// A is `m x k`, B is `k x n`, C is `m x n`, each in a type of its own. The bits are those of
/// [`matmul`](crate::matmul) on the widened matrices, so C in `f32` has its error, and C in another type half an ULP
/// of that more. The memory needed beside the operands is less than 2 MiB a thread.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the shapes do not fit; [`Error::NonFinite`](crate::Error::NonFinite) if an
/// element of C is not finite, also if the sum is finite but too large for the type of C.
///
/// ```
/// # #[cfg(feature = "half")] {
/// use half::bf16;
/// use nanproof::{MatMut, MatRef, matmul_mixed};
///
/// let (a, b) = ([1.0, 2.0].map(bf16::from_f32), [3.0, 4.0].map(bf16::from_f32));
/// let mut c = [0.0_f32];
/// matmul_mixed(MatRef::new(&a, 1, 2)?, MatRef::new(&b, 2, 1)?, MatMut::new(&mut c, 1, 1)?)?;
/// assert_eq!(c, [11.0]);
/// # }
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn matmul_mixed<T, A, B, C>(a: MatRef<'_, A>, b: MatRef<'_, B>, mut c: MatMut<'_, C>) -> Result<()>
where
    T: Float,
    A: Storage<Compute = T>,
    B: Storage<Compute = T>,
    C: Storage<Compute = T>,
{
    check_shape(NAME, "b", b.shape(), Shape::Matrix(a.cols(), b.cols()), "the columns of a by its own")?;
    check_shape(NAME, "c", c.shape(), Shape::Matrix(a.rows(), b.cols()), "the shape of the product")?;
    let mut parts = Parts::default();
    let mut finite = true;
    for cols in ranges(b.cols(), COLS) {
        for rows in ranges(a.rows(), ROWS) {
            finite &= parts.compute(a, b, &rows, &cols)?;
            let sums = MatRef::new(&parts.c, rows.len(), cols.len())?;
            finite &= round(sums, c.reborrow().submatrix(rows.clone(), cols.clone())?);
        }
    }
    if finite { Ok(()) } else { again(a, b, c) }
}

/// Rounds sums to C; whether they are finite then.
fn round<C: Storage>(sums: MatRef<'_, C::Compute>, mut c: MatMut<'_, C>) -> bool {
    let mut finite = true;
    c.each_mut(|i, j, c| {
        *c = C::round(sums.from(i, j)[0]);
        finite &= c.class().is_none();
    });
    finite
}

/// Parts of the operands, widened, and of the result.
struct Parts<T> {
    a: Vec<T>,
    b: Vec<T>,
    c: Vec<T>,
}

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Self { a: Vec::new(), b: Vec::new(), c: Vec::new() }
    }
}

impl<T: Float> Parts<T> {
    /// Computes a part of C, a k-block after the other; whether it is finite.
    fn compute<A: Storage<Compute = T>, B: Storage<Compute = T>>(
        &mut self,
        a: MatRef<'_, A>,
        b: MatRef<'_, B>,
        rows: &Range<usize>,
        cols: &Range<usize>,
    ) -> Result<bool> {
        let (m, n) = (rows.len(), cols.len());
        self.c.clear();
        self.c.resize(m * n, T::zero());
        let mut finite = true;
        for depth in ranges(a.cols(), T::K_BLOCK) {
            widen(a.submatrix(rows.clone(), depth.clone())?, &mut self.a);
            widen(b.submatrix(depth.clone(), cols.clone())?, &mut self.b);
            let product = Product {
                old: Old::Scaled(if depth.start == 0 { T::zero() } else { T::one() }),
                ..Product::new(MatRef::new(&self.a, m, depth.len())?, MatRef::new(&self.b, depth.len(), n)?)
            };
            finite = product.multiply(MatMut::new(&mut self.c, m, n)?)?;
        }
        Ok(finite)
    }
}

/// Copies a matrix row by row in the type that it is computed in.
fn widen<A: Storage>(x: MatRef<'_, A>, wide: &mut Vec<A::Compute>) {
    wide.clear();
    for i in 0..x.rows() {
        match x.row(i) {
            Some(row) => wide.extend(row.iter().map(|&x| x.widen())),
            None => wide.extend(x.row_iter(i).map(|&x| x.widen())),
        }
    }
}

/// The whole product at once, with all that [`matmul`](crate::matmul) does where something is not finite.
#[cold]
fn again<T, A, B, C>(a: MatRef<'_, A>, b: MatRef<'_, B>, mut c: MatMut<'_, C>) -> Result<()>
where
    T: Float,
    A: Storage<Compute = T>,
    B: Storage<Compute = T>,
    C: Storage<Compute = T>,
{
    let (mut wide_a, mut wide_b) = (Vec::new(), Vec::new());
    widen(a, &mut wide_a);
    widen(b, &mut wide_b);
    let mut sums = vec![T::zero(); c.rows() * c.cols()];
    let names = [Name::plain("a"), Name::plain("b"), Name::plain("c")];
    let product = Product::new(MatRef::new(&wide_a, a.rows(), a.cols())?, MatRef::new(&wide_b, b.rows(), b.cols())?);
    let result = product.run(NAME, names, MatMut::new(&mut sums, a.rows(), b.cols())?);
    round(MatRef::new(&sums, a.rows(), b.cols())?, c.reborrow());
    result?;
    let mut rounded = Vec::new();
    widen(c.as_ref(), &mut rounded);
    let rounded = MatRef::new(&rounded, a.rows(), b.cols())?;
    diagnose(NAME, [], [Operand::matrix("c", rounded)], overflow_or_invalid)
}
