//! The products beside the plain one: the linear layer, batches, 16-bit operands, single rows. Each has the bits of the
//! plain product, on every instruction set.

mod common;

use common::{Kind, assert_same, data, mat, mat_mut, num, report};
use nanproof::{
    Activation, BatchMut, BatchRef, Class, Error, Float, Index, LinearGradients, MatMut, MatRef, Matmul, Origin,
    linear, linear_backward, matmul, matmul_batched, matmul_batched_with, matmul_with, relu, tanh,
};

const ACTIVATIONS: [Activation; 3] = [Activation::Identity, Activation::Relu, Activation::Tanh];

/// Rows, depths and columns: tiles and what is left of them, k-blocks, slabs, a single row.
const SHAPES: [(usize, usize, usize); 9] = [
    (1, 1, 1),
    (1, 600, 37),
    (5, 3, 16),
    (7, 33, 17),
    (13, 700, 70),
    (64, 16, 33),
    (20, 5, 400),
    (100, 40, 7),
    (40, 530, 5),
];

/// By the definition: rows of bias, a product onto them, an activation.
fn unfused<T: Float>(activation: Activation, x: MatRef<'_, T>, w: MatRef<'_, T>, bias: &[T]) -> Vec<T> {
    let mut z = bias.repeat(x.rows());
    let options = Matmul { beta: T::one(), ..Matmul::default() };
    drop(matmul_with(options, x, w.t(), mat_mut(&mut z, x.rows(), w.rows())));
    let mut y = z.clone();
    match activation {
        Activation::Relu => drop(relu(&z, &mut y)),
        Activation::Tanh => drop(tanh(&z, &mut y)),
        _ => {}
    }
    y
}

fn linear_is_unfused<T: Float>() {
    for (m, k, n) in SHAPES {
        for kind in [Kind::Within(1.0), Kind::AnyFinite, Kind::Special] {
            let (x, w, bias) = (data::<T>(1, kind, m * k), data::<T>(2, kind, n * k), data::<T>(3, kind, n));
            let (x, w) = (mat(&x, m, k), mat(&w, n, k));
            for activation in ACTIVATIONS {
                let context = format!("{activation:?} {m} x {k} x {n}, {kind:?}");
                let want = unfused(activation, x, w, &bias);
                let mut y = vec![T::nan(); m * n];
                drop(linear(activation, x, w, Some(&bias), mat_mut(&mut y, m, n)));
                assert_same(&context, &y, &want);
                // A result stored by columns.
                drop(linear(activation, x, w, Some(&bias), MatMut::column_major(&mut y, m, n).expect("dense")));
                let view = MatRef::column_major(&y, m, n).expect("dense");
                let got = (0..m).flat_map(|i| (0..n).map(move |j| view.get(i, j).expect("inside"))).collect::<Vec<_>>();
                assert_same(&context, &got, &want);
                let zeros = vec![T::zero(); n];
                let (mut without, mut with) = (vec![T::nan(); m * n], vec![T::nan(); m * n]);
                drop(linear(activation, x, w, None, mat_mut(&mut without, m, n)));
                drop(linear(activation, x, w, Some(&zeros), mat_mut(&mut with, m, n)));
                let equal = |(a, b): (&T, &T)| a == b || a.is_nan() && b.is_nan(); // a sum of -0 becomes +0
                assert!(without.iter().zip(&with).all(equal), "no bias, {context}");
            }
        }
    }
}

#[test]
fn a_linear_layer_is_a_product_and_an_activation() {
    everywhere!(linear_is_unfused);
}

