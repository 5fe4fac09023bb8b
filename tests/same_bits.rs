//! The same bits on every instruction set, for every alignment, every number of threads, every layout in memory, and
//! whatever else is computed in the same call.

mod common;

use common::{Case, KINDS, Kind, Rng, assert_same, data, every_op, mat, mat_mut, num, on_every_isa};
use nanproof::{CrossEntropy, LayerNorm, LayerNormGradients, softmax, softmax_backward};
use nanproof::{Float, MatMut, MatRef, Matmul, cross_entropy_backward, log_softmax, logsumexp, matmul, matmul_with};
use nanproof::{layer_norm, layer_norm_backward, lp_norm_rows_backward};

/// Rows and columns: tails, blocks, leaves of sums, k-blocks and tiles.
const SHAPES: [(usize, usize); 10] =
    [(1, 1), (1, 7), (3, 5), (2, 16), (1, 33), (5, 64), (2, 129), (13, 100), (3, 600), (1, 4100)];

/// Calls `f` with operands of every kind and shape.
fn each_case<T: Float>(shapes: &[(usize, usize)], mut f: impl FnMut(Case<'_, T>, &str)) {
    for (number, kind) in KINDS.into_iter().enumerate() {
        for (i, &(rows, cols)) in shapes.iter().enumerate() {
            let seed = (100 * number + 10 * i) as u64;
            let [x, y, z] = [0, 1, 2].map(|k| data::<T>(seed + k, kind, rows * cols));
            let case = Case { rows, cols, x: &x, y: &y, z: &z, g: num(1.25) };
            f(case, &format!("{kind:?} {rows} x {cols}"));
        }
    }
}

fn isas<T: Float>() {
    for (name, run) in every_op::<T>() {
        each_case::<T>(&SHAPES, |case, context| {
            let mut want = None;
            on_every_isa(|isa| {
                let got = run(case);
                got.assert_same(want.get_or_insert(got.clone()), format_args!("{name} on {isa}, {context}"));
            });
        });
    }
}

#[test]
fn on_every_instruction_set() {
    isas::<f32>();
    isas::<f64>();
}

fn alignments<T: Float>() {
    for (name, run) in every_op::<T>() {
        each_case::<T>(&[(1, 45), (4, 17), (3, 130)], |case, context| {
            let want = run(case);
            for offset in 0..16 {
                let shifted = [case.x, case.y, case.z].map(|x| [&vec![T::nan(); offset][..], x].concat());
                let [x, y, z] = shifted.each_ref().map(|x| &x[offset..]);
                run(Case { x, y, z, ..case }).assert_same(&want, format_args!("{name} at offset {offset}, {context}"));
            }
        });
    }
}

#[test]
fn at_every_alignment() {
    alignments::<f32>();
    alignments::<f64>();
}

/// Numbers whose sum is nearly nothing, so that the order in which they are added shows.
#[cfg(feature = "rayon")]
fn cancelling<T: Float>(seed: u64, len: usize) -> Vec<T> {
    let mut rng = Rng(seed);
    let mut x = (0..len / 2).map(|_| rng.unit::<T>() * num(2.0_f64.powi(rng.below(60) as i32))).collect::<Vec<_>>();
    let mut negative = x.iter().map(|&x| -x).collect::<Vec<_>>();
    negative.rotate_left(len / 5);
    x.extend(negative);
    x.resize(len, T::zero());
    x
}

#[cfg(feature = "rayon")]
fn threads<T: Float>() {
    // Above the grain of 2^15 for every operation; matmul has 130 x 130 x 1000 / 32.
    const LARGE: [(usize, usize); 3] = [(1, 140_000), (130, 1000), (9000, 13)];
    let pools = [1, 2, 3].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("threads to be had"));
    for (rows, cols) in LARGE {
        for kind in [Some(Kind::Within(30.0)), Some(Kind::AnyFinite), None] {
            let draw = |seed| match kind {
                Some(kind) => data::<T>(seed, kind, rows * cols),
                None => cancelling(seed, rows * cols),
            };
            let [x, y, z] = [1, 2, 3].map(draw);
            let case = Case { rows, cols, x: &x, y: &y, z: &z, g: num(1.25) };
            for (name, run) in every_op::<T>() {
                if rows > 1000 && name.starts_with("matmul") {
                    continue; // its result would have 81 million elements
                }
                let isa = nanproof::Isa::active().expect("no other is asked for");
                let outcomes =
                    pools.each_ref().map(|pool| pool.install(|| isa.run(|| Ok(run(case)))).expect("it is available"));
                for got in &outcomes[1..] {
                    got.assert_same(&outcomes[0], format_args!("{name}, threads, {kind:?} {rows} x {cols}"));
                }
            }
        }
    }
}

