//! The matrix product as each peer offers it.

use std::mem::MaybeUninit;
use std::num::NonZeroUsize;

use anyhow::Result;
use candle_core::{Device, Tensor, WithDType};
use faer::linalg::matmul::matmul as faer_matmul;
use faer::traits::ComplexField;
use faer::{Accum, Par};
use gemm::Parallelism;
use nanproof::{BatchMut, BatchRef, MatMut, MatRef};
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, LinalgScalar};
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmUninitOptions};
use rten_tensor::NdTensorView;

use crate::blas::{Libraries, Library, Multiply};
use crate::limits::Peak;
use crate::matmul::Shape;
use crate::report::NANPROOF;

/// A call that writes the product, or all products of a batch, to its argument.
pub type Call<'a, T> = Box<dyn FnMut(&mut [T]) + 'a>;

/// The call of a peer.
pub struct Product<'a, T> {
    pub peer: String,
    pub call: Call<'a, T>,
}

impl<'a, T> Product<'a, T> {
    fn new(peer: impl Into<String>, call: impl FnMut(&mut [T]) + 'a) -> Self {
        Self { peer: peer.into(), call: Box::new(call) }
    }
}

/// The operands, and the threads to multiply them with.
#[derive(Clone, Copy)]
struct Problem<'a, T> {
    shape: Shape,
    a: &'a [T],
    b: &'a [T],
    threads: usize,
}

/// Distances in memory between neighbours in a column and in a row.
#[derive(Clone, Copy)]
struct Strides {
    row: usize,
    col: usize,
}

impl Shape {
    fn a_strides(self) -> Strides {
        if self.a_transposed { Strides { row: 1, col: self.m } } else { Strides { row: self.k, col: 1 } }
    }

    fn b_strides(self) -> Strides {
        if self.b_transposed { Strides { row: 1, col: self.k } } else { Strides { row: self.n, col: 1 } }
    }
}

impl<'a, T> Problem<'a, T> {
    /// Calls `multiply` for each product of the batch, for peers that have no call for all.
    fn each(self, c: &mut [T], multiply: impl FnMut(&'a [T], &'a [T], &mut [T])) {
        self.shape.each(self.a, self.b, c, multiply);
    }
}

/// Element types with what the peers ask of them.
pub trait Element:
    nanproof::Float + bytemuck::NoUninit + ComplexField + LinalgScalar + WithDType + From<f32> + Into<f64>
{
    const NAME: &'static str;
    const ZERO: Self;
    const ONE: Self;
    /// The distance between 1 and the next number.
    const EPSILON: f64;

    fn peak() -> Peak;

    /// Products of the peers that have them for this type alone.
    fn more_products<'a>(shape: Shape, a: &'a [Self], b: &'a [Self]) -> Vec<Product<'a, Self>>;

    /// `C = A B` by `matrixmultiply`.
    fn matrixmultiply(shape: Shape, a: &[Self], b: &[Self], c: &mut [Self]);

    /// `C = A B` by a library, if it has this type.
    fn multiply_with(library: &Library) -> Option<Multiply<Self>>;
}

macro_rules! element {
    ($type:ident, $matrixmultiply:path, $library:ident, $more:expr) => {
        impl Element for $type {
            const NAME: &'static str = stringify!($type);
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const EPSILON: f64 = $type::EPSILON as f64;

            fn peak() -> Peak {
                Peak::$type()
            }

            fn more_products<'a>(shape: Shape, a: &'a [Self], b: &'a [Self]) -> Vec<Product<'a, Self>> {
                $more(shape, a, b)
            }

            fn matrixmultiply(shape: Shape, a: &[Self], b: &[Self], c: &mut [Self]) {
                let Shape { m, k, n, .. } = shape;
                let (sa, sb) = (shape.a_strides(), shape.b_strides());
                let stride = |stride| stride as isize;
                assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n);
                // SAFETY: the strides stay within the slices, whose lengths are those of the shapes.
                unsafe {
                    $matrixmultiply(
                        m,
                        k,
                        n,
                        1.0,
                        a.as_ptr(),
                        stride(sa.row),
                        stride(sa.col),
                        b.as_ptr(),
                        stride(sb.row),
                        stride(sb.col),
                        0.0,
                        c.as_mut_ptr(),
                        stride(n),
                        1,
                    );
                }
            }

            fn multiply_with(library: &Library) -> Option<Multiply<Self>> {
                library.$library()
            }
        }
    };
}