fn overflow_in_a_linear_layer<T: Float>() {
    let max = T::max_value();
    let mut y = [T::nan(); 2];
    // The sum overflows on the way to 3, and the bias takes part in it.
    let (x, w) = ([max, max, num(3.0)], [T::one(), -T::one(), T::one(), T::one(), T::one(), T::zero()]);
    let (x, w) = (mat(&x, 1, 3), mat(&w, 2, 3));
    linear(Activation::Relu, x, w, Some(&[T::zero(), -max]), mat_mut(&mut y, 1, 2)).expect("representable");
    assert_same("rescued", &y, &[num(3.0), max]);
    // What overflows downwards is 0 after relu, and -1 after tanh.
    let (x, w) = ([max, max], [-T::one(), -T::one()]);
    let (x, w) = (mat(&x, 1, 2), mat(&w, 1, 2));
    linear(Activation::Relu, x, w, None, mat_mut(&mut y[..1], 1, 1)).expect("0");
    assert_same("relu", &y[..1], &[T::zero()]);
    linear(Activation::Tanh, x, w, None, mat_mut(&mut y[..1], 1, 1)).expect("-1");
    assert_same("tanh", &y[..1], &[-T::one()]);
    // A NaN is never hidden by an activation, and what is wrong is named as the caller knows it.
    for activation in ACTIVATIONS {
        let mut y = [T::nan(); 20];
        let (x, mut w, mut bias) = ([T::one(); 10], [T::one(); 20], [T::zero(); 4]);
        w[7] = T::nan();
        let found = report(linear(activation, mat(&x, 2, 5), mat(&w, 4, 5), Some(&bias), mat_mut(&mut y[..8], 2, 4)));
        assert_eq!((found.operand, found.index, found.class), ("w", Index::Cell(1, 2), Class::Nan));
        w[7] = T::one();
        bias[3] = T::nan();
        let found = report(linear(activation, mat(&x, 2, 5), mat(&w, 4, 5), Some(&bias), mat_mut(&mut y[..8], 2, 4)));
        assert_eq!((found.operand, found.index, found.origin), ("bias", Index::At(3), Origin::PassedIn));
    }
}

#[test]
fn overflow_and_reports_of_a_linear_layer() {
    everywhere!(overflow_in_a_linear_layer);
}

fn gradients_of_linear<T: Float>() {
    for (m, k, n) in SHAPES {
        for activation in ACTIVATIONS {
            let draw = |seed, len| data::<T>(seed, Kind::Within(1.0), len);
            let (x, w, bias, dy) = (draw(1, m * k), draw(2, n * k), draw(3, n), draw(4, m * n));
            let (x, w) = (mat(&x, m, k), mat(&w, n, k));
            let mut z = vec![T::nan(); m * n];
            linear(Activation::Identity, x, w, Some(&bias), mat_mut(&mut z, m, n)).expect("finite");
            let [mut dz, mut dx, mut dw, mut db] = [m * n, m * k, n * k, n].map(|len| vec![T::nan(); len]);
            let gradients = LinearGradients {
                dz: mat_mut(&mut dz, m, n),
                dx: Some(mat_mut(&mut dx, m, k)),
                dw: mat_mut(&mut dw, n, k),
                db: Some(&mut db),
            };
            linear_backward(activation, x, w, mat(&z, m, n), mat(&dy, m, n), gradients).expect("finite");

            let mut want = dy.clone();
            match activation {
                Activation::Relu => nanproof::relu_backward(&z, &dy, &mut want).expect("finite"),
                Activation::Tanh => nanproof::tanh_backward(&z, &dy, &mut want).expect("finite"),
                _ => {}
            }
            let context = format!("{activation:?} {m} x {k} x {n}");
            assert_same(format_args!("dz, {context}"), &dz, &want);
            let (dz, mut want) = (mat(&dz, m, n), vec![T::nan(); m * k]);
            matmul(dz, w, mat_mut(&mut want, m, k)).expect("finite");
            assert_same(format_args!("dx, {context}"), &dx, &want);
            let mut want = vec![T::nan(); n * k];
            matmul(dz.t(), x, mat_mut(&mut want, n, k)).expect("finite");
            assert_same(format_args!("dw, {context}"), &dw, &want);
            let (ones, mut want) = (vec![T::one(); m], vec![T::nan(); n]);
            matmul(mat(&ones, 1, m), dz, mat_mut(&mut want, 1, n)).expect("finite");
            assert_same(format_args!("db, {context}"), &db, &want);
        }
    }
}

#[test]
fn the_gradients_of_a_linear_layer() {
    everywhere!(gradients_of_linear);
}