#[cfg(feature = "rayon")]
#[test]
fn on_any_number_of_threads() {
    threads::<f32>();
    threads::<f64>();
}

/// The same matrix in layouts other than rows one after the other.
fn layouts<T: Float>(x: &[T], rows: usize, cols: usize) -> Vec<(&'static str, Vec<T>, [usize; 3])> {
    let place = |name, strides: [usize; 3], len: usize| {
        let [start, row_stride, col_stride] = strides;
        let mut storage = vec![T::nan(); len];
        for i in 0..rows {
            for j in 0..cols {
                storage[start + i * row_stride + j * col_stride] = x[i * cols + j];
            }
        }
        (name, storage, strides)
    };
    vec![
        place("column major", [0, 1, rows], rows * cols),
        place("padded rows", [3, cols + 5, 1], 3 + rows * (cols + 5)),
        place("every third element", [1, 3 * cols, 3], 1 + rows * 3 * cols),
        place("padded columns", [2, 2, 2 * rows + 3], 2 + cols * (2 * rows + 3)),
    ]
}

fn strided<T: Float>(storage: &[T], rows: usize, cols: usize, [start, row, col]: [usize; 3]) -> MatRef<'_, T> {
    MatRef::with_strides(&storage[start..], rows, cols, row, col).expect("within the storage")
}

fn strided_mut<T: Float>(storage: &mut [T], rows: usize, cols: usize, [start, row, col]: [usize; 3]) -> MatMut<'_, T> {
    MatMut::with_strides(&mut storage[start..], rows, cols, row, col).expect("within the storage")
}

/// An operation on one or two matrices, with a result of the shape of the first.
type RowOp<T> = (&'static str, fn(MatRef<'_, T>, MatRef<'_, T>, MatMut<'_, T>));

fn row_ops<T: Float>() -> Vec<RowOp<T>> {
    vec![
        ("layer_norm", |x, _, y| drop(layer_norm(LayerNorm::default(), x, None, None, y))),
        ("layer_norm_backward", |x, dy, dx| {
            let gradients = LayerNormGradients { dx, dw: None, db: None };
            drop(layer_norm_backward(LayerNorm::default(), x, None, dy, gradients));
        }),
        ("lp_norm_rows_backward", |x, _, dx| {
            drop(lp_norm_rows_backward(num(1.5), x, &vec![T::one(); x.rows()], dx));
        }),
        ("softmax", |x, _, y| drop(softmax(x, y))),
        ("log_softmax", |x, _, y| drop(log_softmax(x, y))),
        ("softmax_backward", |p, dp, dx| drop(softmax_backward(p, dp, dx))),
        ("log_softmax_backward", |y, dy, dx| drop(nanproof::log_softmax_backward(y, dy, dx))),
        ("logsumexp", |x, _, mut y| {
            let mut values = vec![T::nan(); x.rows()];
            drop(logsumexp(x, &mut values));
            (0..x.rows()).for_each(|i| (0..x.cols()).for_each(|j| *y.get_mut(i, j).expect("inside") = values[i]));
        }),
        ("logsumexp_backward", |x, dy, dx| {
            let dy = (0..x.rows()).map(|i| dy.get(i, 0).expect("inside")).collect::<Vec<_>>();
            drop(nanproof::logsumexp_backward(x, &dy, dx));
        }),
        ("cross_entropy_backward", |x, _, dx| {
            let options = CrossEntropy { reduction: nanproof::Reduction::Sum, ..CrossEntropy::default() };
            drop(cross_entropy_backward(options, x, &vec![0; x.rows()], num(1.5), dx));
        }),
    ]
}

