//! The matrix product of 16-bit operands, in `f32`.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::matmul::{Name, Product, ranges};
use crate::error::{Result, Shape, check_shape};
use crate::finite::{Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::gemm::{Old, lend_lists};
use crate::storage::{Storage, round};
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
/// Gradient: `dA = dC B^T` and `dB = A^T dC`, by this function on [transposed](MatRef::t) views.
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
    let finite = lend_lists(|parts| -> Result<bool> {
        let mut finite = true;
        for cols in ranges(b.cols(), COLS) {
            for rows in ranges(a.rows(), ROWS) {
                finite &= compute(parts, a, b, &rows, &cols)?;
                finite &= round(&parts[2], c.reborrow().submatrix(rows.clone(), cols.clone())?);
            }
        }
        Ok(finite)
    })?;
    if finite { Ok(()) } else { again(a, b, c) }
}

/// Computes a part of C, a k-block after the other, from parts of the operands that are widened; whether it is finite.
fn compute<T: Float, A: Storage<Compute = T>, B: Storage<Compute = T>>(
    [wide_a, wide_b, c, _]: &mut [Vec<T>; 4],
    a: MatRef<'_, A>,
    b: MatRef<'_, B>,
    rows: &Range<usize>,
    cols: &Range<usize>,
) -> Result<bool> {
    let (m, n) = (rows.len(), cols.len());
    c.resize(m * n, T::zero());
    if a.cols() == 0 {
        c.fill(T::zero());
    }
    let mut finite = true;
    for depth in ranges(a.cols(), T::K_BLOCK) {
        a.submatrix(rows.clone(), depth.clone())?.map_into(wide_a, A::widen);
        b.submatrix(depth.clone(), cols.clone())?.map_into(wide_b, B::widen);
        let product = Product {
            old: Old::Scaled(if depth.start == 0 { T::zero() } else { T::one() }),
            ..Product::new(MatRef::new(wide_a, m, depth.len())?, MatRef::new(wide_b, depth.len(), n)?)
        };
        // What is not finite stays so: the last product tells.
        finite = product.multiply(MatMut::new(c, m, n)?)?;
    }
    Ok(finite)
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
    a.map_into(&mut wide_a, A::widen);
    b.map_into(&mut wide_b, B::widen);
    let mut sums = vec![T::zero(); c.rows() * c.cols()];
    let names = [Name::plain("a"), Name::plain("b"), Name::plain("c")];
    let product = Product::new(MatRef::new(&wide_a, a.rows(), a.cols())?, MatRef::new(&wide_b, b.rows(), b.cols())?);
    let result = product.run(NAME, names, MatMut::new(&mut sums, a.rows(), b.cols())?);
    round(&sums, c.reborrow());
    result?;
    let mut rounded = Vec::new();
    c.as_ref().map_into(&mut rounded, C::widen);
    let rounded = MatRef::new(&rounded, a.rows(), b.cols())?;
    diagnose(NAME, [], [Operand::matrix("c", rounded)], overflow_or_invalid)
}