#[test]
fn a_linear_layer_refuses_what_does_not_fit() {
    let (x, mut y) = ([1.0_f32; 6], [7.0_f32; 6]);
    let refused = |result: nanproof::Result<()>| assert!(matches!(result, Err(Error::Shape { .. })), "{result:?}");
    refused(linear(Activation::Relu, mat(&x, 2, 3), mat(&x, 3, 2), None, mat_mut(&mut y, 2, 3)));
    refused(linear(Activation::Relu, mat(&x, 3, 2), mat(&x, 3, 2), Some(&x[..2]), mat_mut(&mut y, 2, 3)));
    refused(linear(Activation::Relu, mat(&x, 3, 2), mat(&x, 3, 2), None, mat_mut(&mut y, 2, 3)));
    assert_eq!(y, [7.0; 6]);
}

/// One row against every layout of B: the bits of the row in a larger product.
fn single_rows<T: Float>() {
    for (k, n) in [(1, 1), (3, 50), (40, 16), (16, 40), (515, 33), (1100, 1300), (70, 2100), (512, 5)] {
        for kind in [Kind::Within(1.0), Kind::AnyFinite, Kind::Special] {
            let (a, b) = (data::<T>(5, kind, 3 * k), data::<T>(6, kind, k * n));
            let transposed = (0..n).flat_map(|j| (0..k).map(move |p| p * n + j)).map(|at| b[at]).collect::<Vec<_>>();
            let spread = b.iter().flat_map(|&x| [x, T::nan()]).collect::<Vec<_>>();
            let layouts = [
                ("by rows", mat(&b, k, n)),
                ("by columns", MatRef::column_major(&transposed, k, n).expect("dense")),
                ("strided", MatRef::with_strides(&spread, k, n, 2 * n, 2).expect("inside")),
            ];
            let mut whole = vec![T::nan(); 3 * n];
            drop(matmul(mat(&a, 3, k), mat(&b, k, n), mat_mut(&mut whole, 3, n)));
            for (layout, b) in layouts {
                let context = format!("1 x {k} x {n}, {layout}, {kind:?}");
                let mut row = vec![T::nan(); n];
                drop(matmul(mat(&a[k..2 * k], 1, k), b, mat_mut(&mut row, 1, n)));
                assert_same(&context, &row, &whole[n..2 * n]);
                // As a column: B^T a^T.
                drop(matmul(b.t(), mat(&a[k..2 * k], k, 1), mat_mut(&mut row, n, 1)));
                assert_same(&context, &row, &whole[n..2 * n]);
            }
        }
    }
}

#[test]
fn a_single_row_or_column() {
    everywhere!(single_rows);
}

/// Few columns, a few columns more than whole blocks, few rows with a large B: the bits of single rows, for every layout
/// of A and C.
fn few_rows_or_columns<T: Float>() {
    let narrow = [(16, 7, 5), (37, 530, 6), (200, 33, 1), (70, 40, 33), (90, 20, 50), (65, 16, 3), (20, 300, 11)];
    let wider_than_a_tile = [(37, 53, 41), (9, 512, 48)];
    for (m, k, n) in narrow.into_iter().chain(wider_than_a_tile).chain([(5, 260, 1031), (13, 520, 520)]) {
        for (kind, alpha, beta) in
            [(Kind::Within(1.0), 1.0, 0.0), (Kind::AnyFinite, 0.5, 1.5), (Kind::Special, 1.0, 1.0)]
        {
            let options = Matmul { alpha: num(alpha), beta: num(beta) };
            let (a, b, old) = (data::<T>(1, kind, m * k), data::<T>(2, kind, k * n), data::<T>(3, kind, m * n));
            let by_columns = (0..k).flat_map(|p| (0..m).map(move |i| i * k + p)).map(|at| a[at]).collect::<Vec<_>>();
            let b = mat(&b, k, n);
            let mut want = old.clone();
            for (a, c) in a.chunks(k).zip(want.chunks_mut(n)) {
                drop(matmul_with(options, mat(a, 1, k), b, mat_mut(c, 1, n)));
            }
            for (layout, a) in [("rows", mat(&a, m, k)), ("columns", mat(&by_columns, k, m).t())] {
                for (row_stride, col_stride) in [(n, 1), (n + 3, 1), (2 * n, 2), (1, m)] {
                    let context = format!("A by {layout}, C {row_stride}, {col_stride}: {m} x {k} x {n}, {kind:?}");
                    let place = |i, j| i * row_stride + j * col_stride;
                    let mut c = vec![num::<T>(7.0); place(m - 1, n - 1) + 1];
                    (0..m * n).for_each(|at| c[place(at / n, at % n)] = old[at]);
                    let view = MatMut::with_strides(&mut c, m, n, row_stride, col_stride).expect("inside");
                    drop(matmul_with(options, a, b, view));
                    let got = (0..m * n).map(|at| c[place(at / n, at % n)]).collect::<Vec<_>>();
                    assert_same(&context, &got, &want);
                    (0..m * n).for_each(|at| c[place(at / n, at % n)] = num(7.0));
                    assert!(c.iter().all(|&x| x == num(7.0)), "between the elements, {context}");
                }
            }
        }
    }
}