fn views<T: Float>() {
    for (name, op) in row_ops::<T>() {
        each_case::<T>(&[(1, 7), (5, 64), (13, 100), (2, 129)], |case, context| {
            let (rows, cols) = (case.rows, case.cols);
            let mut want = vec![T::nan(); rows * cols];
            op(mat(case.x, rows, cols), mat(case.y, rows, cols), mat_mut(&mut want, rows, cols));
            for (layout, x, strides) in layouts(case.x, rows, cols) {
                for (out_layout, mut out, out_strides) in layouts(&vec![T::zero(); rows * cols], rows, cols) {
                    let before = out.clone();
                    op(
                        strided(&x, rows, cols, strides),
                        mat(case.y, rows, cols),
                        strided_mut(&mut out, rows, cols, out_strides),
                    );
                    let view = strided(&out, rows, cols, out_strides);
                    let got = (0..rows).flat_map(|i| (0..cols).map(move |j| view.get(i, j).expect("inside")));
                    let context = format!("{name}, {layout} to {out_layout}, {context}");
                    assert_same(&context, &got.collect::<Vec<_>>(), &want);
                    // What lies between the elements is as it was.
                    let mut cleared = out.clone();
                    let mut holes = strided_mut(&mut cleared, rows, cols, out_strides);
                    (0..rows).for_each(|i| (0..cols).for_each(|j| *holes.get_mut(i, j).expect("inside") = T::zero()));
                    assert_same(&context, &cleared, &before);
                }
            }
        });
    }
}

#[test]
fn in_every_layout() {
    everywhere!(views);
}

fn rows_alone<T: Float>() {
    for (name, op) in row_ops::<T>() {
        each_case::<T>(&[(13, 100), (70, 3)], |case, context| {
            let (rows, cols) = (case.rows, case.cols);
            let mut batch = vec![T::nan(); rows * cols];
            op(mat(case.x, rows, cols), mat(case.y, rows, cols), mat_mut(&mut batch, rows, cols));
            for i in 0..rows {
                let range = i * cols..(i + 1) * cols;
                let mut alone = vec![T::nan(); cols];
                op(
                    mat(&case.x[range.clone()], 1, cols),
                    mat(&case.y[range.clone()], 1, cols),
                    mat_mut(&mut alone, 1, cols),
                );
                assert_same(format_args!("{name}, row {i}, {context}"), &alone, &batch[range]);
            }
        });
    }
}

#[test]
fn a_row_alone_or_in_a_batch() {
    everywhere!(rows_alone);
}

/// An element of a map has the bits that it has alone.
fn elements_alone<T: Float>() {
    const MAPS: [&str; 26] = [
        "relu",
        "relu_backward",
        "tanh",
        "tanh_backward",
        "clip_by_value_backward",
        "safe_div",
        "safe_div_backward",
        "safe_mul",
        "safe_mul_backward",
        "safe_recip",
        "safe_recip_backward",
        "safe_sqrt",
        "safe_sqrt_backward",
        "safe_rsqrt_backward",
        "safe_ln",
        "xlogy",
        "xlogy_backward",
        "xlog1py",
        "xlog1py_backward",
        "safe_pow",
        "safe_pow_backward",
        "atan2",
        "atan2_backward",
        "sgd",
        "adamw",
        "adam",
    ];
    for (name, run) in every_op::<T>().into_iter().filter(|(name, _)| MAPS.contains(name)) {
        for kind in KINDS {
            if matches!(kind, Kind::Special | Kind::AnyFinite | Kind::Huge) && ["sgd", "adam", "adamw"].contains(&name)
            {
                continue; // a step that would overflow anywhere changes nothing
            }
            let [x, y, z] = [4, 5, 6].map(|seed| data::<T>(seed, kind, 53));
            let all = run(Case { rows: 1, cols: 53, x: &x, y: &y, z: &z, g: num(1.25) }).values;
            for i in 0..53 {
                let [x, y, z] = [&x, &y, &z].map(|x| &x[i..=i]);
                let alone = run(Case { rows: 1, cols: 1, x, y, z, g: num(1.25) }).values;
                let context = format!("{name}, element {i}, {kind:?}");
                // The last value may be the count of what was guarded.
                let outputs = (0..all.len() / 53).zip(&alone);
                outputs.for_each(|(output, &value)| assert_same(&context, &[all[output * 53 + i]], &[value]));
            }
        }
    }
}