element!(f32, matrixmultiply::sgemm, product_f32, |shape, a, b| vec![rten(shape, a, b)]);
element!(f64, matrixmultiply::dgemm, product_f64, |_, _, _| Vec::new());

/// Ours first, then those of every peer.
pub fn products<'a, T: Element>(
    shape: Shape,
    a: &'a [T],
    b: &'a [T],
    threads: usize,
    libraries: &'a Libraries,
) -> Result<Vec<Product<'a, T>>> {
    let problem = Problem { shape, a, b, threads };
    let mut products = vec![
        Product::new(NANPROOF, move |c| nanproof(problem, c)),
        Product::new("gemm", move |c| gemm(problem, c)),
        Product::new("faer", move |c| faer(problem, c)),
        Product::new("matrixmultiply", move |c| {
            problem.each(c, |a, b, c| T::matrixmultiply(shape, a, b, c));
        }),
        Product::new("ndarray", move |c| ndarray(problem, c)),
        candle(problem)?,
    ];
    products.extend(T::more_products(shape, a, b));
    for library in libraries.iter() {
        if let Some(multiply) = T::multiply_with(library) {
            products.push(Product::new(library.name, move |c| multiply(shape, a, b, c)));
        }
    }
    Ok(products)
}

fn nanproof<T: Element>(problem: Problem<'_, T>, c: &mut [T]) {
    let Problem { shape, a, b, .. } = problem;
    let Shape { m, k, n, batch, .. } = shape;
    if batch > 1 {
        let view = |x, transposed, rows, cols| {
            let x = if transposed {
                BatchRef::new(x, batch, cols, rows).map(BatchRef::t)
            } else {
                BatchRef::new(x, batch, rows, cols)
            };
            x.expect("the operand has the shape")
        };
        let (a, b) = (view(a, shape.a_transposed, m, k), view(b, shape.b_transposed, k, n));
        let c = BatchMut::new(c, batch, m, n).expect("C has the shape");
        nanproof::matmul_batched(a, b, c).expect("the products are finite");
    } else {
        let view = |x, transposed, rows, cols| {
            let x = if transposed { MatRef::new(x, cols, rows).map(MatRef::t) } else { MatRef::new(x, rows, cols) };
            x.expect("the operand has the shape")
        };
        let (a, b) = (view(a, shape.a_transposed, m, k), view(b, shape.b_transposed, k, n));
        let c = MatMut::new(c, m, n).expect("C has the shape");
        nanproof::matmul(a, b, c).expect("the product is finite");
    }
}

fn gemm<T: Element>(problem: Problem<'_, T>, c: &mut [T]) {
    let parallelism = if problem.threads == 1 { Parallelism::None } else { Parallelism::Rayon(problem.threads) };
    let shape = problem.shape;
    let Shape { m, k, n, .. } = shape;
    problem.each(c, |a, b, c| {
        let (sa, sb) = (shape.a_strides(), shape.b_strides());
        let stride = |stride| stride as isize;
        assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n);
        // SAFETY: the strides stay within the slices, whose lengths are those of the shapes.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                c.as_mut_ptr(),
                1,
                stride(n),
                false,
                a.as_ptr(),
                stride(sa.col),
                stride(sa.row),
                b.as_ptr(),
                stride(sb.col),
                stride(sb.row),
                T::ZERO,
                T::ONE,
                false,
                false,
                false,
                parallelism,
            );
        }
    });
}