/// Parts of A and B that are read where they are, or packed, alone or together, and sums that are added to C in whole
/// tiles: the bits of single rows.
fn large_parts<T: Float>() {
    for (m, k, n, beta) in [(25, 515, 520, 0.0), (112, 130, 250, 1.0), (61, 30, 64, 1.0), (14, 1030, 70, 0.0)] {
        let options = Matmul { alpha: num(1.0 - beta / 2.0), beta: num(beta) };
        let [a, b, old] =
            [(1, m * k), (2, k * n), (3, m * n)].map(|(seed, len)| data::<T>(seed, Kind::Within(1.0), len));
        let mut want = old.clone();
        for (a, c) in a.chunks(k).zip(want.chunks_mut(n)) {
            drop(matmul_with(options, mat(a, 1, k), mat(&b, k, n), mat_mut(c, 1, n)));
        }
        // B at a cache line, and not.
        for shift in [0, 1] {
            let mut memory = vec![T::nan(); k * n + 17];
            let start = memory.as_ptr().align_offset(64) + shift;
            memory[start..start + k * n].copy_from_slice(&b);
            let b = mat(&memory[start..start + k * n], k, n);
            // Rows or columns near each other, or at the same place in their pages.
            for (layout, len) in [("rows", k), ("columns", m)] {
                for stride in [len, len.next_multiple_of(1024)] {
                    let mut spread = vec![T::nan(); m * k / len * stride];
                    for (at, &x) in a.iter().enumerate() {
                        let (i, p) = (at / k, at % k);
                        spread[if len == k { i * stride + p } else { p * stride + i }] = x;
                    }
                    let (row_stride, col_stride) = if len == k { (stride, 1) } else { (1, stride) };
                    let a = MatRef::with_strides(&spread, m, k, row_stride, col_stride).expect("inside");
                    let mut c = old.clone();
                    drop(matmul_with(options, a, b, mat_mut(&mut c, m, n)));
                    assert_same(format_args!("A by {layout}, {stride} apart: {m} x {k} x {n}, {beta}"), &c, &want);
                }
            }
        }
    }
}

#[test]
fn few_rows_or_columns_are_single_rows() {
    in_one_piece(|| everywhere!(few_rows_or_columns));
}

#[test]
fn large_parts_are_single_rows() {
    in_one_piece(|| everywhere!(large_parts));
}