#[test]
fn an_element_alone_or_in_a_slice() {
    everywhere!(elements_alone);
}

fn product<T: Float>(options: Matmul<T>, a: MatRef<'_, T>, b: MatRef<'_, T>, c: &[T]) -> Vec<T> {
    let mut c = c.to_vec();
    drop(matmul_with(options, a, b, mat_mut(&mut c, a.rows(), b.cols())));
    c
}

/// Any part of a product, computed by itself, and from any layout.
fn parts_of_products<T: Float>() {
    let options = Matmul { alpha: num(1.5), beta: num(0.5) };
    for (m, k, n) in [(1, 1, 1), (7, 40, 33), (30, 515, 50), (14, 1100, 70), (65, 3, 200), (5, 300, 401)] {
        for kind in [Kind::Within(1.0), Kind::AnyFinite, Kind::Special] {
            let (a, b, c) =
                (data::<T>(7, kind, m * k), data::<T>(8, kind, k * n), data::<T>(9, Kind::Within(1.0), m * n));
            let (left, right) = (mat(&a, m, k), mat(&b, k, n));
            let whole = product(options, left, right, &c);
            let context = format!("{m} x {k} x {n}, {kind:?}");
            let mut rng = Rng((m * k * n) as u64);
            for _ in 0..8 {
                let (top, start) = (rng.below(m), rng.below(n));
                let (bottom, end) = (top + 1 + rng.below(m - top), start + 1 + rng.below(n - start));
                let part =
                    |x: &[T]| (top..bottom).flat_map(|i| x[i * n + start..i * n + end].to_vec()).collect::<Vec<_>>();
                let rows = left.submatrix(top..bottom, 0..k).expect("inside");
                let cols = right.submatrix(0..k, start..end).expect("inside");
                let got = product(options, rows, cols, &part(&c));
                assert_same(
                    format_args!("rows {top}..{bottom}, columns {start}..{end} of {context}"),
                    &got,
                    &part(&whole),
                );
            }
            for (layout, a, a_strides) in layouts(&a, m, k) {
                for (b_layout, b, b_strides) in layouts(&b, k, n) {
                    let got = product(options, strided(&a, m, k, a_strides), strided(&b, k, n, b_strides), &c);
                    assert_same(format_args!("A {layout}, B {b_layout}, {context}"), &got, &whole);
                }
            }
            for (layout, mut c, strides) in layouts(&c, m, n) {
                drop(matmul_with(options, left, right, strided_mut(&mut c, m, n, strides)));
                let view = strided(&c, m, n, strides);
                let got = (0..m).flat_map(|i| (0..n).map(move |j| view.get(i, j).expect("inside"))).collect::<Vec<_>>();
                assert_same(format_args!("C {layout}, {context}"), &got, &whole);
            }
        }
    }
}

#[test]
fn any_part_of_a_product() {
    everywhere!(parts_of_products);
}

/// The order of a product as it is documented: ascending chains of fused multiply-adds in k-blocks.
fn documented_order<T: Float>() {
    for (m, k, n) in [(3, 5, 4), (2, 1030, 18), (9, 257, 33)] {
        let (a, b) = (data::<T>(1, Kind::Within(1.0), m * k), data::<T>(2, Kind::Within(1.0), k * n));
        let mut got = vec![T::nan(); m * n];
        matmul(mat(&a, m, k), mat(&b, k, n), mat_mut(&mut got, m, n)).expect("finite");
        let block = if T::LANES == 16 { 512 } else { 256 };
        let element = |i: usize, j: usize| {
            let chain =
                |depth: std::ops::Range<usize>| depth.fold(T::zero(), |sum, p| a[i * k + p].mul_add(b[p * n + j], sum));
            let blocks = (0..k).step_by(block).map(|start| chain(start..k.min(start + block)));
            blocks.reduce(|sum, block| sum + block).expect("one block at least")
        };
        let want = (0..m).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| element(i, j)).collect::<Vec<_>>();
        assert_same(format_args!("{m} x {k} x {n}"), &got, &want);
    }
}

#[test]
fn the_documented_order_of_a_product() {
    everywhere!(documented_order);
}
