//! Rows in 16-bit storage: the bits of the operation on the widened matrix, rounded; reports of the whole.

#![cfg(feature = "half")]

mod common;

use common::{Kind, assert_same, data, mat, mat_mut, on_every_isa, report};
use half::{bf16, f16};
use nanproof::{
    Class, CrossEntropy, Index, LayerNorm, MatMut, MatRef, Origin, Result, RmsNorm, Softmax, Storage,
    cross_entropy_mixed, cross_entropy_with_gradient, layer_norm, layer_norm_mixed, log_softmax_mixed,
    log_softmax_with, rms_norm, rms_norm_mixed, softmax_mixed, softmax_with,
};

/// The last ones take several bands of rows.
const SHAPES: [(usize, usize); 6] = [(0, 3), (1, 1), (3, 77), (40, 5), (700, 100), (3, 20_000)];

fn store<A: Storage<Compute = f32>>(x: &[f32]) -> Vec<A> {
    x.iter().map(|&x| A::round(x)).collect()
}

fn widen<A: Storage<Compute = f32>>(x: &[A]) -> Vec<f32> {
    x.iter().map(|&x| x.widen()).collect()
}

/// Compares an operation on `A` with that on `f32`, rounded afterwards: what is written, and what is counted or reported.
fn compare<A: Storage<Compute = f32>, R: PartialEq + std::fmt::Debug>(
    context: &str,
    (rows, cols): (usize, usize),
    x: &[A],
    mixed: impl Fn(MatRef<'_, A>, MatMut<'_, A>) -> Result<R>,
    plain: impl Fn(MatRef<'_, f32>, MatMut<'_, f32>) -> Result<R>,
) {
    let (mut got, mut want) = (vec![A::round(f32::NAN); x.len()], vec![f32::NAN; x.len()]);
    let got_count = mixed(mat(x, rows, cols), mat_mut(&mut got, rows, cols));
    let want_count = plain(mat(&widen(x), rows, cols), mat_mut(&mut want, rows, cols));
    assert_same(format_args!("{context}, {rows} x {cols}"), &widen(&got), &widen(&store::<A>(&want)));
    match (got_count, want_count) {
        (Ok(got), Ok(want)) => assert_eq!(got, want, "{context}"),
        (Err(got), Err(want)) => {
            let (got, want) = (report::<()>(Err(got)), report::<()>(Err(want)));
            assert_eq!((got.operand, got.index, got.class), (want.operand, want.index, want.class), "{context}");
            assert_eq!((got.counts, got.origin), (want.counts, want.origin), "{context}");
            assert!(got.operation.ends_with("_mixed"), "{}", got.operation);
        }
        // What f32 holds may be too large for f16.
        (Err(got), Ok(_)) => assert_eq!(report::<()>(Err(got)).origin, Origin::Overflow, "{context}"),
        (Ok(got), Err(want)) => panic!("{context}: {got:?} in place of {want}"),
    }
}