/// C among other rows of a larger matrix: nothing else is written.
fn rows_of_a_larger_matrix<T: Float>() {
    for (m, k) in (1..14).chain([25, 50]).flat_map(|m| [(m, 5), (m, 70)]) {
        for n in [1, 5, 8, 16, 24, 31, 32, 40, 48, 64, 100] {
            let [a, b, bias, w] =
                [(1, m * k), (2, k * n), (3, n), (4, n * k)].map(|(seed, len)| data::<T>(seed, Kind::Within(1.0), len));
            let [a, b] = [mat(&a, m, k), mat(&b, k, n)];
            let added = Matmul { beta: T::one(), ..Matmul::default() };
            for operation in ["plain", "added", "biased"] {
                let mut memory = vec![num::<T>(7.0); (m + 60) * n];
                let c = mat_mut(&mut memory, m + 60, n).submatrix(3..m + 3, 0..n).expect("inside");
                drop(match operation {
                    "plain" => matmul(a, b, c),
                    "added" => matmul_with(added, a, b, c),
                    _ => linear(Activation::Identity, a, mat(&w, n, k), Some(&bias), c),
                });
                let outside = memory[..3 * n].iter().chain(&memory[(m + 3) * n..]);
                assert!(outside.copied().all(|x| x == num(7.0)), "{operation}: {m} x {k} x {n}");
            }
        }
    }
}

#[test]
fn rows_of_a_larger_matrix_stay() {
    everywhere!(rows_of_a_larger_matrix);
}

/// Halves for threads would not be large any more.
fn in_one_piece(test: impl FnOnce() + Send) {
    #[cfg(feature = "rayon")]
    rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread").install(test);
    #[cfg(not(feature = "rayon"))]
    test();
}

/// More columns, or deeper ones, than are summed together.
fn single_row<T: Float>() {
    for (k, n) in [(3, 5000), (1200, 40)] {
        let (a, b) = (data::<T>(1, Kind::Within(1.0), k), data::<T>(2, Kind::Within(1.0), k * n));
        for b in [mat(&b, k, n), mat(&b, n, k).t()] {
            let mut row = vec![T::nan(); n];
            drop(matmul(mat(&a, 1, k), b, mat_mut(&mut row, 1, n)));
            for (j, row) in row.chunks(1).enumerate() {
                let mut dot = [T::nan()];
                let column = b.submatrix(0..k, j..j + 1).expect("inside");
                drop(matmul(mat(&a, 1, k), column, mat_mut(&mut dot, 1, 1)));
                assert_same(format_args!("column {j} of 1 x {k} x {n}"), &dot, row);
            }
        }
    }
}

#[test]
fn a_single_row_is_its_columns() {
    everywhere!(single_row);
}

fn batches<T: Float>() {
    let options = Matmul { alpha: num(1.5), beta: num(0.5) };
    for (len, (m, k, n)) in [(3, (5, 3, 16)), (4, (7, 33, 17)), (1, (13, 700, 70)), (2, (1, 600, 37)), (0, (2, 2, 2))] {
        let (a, b, old) = (
            data::<T>(1, Kind::Within(1.0), len * m * k),
            data::<T>(2, Kind::AnyFinite, len * k * n),
            data::<T>(3, Kind::Special, len * m * n),
        );
        let mut want = old.clone();
        for i in 0..len {
            let (a, b) = (mat(&a[i * m * k..(i + 1) * m * k], m, k), mat(&b[i * k * n..(i + 1) * k * n], k, n));
            drop(matmul_with(options, a, b, mat_mut(&mut want[i * m * n..(i + 1) * m * n], m, n)));
        }
        let (stack_a, stack_b) =
            (BatchRef::new(&a, len, m, k).expect("dense"), BatchRef::new(&b, len, k, n).expect("dense"));
        let mut got = old.clone();
        drop(matmul_batched_with(options, stack_a, stack_b, BatchMut::new(&mut got, len, m, n).expect("dense")));
        assert_same(format_args!("{len} x {m} x {k} x {n}"), &got, &want);

        // The transposes of both: C^T = B^T A^T.
        let mut got = vec![T::nan(); len * m * n];
        let c = BatchMut::with_strides(&mut got, len, n, m, m * n, 1, n).expect("transposed in place");
        drop(matmul_batched(stack_b.t(), stack_a.t(), c));
        let mut want = vec![T::nan(); len * m * n];
        drop(matmul_batched(stack_a, stack_b, BatchMut::new(&mut want, len, m, n).expect("dense")));
        assert_same(format_args!("transposed, {len} x {m} x {k} x {n}"), &got, &want);

        // One matrix for all.
        if len > 0 {
            let one = BatchRef::repeat(stack_b.get(0).expect("the first"), len);
            drop(matmul_batched(stack_a, one, BatchMut::new(&mut got, len, m, n).expect("dense")));
            drop(matmul(mat(&a, len * m, k), mat(&b[..k * n], k, n), mat_mut(&mut want, len * m, n)));
            assert_same(format_args!("repeated, {len} x {m} x {k} x {n}"), &got, &want);
        }
    }
}