fn faer<T: Element>(problem: Problem<'_, T>, c: &mut [T]) {
    let parallelism = match NonZeroUsize::new(problem.threads) {
        Some(threads) if threads.get() > 1 => Par::Rayon(threads),
        _ => Par::Seq,
    };
    let shape = problem.shape;
    let Shape { m, k, n, .. } = shape;
    problem.each(c, |a, b, c| {
        let view = |x, transposed, rows, cols| {
            if transposed {
                faer::MatRef::from_column_major_slice(x, rows, cols)
            } else {
                faer::MatRef::from_row_major_slice(x, rows, cols)
            }
        };
        let (a, b) = (view(a, shape.a_transposed, m, k), view(b, shape.b_transposed, k, n));
        let c = faer::MatMut::from_row_major_slice_mut(c, m, n);
        faer_matmul(c, Accum::Replace, a, b, T::ONE, parallelism);
    });
}

fn ndarray<T: Element>(problem: Problem<'_, T>, c: &mut [T]) {
    let shape = problem.shape;
    let Shape { m, k, n, .. } = shape;
    problem.each(c, |a, b, c| {
        let view = |x, transposed, rows, cols| {
            let shape = if transposed { (cols, rows) } else { (rows, cols) };
            let x = ArrayView2::from_shape(shape, x).expect("the operand has the shape");
            if transposed { x.reversed_axes() } else { x }
        };
        let (a, b) = (view(a, shape.a_transposed, m, k), view(b, shape.b_transposed, k, n));
        let mut c = ArrayViewMut2::from_shape((m, n), c).expect("C has the shape");
        general_mat_mul(T::ONE, &a, &b, T::ZERO, &mut c);
    });
}

/// candle allocates its result in every call; it has a batched call.
fn candle<'a, T: Element>(problem: Problem<'a, T>) -> Result<Product<'a, T>> {
    let Shape { m, k, n, a_transposed, b_transposed, batch } = problem.shape;
    let tensor = |x, transposed, rows, cols| {
        let (outer, inner) = if transposed { (cols, rows) } else { (rows, cols) };
        let x = if batch == 1 {
            Tensor::from_slice(x, (outer, inner), &Device::Cpu)
        } else {
            Tensor::from_slice(x, (batch, outer, inner), &Device::Cpu)
        };
        if transposed { x?.t() } else { x }
    };
    let (a, b) = (tensor(problem.a, a_transposed, m, k)?, tensor(problem.b, b_transposed, k, n)?);
    let mut first = true;
    Ok(Product::new("candle-core", move |c: &mut [T]| {
        let product = a.matmul(&b).expect("the shapes fit");
        // The first call is the one whose result is compared; the copy is no part of the work.
        if std::mem::take(&mut first) {
            let product = product.flatten_all().and_then(|product| product.to_vec1::<T>());
            c.copy_from_slice(&product.expect("the result has the element type"));
        }
    }))
}

/// rten has a batched call.
fn rten<'a>(shape: Shape, a: &'a [f32], b: &'a [f32]) -> Product<'a, f32> {
    let Shape { m, k, n, a_transposed, b_transposed, .. } = shape;
    let view = |x: &'a [f32], transposed: bool, rows: usize, cols: usize| {
        if transposed {
            NdTensorView::from_data([cols, rows], x).transposed()
        } else {
            NdTensorView::from_data([rows, cols], x)
        }
    };
    let a: Vec<_> = a.chunks_exact(m * k).map(|a| GemmInputA::Unpacked(view(a, a_transposed, m, k))).collect();
    let b: Vec<_> = b.chunks_exact(k * n).map(|b| GemmInputB::Unpacked(view(b, b_transposed, k, n))).collect();
    let executor = GemmExecutor::<f32>::new();
    Product::new("rten-gemm", move |c: &mut [f32]| {
        // SAFETY: a slice of elements is one of maybe uninitialised elements, and rten writes elements only.
        let c = unsafe { &mut *(std::ptr::from_mut(c) as *mut [MaybeUninit<f32>]) };
        let options = GemmUninitOptions::default();
        let result = match (&*a, &*b) {
            (&[a], &[b]) => executor.gemm_uninit(c, a, b, options).map(|_| ()),
            (a, b) => executor.batched_gemm_uninit(c, a, b, options).map(|_| ()),
        };
        result.expect("the shapes fit");
    })
}