fn widened_first<A: Storage<Compute = f32>>() {
    for (rows, cols) in SHAPES {
        for kind in [Kind::Within(2.0), Kind::Within(40.0), Kind::Special] {
            let x = store::<A>(&data(1, kind, rows * cols));
            let context = |name| format!("{name} of {kind:?}");
            let bias = data::<f32>(2, Kind::Within(1.0), rows * cols);
            let mask: Vec<bool> = bias.iter().map(|bias| *bias > -0.5).collect();
            let masked = Softmax {
                scale: 0.5,
                bias: Some(mat(&bias, rows, cols)),
                mask: Some(mat(&mask, rows, cols)),
                causal: Some(2),
                ..Softmax::default()
            };
            for options in [Softmax::default(), masked] {
                let shape = (rows, cols);
                let mixed = |x: MatRef<'_, A>, y: MatMut<'_, A>| softmax_mixed(options, x, y);
                compare(&context("softmax"), shape, &x, mixed, |x, y| softmax_with(options, x, y));
                let mixed = |x: MatRef<'_, A>, y: MatMut<'_, A>| log_softmax_mixed(options, x, y);
                compare(&context("log_softmax"), shape, &x, mixed, |x, y| log_softmax_with(options, x, y));
            }
            let (weight, options) = (data::<f32>(3, Kind::Within(2.0), cols), LayerNorm::default());
            let mixed =
                |x: MatRef<'_, A>, y: MatMut<'_, A>| layer_norm_mixed(options, x, Some(&weight), Some(&weight), y);
            let plain =
                |x: MatRef<'_, f32>, y: MatMut<'_, f32>| layer_norm(options, x, Some(&weight), Some(&weight), y);
            compare(&context("layer_norm"), (rows, cols), &x, mixed, plain);
            let options = RmsNorm::default();
            let mixed = |x: MatRef<'_, A>, y: MatMut<'_, A>| rms_norm_mixed(options, x, Some(&weight), y);
            compare(&context("rms_norm"), (rows, cols), &x, mixed, |x, y| rms_norm(options, x, Some(&weight), y));
            let classes: Vec<u32> = (0..rows).map(|row| (row % cols) as u32).collect();
            let options = CrossEntropy { ignore: Some(1), mask: masked.mask, ..CrossEntropy::default() };
            let smooth = CrossEntropy { smoothing: 0.1, z_loss: 0.01, ..CrossEntropy::default() };
            for options in [CrossEntropy::default(), options, smooth] {
                let mixed = |x: MatRef<'_, A>, y: MatMut<'_, A>| cross_entropy_mixed(options, x, &classes, y);
                compare(&context("cross_entropy"), (rows, cols), &x, mixed, |x, y| {
                    cross_entropy_with_gradient(options, x, &classes, y)
                });
            }
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
fn reports_name_the_row_of_the_whole_matrix() {
    let (rows, cols) = (500, 300); // several bands
    let mut x = store::<bf16>(&data(1, Kind::Within(2.0), rows * cols));
    for i in [444 * cols + 7, 450 * cols] {
        x[i] = bf16::NAN;
    }
    let mut y = vec![bf16::ZERO; x.len()];
    let found = report(softmax_mixed(Softmax::default(), mat(&x, rows, cols), mat_mut(&mut y, rows, cols)));
    assert_eq!((found.operation, found.operand, found.index), ("softmax_mixed", "x", Index::Cell(444, 7)));
    assert_eq!((found.class, found.origin, found.counts.nan), (Class::Nan, Origin::PassedIn, 2));
}

#[test]
fn empty_rows_are_counted() {
    let (rows, cols) = (500, 300); // several bands
    let mut x = store::<bf16>(&data(1, Kind::Within(2.0), rows * cols));
    for row in [3, 444, 445] {
        x[row * cols..][..cols].fill(bf16::NEG_INFINITY);
    }
    let mut y = vec![bf16::ZERO; x.len()];
    let (x, options) = (mat(&x, rows, cols), Softmax::default());
    assert_eq!(softmax_mixed(options, x, mat_mut(&mut y, rows, cols)), Ok(3));
    assert_eq!(log_softmax_mixed(options, x, mat_mut(&mut y, rows, cols)), Ok(3));
}

#[test]
fn what_the_storage_cannot_hold_is_reported() {
    let (x, weight) = ([1.0, -1.0].map(f16::from_f32), [1.0, 1e5]);
    let mut y = [f16::ZERO; 2];
    let options = RmsNorm { eps: 0.0 };
    let found = report(rms_norm_mixed(options, mat(&x, 1, 2), Some(&weight), mat_mut(&mut y, 1, 2)));
    assert_eq!((found.operand, found.index, found.class), ("y", Index::Cell(0, 1), Class::NegInf));
    assert_eq!((found.origin, found.counts.len), (Origin::Overflow, 2));
    let mut wide = [0.0_f32; 2];
    rms_norm_mixed(options, mat(&x, 1, 2), Some(&weight), mat_mut(&mut wide, 1, 2)).expect("f32 holds it");
    assert_eq!(wide, [1.0, -1e5]);
    // The log-probability of a masked entry is -Inf in any type.
    let options = Softmax { causal: Some(0), ..Softmax::default() };
    log_softmax_mixed(options, mat(&x, 1, 2), mat_mut(&mut y, 1, 2)).expect("nothing is wrong");
    assert_eq!(y, [f16::ZERO, f16::NEG_INFINITY]);
}

#[test]
fn bad_input_is_refused_in_the_name_of_the_function() {
    let (x, mut y) = ([bf16::ZERO; 4], [bf16::ZERO; 6]);
    let refusals = [
        softmax_mixed(Softmax::default(), mat(&x, 2, 2), mat_mut(&mut y, 2, 3)).unwrap_err(),
        softmax_mixed(Softmax { scale: f32::NAN, ..Softmax::default() }, mat(&x, 2, 2), mat_mut(&mut y[..4], 2, 2))
            .unwrap_err(),
        layer_norm_mixed(LayerNorm::default(), mat(&x, 2, 2), Some(&[1.0]), None, mat_mut(&mut y[..4], 2, 2))
            .unwrap_err(),
        cross_entropy_mixed(CrossEntropy::default(), mat(&x, 2, 2), &[0, 7], mat_mut(&mut y[..4], 2, 2)).unwrap_err(),
    ];
    for error in refusals {
        assert!(error.to_string().split(':').next().unwrap().ends_with("_mixed"), "{error}");
    }
    assert_eq!(y, [bf16::ZERO; 6], "written all the same");
}