#[test]
fn a_batch_is_its_products() {
    everywhere!(batches);
}

#[test]
fn a_batch_names_matrix_row_and_column() {
    let mut a = vec![1.0_f32; 64 * 128 * 16];
    a[40 * 2048 + 3 * 16 + 5] = f32::NAN;
    a[50 * 2048] = f32::INFINITY;
    let b = vec![1.0_f32; 16 * 128];
    let mut c = vec![0.0_f32; 64 * 128 * 128];
    let stack = BatchRef::new(&a, 64, 128, 16).expect("dense");
    let b = BatchRef::repeat(mat(&b, 16, 128), 64);
    let found = report(matmul_batched(stack, b, BatchMut::new(&mut c, 64, 128, 128).expect("dense")));
    assert_eq!((found.operand, found.index, found.class), ("a", Index::Batch(40, 3, 5), Class::Nan));
    assert_eq!((found.counts.nan, found.counts.pos_inf, found.counts.len), (1, 1, a.len()));
    assert_eq!(found.to_string(), "matmul_batched: a[40, 3, 5] is NaN, passed in; 2 of 131072 elements are not finite");
}

#[test]
fn a_batch_refuses_what_does_not_fit() {
    let (a, mut c) = ([1.0_f32; 12], [7.0_f32; 12]);
    let stack = |len, rows, cols| BatchRef::new(&a, len, rows, cols).expect("dense");
    let refused = |result: nanproof::Result<()>| assert!(matches!(result, Err(Error::Shape { .. })), "{result:?}");
    refused(matmul_batched(stack(3, 2, 2), stack(2, 2, 3), BatchMut::new(&mut c, 3, 2, 2).expect("dense")));
    refused(matmul_batched(stack(3, 2, 2), stack(3, 1, 4), BatchMut::new(&mut c, 3, 2, 2).expect("dense")));
    refused(matmul_batched(stack(3, 2, 2), stack(3, 2, 2), BatchMut::new(&mut c, 2, 2, 3).expect("dense")));
    assert!(BatchMut::with_strides(&mut c, 2, 2, 2, 3, 2, 1).is_err(), "the second begins inside the first");
    assert!(BatchRef::with_strides(&a, usize::MAX, 2, 2, usize::MAX, 2, 1).is_err());
    assert_eq!(c, [7.0; 12]);
}

/// The bits on any number of threads, for every way in which a product is split.
#[cfg(feature = "rayon")]
#[test]
fn any_number_of_threads() {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    for (m, k, n) in [(1, 1100, 3000), (8, 600, 700), (700, 300, 9), (300, 70, 300), (150, 150, 150)] {
        let (a, b, bias) = (
            data::<f32>(1, Kind::Within(1.0), m * k),
            data::<f32>(2, Kind::Within(1.0), k * n),
            data::<f32>(3, Kind::Within(1.0), n),
        );
        let weights = MatRef::column_major(&b, n, k).expect("dense");
        let run = || {
            let (mut c, mut y) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
            matmul(mat(&a, m, k), mat(&b, k, n), mat_mut(&mut c, m, n)).expect("finite");
            linear(Activation::Relu, mat(&a, m, k), weights, Some(&bias), mat_mut(&mut y, m, n)).expect("finite");
            (c, y)
        };
        let want = pool(1).install(run);
        for threads in [2, 3, 7] {
            let got = pool(threads).install(run);
            assert_same(format_args!("{m} x {k} x {n} on {threads} threads"), &got.0, &want.0);
            assert_same(format_args!("linear, {m} x {k} x {n} on {threads} threads"), &got.1, &want.1);
        }
    }
    // A stack of five.
    let (a, b) = (data::<f32>(4, Kind::Within(1.0), 5 * 80 * 50), data::<f32>(5, Kind::Within(1.0), 5 * 50 * 60));
    let run = || {
        let mut c = vec![f32::NAN; 5 * 80 * 60];
        let stack = BatchMut::new(&mut c, 5, 80, 60).expect("dense");
        let (a, b) = (BatchRef::new(&a, 5, 80, 50).expect("dense"), BatchRef::new(&b, 5, 50, 60).expect("dense"));
        matmul_batched(a, b, stack).expect("finite");
        c
    };
    let want = pool(1).install(run);
    for threads in [2, 3, 7] {
        assert_same(format_args!("a stack on {threads} threads"), &pool(threads).install(run), &want);
    }
}

#[cfg(feature = "half")]
mod mixed {
    use crate::common::{Kind, assert_same, data, mat, mat_mut, on_every_isa, report};
    use half::{bf16, f16};
    use nanproof::{Class, Index, MatRef, Origin, Storage, matmul, matmul_mixed};

    fn widened_first<A: Storage<Compute = f32>>() {
        for (m, k, n) in [(1, 1, 1), (3, 700, 20), (300, 40, 5), (65, 1100, 200), (7, 33, 401)] {
            for kind in [Kind::Within(1.0), Kind::Special] {
                let store = |seed, len| data::<f32>(seed, kind, len).into_iter().map(A::round).collect::<Vec<_>>();
                let widen = |x: &[A]| x.iter().map(|&x| x.widen()).collect::<Vec<_>>();
                let (a, b) = (store(1, m * k), store(2, n * k));
                let (wide_a, wide_b) = (widen(&a), widen(&b));
                let (mut want, mut got, mut stored) =
                    (vec![f32::NAN; m * n], vec![f32::NAN; m * n], vec![A::round(f32::NAN); m * n]);
                let b = MatRef::column_major(&b, k, n).expect("dense");
                let wide_b = MatRef::column_major(&wide_b, k, n).expect("dense");
                drop(matmul(mat(&wide_a, m, k), wide_b, mat_mut(&mut want, m, n)));
                drop(matmul_mixed(mat(&a, m, k), b, mat_mut(&mut got, m, n)));
                assert_same(format_args!("{m} x {k} x {n}, {kind:?}"), &got, &want);
                drop(matmul_mixed(mat(&a, m, k), b, mat_mut(&mut stored, m, n)));
                let want = want.into_iter().map(|x| A::round(x).widen()).collect::<Vec<_>>();
                assert_same(format_args!("rounded, {m} x {k} x {n}, {kind:?}"), &widen(&stored), &want);
            }
        }
    }

    #[test]
    fn have_the_bits_of_widening_first() {
        on_every_isa(|_| {
            widened_first::<bf16>();
            widened_first::<f16>();
            widened_first::<f32>();
        });
    }

    #[test]
    fn a_sum_too_large_for_the_storage_is_reported() {
        let a = [300.0, 1.0, 300.0, 1.0].map(f16::from_f32);
        let mut c = [f16::ZERO; 4];
        let found = report(matmul_mixed(mat(&a, 2, 2), mat(&a, 2, 2).t(), mat_mut(&mut c, 2, 2)));
        assert_eq!((found.operand, found.index), ("c", Index::Cell(0, 0)));
        assert_eq!((found.class, found.origin, found.counts.pos_inf), (Class::PosInf, Origin::Overflow, 4));
        let mut wide = [0.0_f32; 4];
        matmul_mixed(mat(&a, 2, 2), mat(&a, 2, 2).t(), mat_mut(&mut wide, 2, 2)).expect("f32 holds it");
        assert_eq!(wide, [90001.0; 4]);
        let bad = [f16::ONE, f16::NAN];
        let found = report(matmul_mixed(mat(&a, 2, 2), mat(&bad, 2, 1), mat_mut(&mut c[..2], 2, 1)));
        assert_eq!((found.operand, found.index, found.origin), ("b", Index::Cell(1, 0), Origin::PassedIn));
    }
}
