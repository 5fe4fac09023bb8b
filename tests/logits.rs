//! Rows of logits with options: masks, scales, biases, places; every form of the cross-entropy; entropies, divergences
//! and extrema. Against the reference, or against a simpler call bit for bit.

mod common;

use common::{Kind, Rng, Worst, assert_same, data, draw, mat, mat_mut, num, nums, on_every_isa, report, same, wide};
use nanproof::reference::{self, Wide, ulp_error};
use nanproof::{
    Class, CrossEntropy, EmptyRow, Error, Float, Index, LogSumExp, MatRef, Origin, Reduction, Softmax, Targets,
    argmax_rows, argmin_rows, binary_cross_entropy, binary_cross_entropy_backward, cross_entropy,
    cross_entropy_backward, cross_entropy_in_place, cross_entropy_with_gradient, kl_divergence, kl_divergence_backward,
    log_softmax, log_softmax_backward_with, log_softmax_with, logsumexp, logsumexp_backward, logsumexp_backward_with,
    logsumexp_weighted, logsumexp_weighted_backward, logsumexp_with, max_rows, max_rows_backward, min_rows,
    min_rows_backward, softmax, softmax_backward, softmax_backward_with, softmax_entropy, softmax_entropy_backward,
    softmax_in_place, softmax_with,
};

const SHAPES: [(usize, usize); 8] = [(1, 1), (2, 3), (3, 16), (4, 17), (2, 63), (2, 64), (3, 65), (2, 300)];

/// The mask of a case: about a third is masked, row 1 wholly.
fn some_mask(rows: usize, cols: usize) -> Vec<bool> {
    let mut rng = Rng(5);
    (0..rows * cols).map(|i| rng.below(3) > 0 && i / cols != 1).collect()
}

fn masks<T: Float>() {
    let lowest = T::neg_infinity();
    for (rows, cols) in SHAPES {
        let (x, keep) = (data::<T>(1, Kind::Within(20.0), rows * cols), some_mask(rows, cols));
        let causal = cols as isize / 2;
        let kept = |at: usize| keep[at] && (at % cols) as isize <= (at / cols) as isize + causal;
        let masked = (0..x.len()).map(|at| if kept(at) { x[at] } else { lowest }).collect::<Vec<_>>();
        let hidden = (0..x.len()).map(|at| if kept(at) { x[at] } else { T::nan() }).collect::<Vec<_>>();
        let options =
            Softmax { mask: Some(MatRef::new(&keep, rows, cols).unwrap()), causal: Some(causal), ..Softmax::default() };
        let context = format!("{rows} x {cols}");

        let (mut want, mut got) = (vec![T::nan(); x.len()], vec![T::nan(); x.len()]);
        let empty = softmax(mat(&masked, rows, cols), mat_mut(&mut want, rows, cols));
        assert_eq!(softmax_with(options, mat(&hidden, rows, cols), mat_mut(&mut got, rows, cols)), empty, "{context}");
        assert_same(&context, &got, &want);
        assert!((0..x.len()).all(|at| kept(at) || got[at].is_zero()), "{context}");

        let mut in_place = hidden.clone();
        assert_eq!(softmax_in_place(options, mat_mut(&mut in_place, rows, cols)), empty, "{context}");
        assert_same(format!("{context}, in place"), &in_place, &want);

        let empty = log_softmax(mat(&masked, rows, cols), mat_mut(&mut want, rows, cols));
        let found = log_softmax_with(options, mat(&hidden, rows, cols), mat_mut(&mut got, rows, cols));
        assert_eq!(found, empty, "{context}");
        assert_same(format!("{context}, logarithms"), &got, &want);
    }
}

#[test]
fn what_is_masked_is_not_read() {
    everywhere!(masks);
}

/// Rows of every kind, more than are gone through together, beside each other give what each gives alone.
fn rows_beside_each_other<T: Float>() {
    for cols in [1, 5, 16, 33, 64, 300] {
        let rows = 40;
        let mut x = data::<T>(1, Kind::Within(20.0), rows * cols);
        for (i, row) in x.chunks_mut(cols).enumerate() {
            match i % 8 {
                1 => row.fill(T::neg_infinity()),
                2 => row.iter_mut().for_each(|x| *x = *x + num(5000.0)), // far from 0
                3 => row.iter_mut().for_each(|x| *x = *x * num(1e30)),
                4 => row.iter_mut().skip(1).for_each(|x| *x = *x - num(740.0)), // faint beside the first
                5 => row.iter_mut().step_by(2).for_each(|x| *x = T::neg_infinity()),
                6 => row.fill(num(0.1)),
                _ => {}
            }
        }
        let classes = (0..rows).map(|i| if i % 3 == 2 { u32::MAX } else { 0 }).collect::<Vec<_>>();
        let options = CrossEntropy { ignore: Some(u32::MAX), reduction: Reduction::Sum, ..CrossEntropy::default() };
        let results = |x: &[T], classes: &[u32]| {
            let rows = classes.len();
            let (x, targets) = (mat(x, rows, cols), Targets::Classes(classes));
            let [mut p, mut log_p, mut dx] = [(); 3].map(|()| vec![T::nan(); rows * cols]);
            let mut lse = vec![T::nan(); rows];
            softmax(x, mat_mut(&mut p, rows, cols)).unwrap();
            log_softmax(x, mat_mut(&mut log_p, rows, cols)).unwrap();
            logsumexp(x, &mut lse).unwrap();
            // The loss of a row without a possible class is infinite, which is a fault; the gradient is written.
            let _ = cross_entropy_with_gradient(options, x, targets, mat_mut(&mut dx, rows, cols));
            [p, log_p, lse, dx]
        };
        let together = results(&x, &classes);
        for (i, row) in x.chunks(cols).enumerate() {
            for (alone, together) in results(row, &classes[i..=i]).iter().zip(&together) {
                let len = alone.len();
                assert_same(format!("row {i} of {cols}"), &together[i * len..][..len], alone);
            }
        }
    }
}

#[test]
fn rows_of_every_kind_beside_each_other() {
    everywhere!(rows_beside_each_other);
}

fn scales_and_biases<T: Float>() {
    for (rows, cols) in SHAPES {
        let (x, bias) = (data::<T>(1, Kind::Within(20.0), rows * cols), data::<T>(2, Kind::Within(5.0), rows * cols));
        let scale = num::<T>(0.7);
        let read = x.iter().zip(&bias).map(|(&x, &bias)| x * scale + bias).collect::<Vec<_>>();
        let options = Softmax { scale, bias: Some(mat(&bias, rows, cols)), ..Softmax::default() };

        let (mut want, mut got) = (vec![T::nan(); x.len()], vec![T::nan(); x.len()]);
        softmax(mat(&read, rows, cols), mat_mut(&mut want, rows, cols)).unwrap();
        softmax_with(options, mat(&x, rows, cols), mat_mut(&mut got, rows, cols)).unwrap();
        assert_same("scaled and biased", &got, &want);

        // By columns, through views of the transposes.
        let transpose = |x: &[T]| (0..x.len()).map(|i| x[i % rows * cols + i / rows]).collect::<Vec<T>>();
        let mut columns = vec![T::nan(); x.len()];
        let (x_t, bias_t) = (transpose(&x), transpose(&bias));
        let options_t = Softmax { bias: Some(mat(&bias_t, cols, rows).t()), ..options };
        softmax_with(options_t, mat(&x_t, cols, rows).t(), mat_mut(&mut columns, cols, rows).t()).unwrap();
        assert_same("by columns", &transpose_back(&columns, rows, cols), &want);

        let (p, dp) = (want, data::<T>(3, Kind::Within(1.0), x.len()));
        let (mut plain, mut scaled) = (vec![T::nan(); x.len()], vec![T::nan(); x.len()]);
        let quarter = Softmax { scale: num(0.25), ..Softmax::default() };
        softmax_backward(mat(&p, rows, cols), mat(&dp, rows, cols), mat_mut(&mut plain, rows, cols)).unwrap();
        let (p, dp) = (mat(&p, rows, cols), mat(&dp, rows, cols));
        softmax_backward_with(quarter, p, dp, mat_mut(&mut scaled, rows, cols)).unwrap();
        assert_same("gradient", &scaled, &plain.iter().map(|&dx| dx * num(0.25)).collect::<Vec<_>>());
    }
}

fn transpose_back<T: Float>(x: &[T], rows: usize, cols: usize) -> Vec<T> {
    (0..x.len()).map(|i| x[i % cols * rows + i / cols]).collect()
}

#[test]
fn logits_are_scaled_and_biased_first() {
    everywhere!(scales_and_biases);
}

/// Rows whose largest number leaves the range, up or down, have probabilities all the same; their log-sum-exp is a fault.
fn out_of_range<T: Float>() {
    let (max, lowest) = (T::max_value(), T::neg_infinity());
    let [zero, half, one] = [0.0, 0.5, 1.0].map(num::<T>);
    let cases = [
        (2.0, [-max, -max, lowest], [zero; 3], [half, half, zero]),
        (4.0, [-max, -max * half, lowest], [zero; 3], [zero, one, zero]),
        (1e10, [-max, lowest, lowest], [zero; 3], [one, zero, zero]),
        (3.0, [max, max, -max], [zero; 3], [half, half, zero]),
        (-2.0, [-max, max, -max], [zero; 3], [half, zero, half]),
        (1.0, [-max, -max, zero], [-max, -max, lowest], [half, half, zero]),
        (1.0, [max, zero, max], [max, max, max], [half, zero, half]),
        (1.0, [-max, -max, zero], [-max, -max, zero], [zero, zero, one]),
        (1.0, [lowest; 3], [-max; 3], [zero; 3]),
    ];
    for (scale, x, bias, want) in cases {
        let context = format!("{scale} * {x:?} + {bias:?}");
        let options = Softmax { scale: num(scale), bias: Some(mat(&bias, 1, 3)), ..Softmax::default() };
        let empty = usize::from(want == [zero; 3]);
        let mut y = [T::nan(); 3];
        assert_eq!(softmax_with(options, mat(&x, 1, 3), mat_mut(&mut y, 1, 3)), Ok(empty), "{context}");
        assert_same(&context, &y, &want);
        y = x;
        assert_eq!(softmax_in_place(options, mat_mut(&mut y, 1, 3)), Ok(empty), "{context}");
        assert_same(&context, &y, &want);
        let result = log_softmax_with(options, mat(&x, 1, 3), mat_mut(&mut y, 1, 3));
        let is_log = |(&y, &p): (&T, &T)| if p.is_zero() { y <= -max * half } else { y == p.ln() };
        assert!(y.iter().zip(&want).all(is_log), "{context}: {y:?}");
        // `-inf` is the logarithm of what is impossible, and else a fault.
        if (0..3).any(|j| y[j] == lowest && x[j].is_finite() && bias[j].is_finite()) {
            assert_eq!(report(result).origin, Origin::Overflow, "{context}");
        } else {
            assert_eq!(result, Ok(empty), "{context}");
        }
        let (mut sum, is_in_range) = ([T::nan()], want[2] == one || empty > 0);
        let result = logsumexp_with(options, mat(&x, 1, 3), &mut sum);
        assert_eq!(result.is_ok(), is_in_range, "{context}: {result:?}");
        if !is_in_range {
            assert_eq!(report(result).origin, Origin::Overflow, "{context}");
        }
    }
    // An infinity that a factor turns around was passed in.
    let options = Softmax { scale: -T::one(), ..Softmax::default() };
    let found = report(softmax_with(options, mat(&[zero, lowest], 1, 2), mat_mut(&mut [zero; 2], 1, 2)));
    assert_eq!((found.operand, found.index, found.origin), ("x", Index::Cell(0, 1), Origin::PassedIn));
}

#[test]
fn logits_out_of_range() {
    everywhere!(out_of_range);
}

/// What leaves the range on the way to a logit is brought back by its bias, or counts for nothing beside one of `-inf`.
fn brought_back<T: Float>() {
    let (max, lowest) = (T::max_value(), T::neg_infinity());
    let [zero, half, one, two, least] = [0.0, 0.5, 1.0, 2.0, 5e-324].map(num::<T>);
    let least = if least.is_zero() { T::min_positive_value() * T::epsilon() } else { least };
    let large = max * num(0.875);
    // The scale, the logits, their bias, and what they are read as.
    let cases = [
        (two, [-large, -large * half], [max, zero], [-large - (large - max), -large]),
        (two, [-large, -large * half], [large, zero], [-large, -large]),
        (two, [large, one], [lowest, zero], [lowest, two]),
        (two, [large, large * half], [lowest, zero], [lowest, large]),
        (two, [large, lowest], [-large, zero], [large, lowest]),
        (-two, [large, one], [large, zero], [-large, -two]),
        (num(1e30), [large, -large], [lowest; 2], [lowest; 2]),
        (least, [lowest; 2], [zero; 2], [lowest; 2]),
        (least, [lowest, one], [zero, lowest], [lowest; 2]),
        (least, [max, one], [one, one], [max * least + one, one]),
    ];
    for (scale, x, bias, read) in cases {
        let context = format!("{scale:e} * {x:?} + {bias:?}");
        let options = Softmax { scale, bias: Some(mat(&bias, 1, 2)), ..Softmax::default() };
        let (mut want, mut got) = ([T::nan(); 2], x);
        let empty = softmax(mat(&read, 1, 2), mat_mut(&mut want, 1, 2));
        assert_eq!(softmax_in_place(options, mat_mut(&mut got, 1, 2)), empty, "{context}");
        assert_same(&context, &got, &want);
        assert_eq!(softmax_with(options, mat(&x, 1, 2), mat_mut(&mut got, 1, 2)), empty, "{context}");
        assert_same(&context, &got, &want);
        let _ = log_softmax(mat(&read, 1, 2), mat_mut(&mut want, 1, 2));
        assert_eq!(log_softmax_with(options, mat(&x, 1, 2), mat_mut(&mut got, 1, 2)), empty, "{context}");
        assert_same(&context, &got, &want);
        let (mut want, mut got) = ([T::nan()], [T::nan()]);
        logsumexp(mat(&read, 1, 2), &mut want).unwrap();
        logsumexp_with(options, mat(&x, 1, 2), &mut got).unwrap();
        assert_same(&context, &got, &want);
        let mut dx = [T::nan(); 2];
        logsumexp_backward_with(options, mat(&x, 1, 2), &[one], mat_mut(&mut dx, 1, 2)).unwrap();
        assert!(empty == Ok(0) || dx == [zero; 2], "{context}: {dx:?}");
    }
    // Also beside a row with a fault.
    let options = Softmax { scale: two, ..Softmax::default() };
    let (x, mut y) = ([T::nan(), one, -large, -large * half], [zero; 4]);
    let found = report(log_softmax_with(options, mat(&x, 2, 2), mat_mut(&mut y, 2, 2)));
    assert_eq!((found.operand, found.index, found.counts.total()), ("x", Index::Cell(0, 0), 1));
    assert_eq!(y[2..], [-large, zero], "beside a fault");
    // What a factor below 0 makes of `+inf` is impossible.
    let turned = Softmax { scale: -one, ..Softmax::default() };
    let mut sums = [zero; 2];
    logsumexp_with(turned, mat(&[-lowest, -lowest, -lowest, one], 2, 2), &mut sums).unwrap();
    assert_same("turned", &sums, &[lowest, -one]);
    // Without a bias the rows are read in other loops.
    let options = Softmax { scale: least, ..Softmax::default() };
    let (x, mut y) = ([lowest; 2], [T::nan(); 2]);
    assert_eq!(softmax_with(options, mat(&x, 1, 2), mat_mut(&mut y, 1, 2)), Ok(1));
    assert_same("tiny", &y, &[zero; 2]);
    let options = Softmax { mask: Some(mat(&[true, false], 1, 2)), ..options };
    assert_eq!(log_softmax_with(options, mat(&x, 1, 2), mat_mut(&mut y, 1, 2)), Ok(1));
    assert_same("tiny", &y, &x);
}

#[test]
fn logits_that_a_bias_brings_back() {
    everywhere!(brought_back);
}

/// Rows that the mask or the bias leaves nothing of do not depend on their logits.
fn gradients_of_constants<T: Float>() {
    let (zero, lowest) = (T::zero(), T::neg_infinity());
    let (keep, bias) = ([true, true, false, false, true, true], [zero, zero, zero, zero, lowest, lowest]);
    let options = Softmax {
        mask: Some(mat(&keep, 3, 2)),
        bias: Some(mat(&bias, 3, 2)),
        empty: EmptyRow::Uniform,
        ..Softmax::default()
    };
    let (mut p, mut dx) = ([T::nan(); 6], [T::nan(); 6]);
    assert_eq!(softmax_with(options, mat(&[zero; 6], 3, 2), mat_mut(&mut p, 3, 2)), Ok(2));
    assert_same("uniform", &p, &[num(0.5); 6]);
    let dp = [T::one(), zero, T::nan(), T::one(), T::one(), zero];
    softmax_backward_with(options, mat(&p, 3, 2), mat(&dp, 3, 2), mat_mut(&mut dx, 3, 2)).unwrap();
    assert_same("constant", &dx, &[num(0.25), num(-0.25), zero, zero, zero, zero]);
    // And a NaN that counts is reported in the caller's rows.
    let dp = [T::one(), zero, T::one(), T::one(), T::one(), zero];
    let below = Softmax { mask: Some(mat(&[false, false, true, true], 2, 2)), bias: None, ..options };
    let dp = mat(&dp, 3, 2).submatrix(0..2, 0..2).unwrap();
    softmax_backward_with(below, mat(&p[..4], 2, 2), dp, mat_mut(&mut dx[..4], 2, 2)).unwrap();
    let nan = [T::one(), zero, T::one(), T::nan()];
    let found = report(softmax_backward_with(below, mat(&p[..4], 2, 2), mat(&nan, 2, 2), mat_mut(&mut dx[..4], 2, 2)));
    assert_eq!((found.operand, found.index, found.origin), ("dp", Index::Cell(1, 1), Origin::PassedIn));
}

#[test]
fn rows_that_are_empty_by_their_options_have_no_gradient() {
    everywhere!(gradients_of_constants);
}

/// The scale may lift or lower what leaves the range without it.
fn scaled_gradients<T: Float>() {
    let (max, zero, tiny) = (T::max_value(), T::zero(), T::min_positive_value());
    let run = |scale, y: &[T], dy: &[T], log| {
        let (mut dx, len) = (vec![T::nan(); y.len()], y.len());
        let options = Softmax { scale, ..Softmax::default() };
        let (y, dy, out) = (mat(y, 1, len), mat(dy, 1, len), mat_mut(&mut dx, 1, len));
        let backward = if log { log_softmax_backward_with } else { softmax_backward_with };
        backward(options, y, dy, out).unwrap();
        dx
    };
    let quarter = num::<T>(0.25);
    // Two logits with far smaller probabilities: what they are is of no account.
    let far = -max;
    assert_same(
        "lowered",
        &run(quarter, &[zero, far, far], &[max, -max, -max], true),
        &[max * num(0.5), -max * quarter, -max * quarter],
    );
    assert_same("lowered", &run(num(-0.125), &[zero; 8], &[max; 8], true), &[max * num(0.875); 8]);
    let (low, lift) = (num::<T>(-1.5) * max.ln(), tiny.recip() * quarter);
    let lifted = run(lift, &[low, zero], &[zero, T::one()], true);
    let mut worst = Worst::of::<T>("log_softmax_backward_with");
    worst.compare(&lifted[..1], &[-(Wide::new(low).exp() * Wide::new(lift))], "far below");
    worst.assert_at_most(3.0);
    // The probability times the gradient is less than the smallest number, also in the sum.
    let root = num::<T>(1.5) * tiny.sqrt() * T::epsilon();
    let lifted = run(lift, &[root, T::one()], &[root, zero], false);
    let square = root * (root * lift);
    assert_same("lifted", &lifted, &[square, -square]);
    let lifted = run(-lift, &[root, T::one()], &[root, zero], false);
    assert_same("lifted", &lifted, &[-square, square]);
    // Nothing lifts what is 0.
    assert_same("zero", &run(-lift, &[root, T::one()], &[zero; 2], false), &[zero; 2]);
    assert_eq!(run(-lift, &[low, zero], &[zero; 2], true), [zero; 2]);
    assert_same(
        "lowered",
        &run(num(0.125), &[num(0.5), num(0.5)], &[max, -max], false),
        &[max * num(0.0625), -max * num(0.0625)],
    );
}

#[test]
fn gradients_of_softmax_that_the_scale_lifts() {
    everywhere!(scaled_gradients);
}

fn faults_in_place<T: Float>() {
    let (rows, cols) = (3, 37);
    let clean = data::<T>(1, Kind::Within(20.0), rows * cols);
    let targets = [4_u32, 0, 36];
    for at in [0, 36, 50, 110] {
        for bad in [T::nan(), T::infinity()] {
            let mut x = clean.clone();
            x[at] = bad;
            let before = x.clone();
            let found = report(softmax_in_place(Softmax::default(), mat_mut(&mut x, rows, cols)));
            assert_eq!((found.index, found.origin), (Index::Cell(at / cols, at % cols), Origin::PassedIn));
            assert_same("softmax", &x, &before);
            let found = report(cross_entropy_in_place(CrossEntropy::default(), mat_mut(&mut x, rows, cols), &targets));
            assert_eq!((found.operand, found.index), ("logits", Index::Cell(at / cols, at % cols)));
            assert_same("cross-entropy", &x, &before);
        }
    }
    // A loss is infinite.
    let mut x = [T::zero(), T::neg_infinity()];
    let found = report(cross_entropy_in_place(CrossEntropy::default(), mat_mut(&mut x, 1, 2), &[1]));
    assert_eq!(found.origin, Origin::DivisionByZero);
    assert_same("as it was", &x, &[T::zero(), T::neg_infinity()]);
    // An option makes it so.
    let (plain, x) = (CrossEntropy { reduction: Reduction::Sum, ..CrossEntropy::default() }, [T::zero(), num(8.0)]);
    for (options, x, origin) in [
        (CrossEntropy { smoothing: num(0.1), ..plain }, [T::zero(), T::neg_infinity()], Origin::DivisionByZero),
        (CrossEntropy { weights: Some(&[T::max_value(); 2]), ..plain }, x, Origin::Overflow),
        (CrossEntropy { z_loss: T::max_value(), ..plain }, x, Origin::Overflow),
    ] {
        let mut in_place = x;
        let found = report(cross_entropy_in_place(options, mat_mut(&mut in_place, 1, 2), &[0]));
        assert_eq!(found.origin, origin, "{options:?}");
        assert_same("as it was", &in_place, &x);
    }
}

#[test]
fn a_fault_leaves_logits_in_place_as_they_were() {
    everywhere!(faults_in_place);
}

/// Forms of the cross-entropy: options and targets.
fn every_form<T: Float>(rows: usize, cols: usize, mut f: impl FnMut(&str, CrossEntropy<'_, T>, Targets<'_, T>)) {
    let mut rng = Rng(7);
    let classes = (0..rows).map(|_| rng.below(cols) as u32).collect::<Vec<_>>();
    let mut keep = some_mask(rows, cols);
    for (row, &class) in classes.iter().enumerate() {
        keep[row * cols + class as usize] = true;
    }
    let weights = data::<T>(3, Kind::Within(2.0), cols).into_iter().map(T::abs).collect::<Vec<_>>();
    let mut q = data::<T>(4, Kind::Within(1.0), rows * cols).into_iter().map(T::abs).collect::<Vec<_>>();
    let total = q.iter().fold(T::zero(), |sum, &q| sum + q) / num(rows as f64);
    q.iter_mut().zip(&keep).for_each(|(q, &keep)| *q = if keep { *q / total } else { T::zero() });
    let (classes, q) = (Targets::Classes(&classes), Targets::Probabilities(mat(&q, rows, cols)));
    let plain = CrossEntropy { ignore: Some(2), ..CrossEntropy::default() };
    let mask = Some(MatRef::new(&keep, rows, cols).unwrap());
    f("a mask", CrossEntropy { mask, ..plain }, classes);
    f("smoothing", CrossEntropy { smoothing: num(0.1), ..plain }, classes);
    f("smoothing under a mask", CrossEntropy { smoothing: num(0.1), mask, ..plain }, classes);
    f("weights", CrossEntropy { weights: Some(&weights), ..plain }, classes);
    f("z-loss", CrossEntropy { z_loss: num(1e-2), ..plain }, classes);
    f("probabilities", CrossEntropy::default(), q);
    let reduction = Reduction::Sum;
    let all =
        CrossEntropy { smoothing: num(0.2), weights: Some(&weights), z_loss: num(1e-3), mask, reduction, ..plain };
    f("all of it", all, classes);
    f("all of it, probabilities", all, q);
}

fn cross_entropies<T: Float>() {
    let [mut value, mut gradient] = ["cross_entropy, of its bound", "its gradient, of its bound"].map(Worst::of::<T>);
    let u = wide(T::epsilon()) / 2.0;
    for (rows, cols) in SHAPES {
        let x = data::<T>(1, Kind::Within(8.0), rows * cols);
        every_form::<T>(rows, cols, |form, options, targets| {
            let logits = mat(&x, rows, cols);
            let want = reference::cross_entropy(options, logits, targets);
            let want_gradient = reference::cross_entropy_backward(options, logits, targets, T::one());
            on_every_isa(|isa| {
                let context = format!("{isa}, {form}, {rows} x {cols}");
                let loss = cross_entropy(options, logits, targets).expect(&context);
                let error = (Wide::new(loss.value) - want).abs().to_f64();
                value.meet(error / (8.0 * u * want.to_f64().max(1e-30)), || context.clone());

                let mut dx = vec![T::nan(); x.len()];
                let both = cross_entropy_with_gradient(options, logits, targets, mat_mut(&mut dx, rows, cols));
                assert_eq!(both, Ok(loss), "{context}");
                // Its terms are probabilities and labels, which add up to 1 where the mean is taken; their difference
                // may be nothing. A sum takes weights up to 2.
                let largest = if options.reduction == Reduction::Mean { 1.0 } else { 2.0 };
                for (&dx, &want) in dx.iter().zip(&want_gradient) {
                    let error = (Wide::new(dx) - want).abs().to_f64();
                    gradient.meet(error / (8.0 * u * largest), || context.clone());
                }
                let mut alone = vec![T::nan(); x.len()];
                let dlogits = mat_mut(&mut alone, rows, cols);
                cross_entropy_backward(options, logits, targets, T::one(), dlogits).expect(&context);
                assert_same(&context, &alone, &dx);
                let mut in_place = x.clone();
                let found = cross_entropy_in_place(options, mat_mut(&mut in_place, rows, cols), targets);
                assert_eq!(found, Ok(loss), "{context}");
                assert_same(format!("{context}, in place"), &in_place, &dx);
                let masked = |at: usize| options.mask.is_some_and(|mask| mask.get(at / cols, at % cols) == Some(false));
                assert!((0..x.len()).all(|at| !masked(at) || dx[at].is_zero()), "{context}");
            });
        });
    }
    value.assert_at_most(1.0);
    gradient.assert_at_most(1.0);
}

#[test]
fn cross_entropy_in_every_form() {
    cross_entropies::<f32>();
    cross_entropies::<f64>();
}

#[test]
fn cross_entropy_refuses_bad_options() {
    let (x, mut dx) = ([0.0_f32; 6], [7.0_f32; 6]);
    let mut check = |options: CrossEntropy<'_, f32>, argument: &str| {
        let result = cross_entropy_with_gradient(options, mat(&x, 2, 3), &[0, 1], mat_mut(&mut dx, 2, 3));
        match result {
            Err(Error::Argument { argument: found, .. }) => assert_eq!(found, argument),
            Err(Error::Shape { operand, .. }) => assert_eq!(operand, argument),
            other => panic!("{argument}: {other:?}"),
        }
        assert_eq!(dx, [7.0; 6]);
    };
    let plain = CrossEntropy::default();
    for smoothing in [-0.1, 1.1, f32::NAN] {
        check(CrossEntropy { smoothing, ..plain }, "smoothing");
    }
    for z_loss in [-1.0, f32::INFINITY, f32::NAN] {
        check(CrossEntropy { z_loss, ..plain }, "z_loss");
    }
    check(CrossEntropy { weights: Some(&[1.0, -1.0, 1.0]), ..plain }, "weights");
    check(CrossEntropy { weights: Some(&[1.0]), ..plain }, "weights");
    check(CrossEntropy { mask: Some(MatRef::new(&[true; 4], 2, 2).unwrap()), ..plain }, "mask");
    let options = Softmax { scale: f32::NAN, ..Softmax::default() };
    assert!(matches!(softmax_with(options, mat(&x, 2, 3), mat_mut(&mut dx, 2, 3)), Err(Error::Argument { .. })));
    let options = Softmax { bias: Some(mat(&x, 3, 2)), ..Softmax::default() };
    assert!(matches!(softmax_with(options, mat(&x, 2, 3), mat_mut(&mut dx, 2, 3)), Err(Error::Shape { .. })));
}

/// With a logit of `-inf` outside the target, smoothing over all classes is infinite, over those that count it is not.
#[test]
fn smoothing_and_impossible_classes() {
    let x = [0.0_f64, f64::NEG_INFINITY];
    let smooth = CrossEntropy { smoothing: 0.1, ..CrossEntropy::default() };
    let found = report(cross_entropy(smooth, mat(&x, 1, 2), &[0]));
    assert_eq!((found.class, found.origin), (Class::PosInf, Origin::DivisionByZero));
    let mask = MatRef::new(&[true, false], 1, 2).unwrap();
    let loss = cross_entropy(CrossEntropy { mask: Some(mask), ..smooth }, mat(&x, 1, 2), &[0]).unwrap();
    assert_eq!(loss.value, 0.0);
    assert_eq!(cross_entropy(CrossEntropy::default(), mat(&x, 1, 2), &[0]).unwrap().value, 0.0);
}

/// Loss and gradient against the reference; both forms in one, and in place, the same.
fn check_form<T: Float>(options: CrossEntropy<'_, T>, logits: &[T], cols: usize, targets: Targets<'_, T>) {
    let rows = logits.len() / cols;
    let x = mat(logits, rows, cols);
    let context = format!("{x:?}, {targets:?}, {options:?}");
    let loss = cross_entropy(options, x, targets).expect(&context);
    let error = ulp_error(loss.value, reference::cross_entropy(options, x, targets));
    assert!(error <= 4.0, "{context}: {:e}, {error} ULP", loss.value);
    let mut dx = vec![T::nan(); rows * cols];
    assert_eq!(cross_entropy_with_gradient(options, x, targets, mat_mut(&mut dx, rows, cols)), Ok(loss), "{context}");
    let want = reference::cross_entropy_backward(options, x, targets, T::one());
    for (&dx, want) in dx.iter().zip(want) {
        let error = (Wide::new(dx) - want).abs().to_f64();
        assert!(error <= 4.0 * wide(T::epsilon()), "{context}: {dx:e} for {:e}", want.to_f64());
    }
    let mut in_place = logits.to_vec();
    assert_eq!(cross_entropy_in_place(options, mat_mut(&mut in_place, rows, cols), targets), Ok(loss), "{context}");
    assert_same(context, &in_place, &dx);
}

/// A class of probability 0 that is part of a target makes the loss infinite, and has no gradient if it is masked.
fn impossible_targets<T: Float>() {
    let [zero, one, inf] = [0.0, 1.0, f64::INFINITY].map(num::<T>);
    let plain = CrossEntropy::default();
    let check = |options: CrossEntropy<'_, T>, x: &[T; 3], targets: Targets<'_, T>| {
        let (context, logits) = (format!("{x:?}, {targets:?}, {options:?}"), mat(x, 1, 3));
        assert!(ulp_error(inf, reference::cross_entropy(options, logits, targets)) == 0.0, "{context}");
        let mut dx = [T::nan(); 3];
        let found = report(cross_entropy_with_gradient(options, logits, targets, mat_mut(&mut dx, 1, 3)));
        let what = (found.operand, found.class, found.origin);
        assert_eq!(what, ("losses", Class::PosInf, Origin::DivisionByZero), "{context}");
        assert_eq!(report(cross_entropy(options, logits, targets)).class, Class::PosInf, "{context}");
        let want = reference::cross_entropy_backward(options, logits, targets, one);
        for j in 0..3 {
            let error = (Wide::new(dx[j]) - want[j]).abs().to_f64();
            assert!(error <= 4.0 * wide(T::epsilon()), "{context}: {dx:?}");
            let is_masked = options.mask.is_some_and(|mask| mask.get(0, j) == Some(false));
            assert!(!is_masked || dx[j].is_zero(), "{context}: {dx:?}");
        }
        let mut in_place = *x;
        report(cross_entropy_in_place(options, mat_mut(&mut in_place, 1, 3), targets));
        assert_same(context, &in_place, x);
    };
    let x = [[zero, num(5.0), one], [zero, -inf, one], [-inf; 3]];
    let (keep, none) = ([true, false, true], [false; 3]);
    let masks = [None, Some(mat(&keep, 1, 3)), Some(mat(&none, 1, 3))];
    let weights = nums::<T>(&[1.0, 0.25, 2.0]);
    for (x, mask) in [(&x[0], masks[1]), (&x[0], masks[2]), (&x[1], masks[0]), (&x[1], masks[1]), (&x[2], masks[0])] {
        for weights in [None, Some(&weights[..])] {
            for smoothing in [0.0, 1e-6, 0.25] {
                let options = CrossEntropy { smoothing: num(smoothing), mask, weights, ..plain };
                check(options, x, Targets::Classes(&[1]));
                for q in [[0.0, 1.0, 0.0], [0.25, 0.5, 0.25]].map(|q| nums::<T>(&q)) {
                    check(options, x, Targets::Probabilities(mat(&q, 1, 3)));
                }
            }
        }
        let weights = [T::max_value(), T::from_bits(1), one];
        check(CrossEntropy { mask, weights: Some(&weights), ..plain }, x, Targets::Classes(&[1]));
    }
    // What has no part in the target is not read, all or nothing; all of the smoothing goes to the others.
    let masked = CrossEntropy { mask: masks[1], ..plain };
    let hidden = [zero, T::nan(), one];
    for (targets, smoothing) in [(&[0], 0.0), (&[2], 0.5), (&[1], 1.0)] {
        let options = CrossEntropy { smoothing: num(smoothing), ..masked };
        let loss = cross_entropy(options, mat(&hidden, 1, 3), targets).unwrap().value;
        assert!(ulp_error(loss, reference::cross_entropy(options, mat(&hidden, 1, 3), targets)) <= 4.0);
    }
    let nothing = CrossEntropy { smoothing: one, mask: masks[2], ..plain };
    assert_eq!(cross_entropy(nothing, mat(&hidden, 1, 3), &[1]).unwrap().value, zero);
    // A probability is read wherever it stands.
    let q = [one, T::nan(), zero];
    let found = report(cross_entropy(masked, mat(&hidden, 1, 3), mat(&q, 1, 3)));
    assert_eq!((found.operand, found.index, found.origin), ("targets", Index::Cell(0, 1), Origin::PassedIn));
    // Of infinite losses of both signs no one is the pole.
    let options = CrossEntropy { mask: Some(mat(&[true, false, false], 1, 3)), ..plain };
    let q = [zero, one, -one];
    let found = report(cross_entropy(options, mat(&hidden, 1, 3), mat(&q, 1, 3)));
    assert_eq!((found.operand, found.class, found.origin), ("losses", Class::Nan, Origin::Invalid));
    // The sum of the other losses overflows, too.
    let rows = [T::max_value(), T::min_value(), zero, -inf, T::max_value(), T::min_value()];
    let loss = cross_entropy(plain, mat(&rows, 3, 2), &[1, 1, 1]);
    assert_eq!(report(loss).class, Class::PosInf);
}

#[test]
fn targets_without_a_probability() {
    everywhere!(impossible_targets);
}

/// The difference of logits overflows, the product with its part of the target does not; or the loss does, the mean not.
fn losses_that_overflow_on_the_way<T: Float>() {
    let (max, zero) = (T::max_value(), T::zero());
    let [h, third] = [1.5, 3.0].map(|part| max / num(part));
    let plain = CrossEntropy::default();
    let smooth = CrossEntropy { smoothing: num(0.5), ..plain };
    let [eighth, sixteen] = [0.125, 16.0].map(|weight| [num::<T>(weight); 2]);
    let [q, sharp] = [[0.25, 0.75], [1.0, 0.0]].map(|q| nums::<T>(&q));
    let keep = [true; 2];
    let sum = Reduction::Sum;
    let x = [-h, h];
    for (options, targets) in [
        (smooth, Targets::Classes(&[1])),
        (CrossEntropy { mask: Some(mat(&keep, 1, 2)), ..smooth }, Targets::Classes(&[1])),
        (CrossEntropy { reduction: sum, ..smooth }, Targets::Classes(&[1])),
        (plain, Targets::Probabilities(mat(&q, 1, 2))),
        (CrossEntropy { weights: Some(&eighth), reduction: sum, ..plain }, Targets::Classes(&[0])),
        (CrossEntropy { weights: Some(&eighth), reduction: sum, ..smooth }, Targets::Classes(&[0])),
        (CrossEntropy { weights: Some(&eighth), ..plain }, Targets::Probabilities(mat(&sharp, 1, 2))),
    ] {
        check_form(options, &x, 2, targets);
    }
    let weighted = CrossEntropy { weights: Some(&sixteen), ..plain };
    check_form(weighted, &[-third, zero], 2, Targets::Classes(&[0]));
    // A mean over rows, of which some overflow.
    let x = [-h, h, h, -h, zero, zero, -h, -h];
    let q = nums::<T>(&[1.0, 0.0, 0.0, 1.0, 0.5, 0.5, 0.5, 0.5]);
    let classes = Targets::Classes(&[0, 1, 0, 1]);
    let weighted = CrossEntropy { weights: Some(&eighth), ..plain };
    let little = CrossEntropy { smoothing: num(0.125), ..weighted };
    let probabilities = Targets::Probabilities(mat(&q, 4, 2));
    for (options, targets) in
        [(plain, classes), (weighted, classes), (little, classes), (plain, probabilities), (little, probabilities)]
    {
        check_form(options, &x, 2, targets);
    }
    // The labels have no sum, and the loss is a number.
    let (weights, q) = ([max; 2], nums::<T>(&[1.0, 0.1]));
    let (options, x) = (CrossEntropy { weights: Some(&weights), ..plain }, nums::<T>(&[5.0, 0.0]));
    let loss = cross_entropy(options, mat(&x, 1, 2), mat(&q, 1, 2)).unwrap();
    assert!(ulp_error(loss.value, reference::cross_entropy(options, mat(&x, 1, 2), mat(&q, 1, 2))) <= 4.0);
    // A z-loss beside weights that leave no room for it.
    let (weights, far) = ([max, max / num(3.0)], max / num(1024.0));
    let z = CrossEntropy { z_loss: num(0.01), weights: Some(&weights), ..plain };
    let x = [far, zero, -far, num(7.0), T::nan(), zero];
    for ignore in [None, Some(0)] {
        let options = CrossEntropy { ignore, ..z };
        let (x, classes) = if ignore.is_some() { (&x[2..], &[1, 0]) } else { (&x[..4], &[0, 1]) };
        let got = cross_entropy(options, mat(x, 2, 2), classes).unwrap().value;
        let known = if ignore.is_some() { &x[..2] } else { x };
        let want = reference::cross_entropy(options, mat(known, known.len() / 2, 2), &classes[..known.len() / 2]);
        assert!(ulp_error(got, want) <= 8.0, "{got:e} for {:e}", want.to_f64());
    }
    // What overflows indeed is no pole, also beside a class that is masked.
    let keep = [true, true, false];
    let smooth = CrossEntropy { mask: Some(mat(&keep, 1, 3)), reduction: sum, smoothing: num(0.1), ..plain };
    let found = report(cross_entropy(smooth, mat(&[-h, h, h], 1, 3), &[0]));
    assert_eq!((found.operand, found.class, found.origin), ("losses", Class::PosInf, Origin::Overflow));
}

#[test]
fn cross_entropy_that_overflows_on_the_way() {
    everywhere!(losses_that_overflow_on_the_way);
}

/// The sum of the weights overflows, or has no inverse; what they are together does not matter to the mean.
fn class_weights_of_every_size<T: Float>() {
    let (max, tiny, small) = (T::max_value(), T::from_bits(1), T::min_positive_value());
    let x = nums::<T>(&[0.0, 0.0, 1.0, -2.0, 3.0, 3.5, -1.0, 40.0]);
    let plain = CrossEntropy::default();
    for weights in [[max; 2], [tiny; 2], [small, max], [tiny, max], [max, tiny], [small, small * num(3.0)]] {
        for smoothing in [0.0, 0.25] {
            for targets in [[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0]] {
                let options = CrossEntropy { weights: Some(&weights), smoothing: num(smoothing), ..plain };
                // With smoothing other classes count, too: the loss overflows if their weights are much larger.
                let counts = |rows: usize| {
                    let largest = |class: &u32| weights[*class as usize] == weights[0].max(weights[1]);
                    smoothing == 0.0 || targets[..rows].iter().any(largest)
                };
                for rows in [1, 4].into_iter().filter(|&rows| counts(rows)) {
                    check_form(options, &x[..2 * rows], 2, Targets::Classes(&targets[..rows]));
                }
            }
        }
    }
    let z_loss = CrossEntropy { weights: Some(&[max; 2]), z_loss: num(1e-3), ..plain };
    check_form(z_loss, &x, 2, Targets::Classes(&[0, 1, 1, 0]));
}

#[test]
fn cross_entropy_with_class_weights_of_every_size() {
    everywhere!(class_weights_of_every_size);
}

fn pieces<T: Float>() {
    const BLOCK: usize = 4096;
    let mut worst = Worst::of::<T>("LogSumExp");
    for (kind, seed) in [(Kind::Within(1.0), 1), (Kind::Within(40.0), 2), (Kind::Whole, 3)] {
        for len in [0, 1, 100, BLOCK, BLOCK + 1, 3 * BLOCK, 7 * BLOCK + 5, 8 * BLOCK] {
            let mut x = data::<T>(seed, kind, len);
            if len > 2 * BLOCK {
                x[..BLOCK].fill(T::neg_infinity()); // a block without weight
            }
            let piece = |from: usize, to: usize| {
                let mut sum = LogSumExp::starting_at(from * BLOCK).unwrap();
                sum.push(&x[len.min(from * BLOCK)..len.min(to * BLOCK)]).unwrap();
                sum
            };
            let blocks = len.div_ceil(BLOCK);
            let whole = piece(0, blocks);
            let value = whole.value().unwrap();
            if len <= 3 * BLOCK {
                worst.compare(&[value], &[reference::logsumexp(&x)], &format!("{len} of {kind:?}"));
            }
            for a in 0..=blocks {
                for b in a..=blocks {
                    let [first, second, third] = [piece(0, a), piece(a, b), piece(b, blocks)];
                    let left = first.clone().merge(second.clone()).unwrap().merge(third.clone()).unwrap();
                    let right = first.merge(second.merge(third).unwrap()).unwrap();
                    assert_eq!((&left, &right), (&whole, &whole), "{len} cut at {a} and {b}");
                    assert!(same(left.value().unwrap(), value));
                }
            }
        }
    }
    worst.assert_at_most(3.0);
    let mut sum = LogSumExp::<T>::new();
    let mut bad = vec![T::zero(); BLOCK + 2];
    bad[BLOCK + 1] = T::nan();
    assert_eq!(report(sum.push(&bad)).index, Index::At(BLOCK + 1));
    bad[7] = T::infinity();
    assert_eq!(report(sum.push(&bad)).index, Index::At(7));
    assert_eq!(report(sum.push(&bad[..9])).class, Class::PosInf);
    assert_eq!(sum, LogSumExp::new());
}

#[test]
fn a_row_in_pieces_has_the_bits_of_the_whole() {
    everywhere!(pieces);
}

/// What is kept of a row, and sent, grows with the digits of its length.
#[cfg(feature = "serde")]
#[test]
fn a_long_row_is_kept_in_few_numbers() {
    let text = |blocks| {
        let mut sum = LogSumExp::new();
        sum.push(&vec![0.5_f32; blocks * LogSumExp::<f32>::BLOCK]).unwrap();
        serde_json::to_string(&sum).expect("a state is text")
    };
    assert!(text(64).len() < 2 * text(1).len(), "{}", text(64));
}

fn weighted_sums<T: Float>() {
    let [mut value, mut gradient] = ["logsumexp_weighted, of its bound", "its gradient"].map(Worst::of::<T>);
    let u = wide(T::epsilon()) / 2.0;
    for len in [1, 2, 15, 16, 17, 64, 65, 300] {
        for seed in 0..20 {
            let (x, b) = (data::<T>(seed, Kind::Within(5.0), len), data::<T>(seed + 100, Kind::Within(2.0), len));
            let term = |j: usize| Wide::new(b[j]) * Wide::new(x[j]).exp();
            let sum = (0..len).fold(Wide::new(0.0), |sum, j| sum + term(j));
            let size = (0..len).fold(0.0, |size, j| size + term(j).abs().to_f64());
            let want = sum.abs().ln();
            on_every_isa(|isa| {
                let context = format!("{isa}, {len}, {seed}");
                let (mut y, mut sign, mut dx) = ([T::nan()], [T::nan()], vec![T::nan(); len]);
                logsumexp_weighted(mat(&x, 1, len), mat(&b, 1, len), &mut y, &mut sign).expect(&context);
                assert_eq!(wide(sign[0]), sum.to_f64().signum(), "{context}");
                let bound = u * (4.0 * want.abs().to_f64() + 2.0 * size / sum.abs().to_f64());
                value.meet((Wide::new(y[0]) - want).abs().to_f64() / bound, || context.clone());
                let dx_view = mat_mut(&mut dx, 1, len);
                logsumexp_weighted_backward(mat(&x, 1, len), mat(&b, 1, len), &[num(3.0)], dx_view).expect(&context);
                for (j, &dx) in dx.iter().enumerate() {
                    let want = Wide::new(3.0) * term(j) / sum;
                    let bound = u * want.abs().to_f64() * (6.0 + 2.0 * size / sum.abs().to_f64());
                    gradient.meet((Wide::new(dx) - want).abs().to_f64() / bound, || context.clone());
                }
            });
        }
    }
    value.assert_at_most(1.0);
    gradient.assert_at_most(1.0);
}

#[test]
fn log_sum_exp_with_weights() {
    weighted_sums::<f32>();
    weighted_sums::<f64>();
}

/// What a sum of weighted exponentials and its gradient should be, in wide numbers.
struct WeightedWant {
    /// Each over the exponential of the maximum.
    terms: Vec<Wide>,
    sum: Wide,
    log: Wide,
    /// The sum of magnitudes over that of the sum: what cancels.
    cancelled: f64,
}

impl WeightedWant {
    fn new<T: Float>(x: &[T], b: &[T]) -> Self {
        let counts = |(x, b): &(&T, &T)| !b.is_zero() && **x != T::neg_infinity();
        let entries = || x.iter().zip(b);
        let max = entries().filter(counts).fold(T::neg_infinity(), |max, (&x, _)| max.max(x));
        let term = |(&x, &b): (&T, &T)| Wide::new(b) * (Wide::new(x) - Wide::new(max)).exp();
        let zero = Wide::new(0.0);
        let terms = entries().map(|entry| if counts(&entry) { term(entry) } else { zero }).collect::<Vec<_>>();
        let sum = terms.iter().fold(zero, |sum, &term| sum + term);
        let size = terms.iter().fold(zero, |sum, &term| sum + term.abs());
        Self { terms, sum, log: Wide::new(max) + sum.abs().ln(), cancelled: (size / sum.abs()).to_f64() }
    }

    /// Compares results with their bounds; where all but a hundredth may have cancelled there is nothing to compare.
    fn check<T: Float>(&self, [value, gradient]: &mut [Worst; 2], x: &[T], b: &[T], dy: T) {
        let (u, len, context) =
            (wide(T::epsilon()) / 2.0, x.len(), || format!("{:.200}, {dy:e}", format!("{x:?}, {b:?}")));
        if self.cancelled.is_nan() || u * self.cancelled > 0.01 {
            return;
        }
        let (mut y, mut sign, mut dx) = ([T::nan()], [T::nan()], vec![T::nan(); len]);
        logsumexp_weighted(mat(x, 1, len), mat(b, 1, len), &mut y, &mut sign)
            .unwrap_or_else(|_| panic!("{}", context()));
        assert_eq!(sign[0], if self.sum > Wide::new(0.0) { T::one() } else { -T::one() }, "{}", context());
        let bound = u * (4.0 * self.log.abs().to_f64() + 2.0 * self.cancelled);
        value.meet((Wide::new(y[0]) - self.log).abs().to_f64() / bound, context);
        let want = self.terms.iter().map(|&term| Wide::new(dy) * (term / self.sum)).collect::<Vec<_>>();
        let result = logsumexp_weighted_backward(mat(x, 1, len), mat(b, 1, len), &[dy], mat_mut(&mut dx, 1, len));
        if result.is_err() {
            let largest = want.iter().fold(0.0, |largest, want| want.abs().to_f64().max(largest));
            assert!(largest > 0.99 * wide(T::max_value()), "{}", context());
            return;
        }
        for (&dx, &want) in dx.iter().zip(&want) {
            let relative = Wide::new(u * (6.0 + 2.0 * self.cancelled));
            let bound = want.abs() * relative + Wide::new(T::from_bits(1));
            gradient.meet(((Wide::new(dx) - want).abs() / bound).to_f64(), context);
        }
    }
}

fn weights_of_every_size<T: Float>() {
    let mut worst = ["logsumexp_weighted, of its bound", "its gradient"].map(Worst::of::<T>);
    let (max, tiny, zero, one) = (T::max_value(), T::from_bits(1), T::zero(), T::one());
    let small = max.recip();
    let far = |share: f64| num::<T>(-share * wide(max).ln());
    let named: [(Vec<T>, Vec<T>); 10] = [
        (vec![zero, far(1.25)], vec![small, max]),
        (vec![zero, far(1.07)], vec![small, max]),
        (vec![zero, far(1.13)], vec![num(1e-30), num(1e30)]),
        (vec![zero, far(1.13)], vec![num(1e-5), max]),
        (vec![zero, zero], vec![max, max]),
        (vec![one; 50], vec![num(1e38); 50]),
        (nums(&[50.0, 49.0]), vec![tiny, tiny]),
        (vec![max, -max, max], vec![tiny, max, max]),
        (vec![max, max, zero], vec![max, -small, max]),
        (vec![one, zero, far(1.2)], vec![max, zero, -max]),
    ];
    for (x, b) in &named {
        for dy in [one, num(-1e30), num(1e-30)] {
            WeightedWant::new(x, b).check(&mut worst, x, b, dy);
        }
    }
    let mut rng = Rng(7);
    for case in 0..1500 {
        let len = 1 + rng.below(if case % 50 == 0 { 90 } else { 6 });
        let (reach, weights) = [
            (1.0, Kind::AnyFinite),
            (2.0, Kind::AnyFinite),
            (1.2, Kind::Within(1.0)),
            (0.1, Kind::Huge),
            (0.1, Kind::Tiny),
            (0.5, Kind::Whole),
        ][case % 6];
        let mut x = data::<T>(rng.bits(), Kind::Within(1.0), len);
        x.iter_mut().for_each(|x| *x = *x * far(reach));
        let mut b = data::<T>(rng.bits(), weights, len);
        if case % 4 > 0 {
            b.iter_mut().for_each(|b| *b = b.abs());
        }
        if rng.below(4) == 0 {
            x[rng.below(len)] = T::neg_infinity();
        }
        let dy = if case % 3 == 0 { one } else { draw(&mut rng, Kind::AnyFinite) };
        WeightedWant::new(&x, &b).check(&mut worst, &x, &b, dy);
    }
    worst.iter().for_each(|worst| worst.assert_at_most(1.0));
}

#[test]
fn log_sum_exp_with_weights_of_every_size() {
    everywhere!(weights_of_every_size);
}

fn weights_of_nothing<T: Float>() {
    let lowest = T::neg_infinity();
    let cases: [(&[f64], &[f64]); 8] = [
        (&[f64::NEG_INFINITY], &[1.0]),
        (&[f64::NEG_INFINITY; 2], &[1.0, 1.0]),
        (&[f64::NEG_INFINITY; 2], &[2.0, -1.0]),
        (&[f64::NEG_INFINITY; 2], &[0.0, 1.0]),
        (&[3.0, f64::NEG_INFINITY], &[0.0, 1.0]),
        (&[f64::NAN, f64::NEG_INFINITY], &[0.0, 1e38]),
        (&[7.0, f64::NAN], &[0.0, -0.0]),
        (&[5.0, f64::NEG_INFINITY, 5.0], &[1e-38, 1e38, -1e-38]),
    ];
    for (x, b) in cases {
        let (len, x, b) = (x.len(), nums::<T>(x), nums::<T>(b));
        let (mut y, mut sign, mut dx) = ([T::nan()], [T::nan()], vec![T::nan(); len]);
        assert_eq!(logsumexp_weighted(mat(&x, 1, len), mat(&b, 1, len), &mut y, &mut sign), Ok(()), "{x:?}, {b:?}");
        assert_same("nothing", &[y[0], sign[0]], &[lowest, T::zero()]);
        let dx_view = mat_mut(&mut dx, 1, len);
        assert_eq!(logsumexp_weighted_backward(mat(&x, 1, len), mat(&b, 1, len), &[T::nan()], dx_view), Ok(()));
        assert_same("no gradient", &dx, &vec![T::zero(); len]);
    }
    // A weight that is no number is reported, whatever it is the weight of; a `dy` that is not read is not.
    let (x, b) = (vec![lowest, lowest, T::zero(), T::zero()], vec![T::one(), T::one(), T::infinity(), T::one()]);
    let (mut y, mut sign, mut dx) = ([T::nan(); 2], [T::nan(); 2], vec![T::nan(); 4]);
    let found = report(logsumexp_weighted(mat(&x, 2, 2), mat(&b, 2, 2), &mut y, &mut sign));
    assert_eq!((found.operand, found.index, y[0]), ("b", Index::Cell(1, 0), lowest));
    let dy = [T::nan(), T::infinity()];
    let found =
        report(logsumexp_weighted_backward(mat(&x, 2, 2), mat(&[T::one(); 4], 2, 2), &dy, mat_mut(&mut dx, 2, 2)));
    assert_eq!((found.operand, found.index, found.counts.total()), ("dy", Index::At(1), 1));
    let bad = report(logsumexp_weighted(mat(&[lowest], 1, 1), mat(&[T::nan()], 1, 1), &mut y[..1], &mut sign[..1]));
    assert_eq!((bad.operand, bad.class), ("b", Class::Nan));
}

#[test]
fn log_sum_exp_with_weights_of_nothing() {
    everywhere!(weights_of_nothing);
}

fn faint_entropies<T: Float>() {
    let [mut value, mut gradient] = ["softmax_entropy, faint", "its gradient, of its bound"].map(Worst::of::<T>);
    let u = wide(T::epsilon()) / 2.0;
    let edge = -wide(T::min_positive_value()).ln(); // 87 or 708
    let (mut rng, zero) = (Rng(3), T::zero());
    let mut rows = [104.0, 100.0, 92.0, 90.0, 72.0, 60.0].map(|x| vec![num(x), zero]).to_vec();
    rows.extend([746.0, 740.0, 710.0, 690.0, 650.0, 200.0].map(|x| vec![num(x), zero]));
    rows.extend([vec![T::from_bits(3), zero, zero], vec![T::max_value(), -T::max_value()], vec![zero], vec![zero; 3]]);
    for case in 0..1500 {
        let len = 2 + rng.below(if case % 50 == 0 { 90 } else { 4 });
        let spread = [0.2, 0.05, 1.2][case % 3];
        let mut x: Vec<T> = (0..len).map(|_| num(edge * (1.0 - spread * wide::<T>(rng.unit())))).collect();
        x.iter_mut().for_each(|x| *x = -*x);
        (0..=case % 2).for_each(|_| x[rng.below(len)] = rng.unit());
        if case % 7 == 0 {
            x[rng.below(len)] = T::neg_infinity();
        }
        rows.push(x);
    }
    for (case, x) in rows.iter().enumerate() {
        let (len, context) = (x.len(), || format!("{:.200}", format!("{x:?}")));
        let mut h = [T::nan()];
        softmax_entropy(mat(x, 1, len), &mut h).unwrap();
        value.compare(&h, &[reference::softmax_entropy(x)], &context());
        let max = x.iter().fold(T::neg_infinity(), |max, &x| max.max(x));
        let distance = |x: T| if x == T::neg_infinity() { Wide::new(0.0) } else { Wide::new(max) - Wide::new(x) };
        let p = reference::softmax(x);
        let mean = p.iter().zip(x).fold(Wide::new(0.0), |sum, (&p, &x)| sum + p * distance(x));
        for dh in [T::one(), num(1e30), num(1e5), num(-1e-3), -T::max_value(), draw(&mut rng, Kind::AnyFinite)] {
            let want = reference::softmax_entropy_backward(x, dh);
            let mut dx = vec![T::nan(); len];
            let result = softmax_entropy_backward(mat(x, 1, len), &[dh], mat_mut(&mut dx, 1, len));
            if result.is_err() {
                let largest = want.iter().fold(0.0, |largest, want| want.abs().to_f64().max(largest));
                assert!(largest > 0.99 * wide(T::max_value()), "case {case}: {}, {dh:e}", context());
                continue;
            }
            for i in 0..len {
                let bound = Wide::new(5.0 * u) * Wide::new(dh).abs() * p[i] * (distance(x[i]) + mean);
                let share = (Wide::new(dx[i]) - want[i]).abs() / (bound + Wide::new(T::from_bits(1)));
                gradient.meet(share.to_f64(), || format!("{}, {dh:e}, {i}", context()));
            }
        }
    }
    value.assert_at_most(4.0);
    gradient.assert_at_most(1.0);
}

#[test]
fn entropy_of_probabilities_that_underflow() {
    everywhere!(faint_entropies);
}

/// Rows whose largest logit is 0 and alone: what they give is the sum of exponentials that are subnormal, or smaller.
fn faint_sums<T: Float>() {
    let names = ["log_softmax of a faint row", "logsumexp of it", "cross_entropy of it", "its gradient at the target"];
    let mut worst = names.map(Worst::of::<T>);
    let least = wide(T::from_bits(1)).ln(); // -103.3 or -744.4
    let mut rng = Rng(5);
    for case in 0..300 {
        let len = [2, 3, 8, 12, 40, 300][case % 6];
        let (center, spread) = (least + 22.0 * wide::<T>(rng.unit()) - 10.0, [0.0, 1.0, 30.0][case % 3]);
        let mut x: Vec<T> = (0..len).map(|_| num(center - spread * wide::<T>(rng.unit()))).collect();
        if len > 3 {
            x[rng.below(len)] = T::neg_infinity();
        }
        let class = rng.below(len);
        x[class] = T::zero();
        let context = format!("{:.200}", format!("{len}, {class}: {x:?}"));
        let (mut y, mut lse) = (vec![T::nan(); len], [T::nan()]);
        log_softmax(mat(&x, 1, len), mat_mut(&mut y, 1, len)).unwrap();
        worst[0].compare(&y, &reference::log_softmax(&x), &context);
        logsumexp(mat(&x, 1, len), &mut lse).unwrap();
        worst[1].compare(&lse, &[reference::logsumexp(&x)], &context);
        let (options, classes) = (CrossEntropy::default(), [class as u32]);
        let (x, targets) = (mat(&x, 1, len), Targets::Classes(&classes));
        let loss = cross_entropy(options, x, targets).unwrap();
        worst[2].compare(&[loss.value], &[reference::cross_entropy(options, x, targets)], &context);
        for g in [T::one(), num(1e-30), num(-1e30), T::min_positive_value(), T::max_value()] {
            cross_entropy_backward(options, x, targets, g, mat_mut(&mut y, 1, len)).unwrap();
            let want = reference::cross_entropy_backward(options, x, targets, g);
            worst[3].compare(&y[class..=class], &want[class..=class], &context);
        }
    }
    // The same of an upstream gradient that makes them so.
    let mut x = [T::one(); 16];
    x[8] = x[8] + T::epsilon();
    for g in [1024, 1000, 7] {
        let (g, mut dx) = (T::from_bits(g), [T::nan(); 16]);
        let (options, x, targets) = (CrossEntropy::default(), mat(&x, 1, 16), Targets::Classes(&[8]));
        cross_entropy_backward(options, x, targets, g, mat_mut(&mut dx, 1, 16)).unwrap();
        worst[3].compare(&dx, &reference::cross_entropy_backward(options, x, targets, g), "equal logits");
    }
    worst[..3].iter().for_each(|worst| worst.assert_at_most(2.0));
    worst[3].assert_at_most(3.0);
    let block = LogSumExp::<T>::BLOCK;
    let mut x = vec![T::neg_infinity(); 2 * block];
    x[0] = T::zero();
    x[block..].fill(num(least + 0.3));
    let mut sum = LogSumExp::new();
    sum.push(&x).unwrap();
    let error = ulp_error(sum.value().unwrap(), reference::logsumexp(&x));
    assert!(error <= 3.0, "{error} ULP");
}

#[test]
fn sums_of_exponentials_that_underflow() {
    everywhere!(faint_sums);
}

fn gradients_that_the_scale_lifts<T: Float>() {
    let (max, zero) = (T::max_value(), T::zero());
    let run = |scale: f64, x: &[T], dy| {
        let (mut dx, len) = (vec![T::nan(); x.len()], x.len());
        let options = Softmax { scale: num(scale), ..Softmax::default() };
        (logsumexp_backward_with(options, mat(x, 1, len), &[dy], mat_mut(&mut dx, 1, len)), dx)
    };
    let check = |scale: f64, x: &[T], dy, want: T| assert_eq!(run(scale, x, dy), (Ok(()), vec![want; x.len()]));
    check(2.0, &[zero; 2], max, max);
    check(-2.0, &[zero; 2], max, -max);
    check(4.0, &[zero; 64], max, max / num(16.0));
    check(1e30, &[zero; 4], num(1e-30), num(0.25));
    let mut worst = Worst::of::<T>("logsumexp_backward_with");
    for share in [1.0, 2.0, 10.0, 80.0, 170.0] {
        let (result, dx) = run(2.0, &[zero, num(-share)], max);
        let want =
            reference::logsumexp_backward(&[zero, num(-2.0 * share)], max).into_iter().map(|dx| dx * Wide::new(2.0));
        let want = want.collect::<Vec<_>>();
        let found = report(result); // the first is 2 MAX or nearly
        assert_eq!((found.operand, found.index, found.origin), ("dx", Index::Cell(0, 0), Origin::Overflow));
        worst.compare(&dx, &want, &format!("{share}"));
    }
    worst.assert_at_most(3.0);
    // An infinite `dy` is reported, and is what the gradient is.
    let mut dx = [T::nan(); 3];
    let x = [zero, T::one(), T::neg_infinity()];
    let found = report(logsumexp_backward(mat(&x, 1, 3), &[T::infinity()], mat_mut(&mut dx, 1, 3)));
    assert_eq!((found.operand, found.index, found.class), ("dy", Index::At(0), Class::PosInf));
    assert_same("infinite", &dx, &[T::infinity(), T::infinity(), zero]);
    let (result, dx) = run(2.0, &x, T::neg_infinity());
    assert_eq!((report(result).operand, &dx[..2]), ("dy", &[T::neg_infinity(); 2][..]));
}

#[test]
fn log_sum_exp_gradient_that_the_scale_lifts() {
    everywhere!(gradients_that_the_scale_lifts);
}

fn entropies<T: Float>() {
    let [mut value, mut gradient] = ["softmax_entropy", "its gradient, of its bound"].map(Worst::of::<T>);
    let u = wide(T::epsilon()) / 2.0;
    for len in (0..70).chain([127, 128, 129, 300, 4096, 5000]) {
        for (kind, seed) in [(Kind::Within(1.0), 1), (Kind::Within(30.0), 2), (Kind::Whole, 3)] {
            let mut x = data::<T>(seed, kind, len);
            if len > 5 {
                x[len / 2] = T::neg_infinity();
            }
            let want = reference::softmax_entropy(&x);
            let want_gradient = reference::softmax_entropy_backward(&x, num(-2.0));
            let p = reference::softmax(&x);
            let max = x.iter().fold(T::neg_infinity(), |max, &x| max.max(x));
            let mean = (0..len).filter(|&i| x[i].is_finite()).map(|i| p[i].to_f64() * wide(max - x[i])).sum::<f64>();
            on_every_isa(|isa| {
                let context = format!("{isa}, {len} of {kind:?}");
                let mut h = [T::nan()];
                softmax_entropy(mat(&x, 1, len), &mut h).expect(&context);
                value.compare(&h, &[want], &context);
                let mut dx = vec![T::nan(); len];
                softmax_entropy_backward(mat(&x, 1, len), &[num(-2.0)], mat_mut(&mut dx, 1, len)).expect(&context);
                for i in 0..len {
                    let error = (Wide::new(dx[i]) - want_gradient[i]).abs().to_f64();
                    let bound = 5.0 * u * 2.0 * p[i].to_f64() * (wide(max - x[i]) + mean);
                    let share = if error == 0.0 { 0.0 } else { error / (bound + 4.0 * wide(T::from_bits(1))) };
                    gradient.meet(share, || context.clone());
                }
            });
        }
    }
    value.assert_at_most(4.0);
    gradient.assert_at_most(1.0);
}

#[test]
fn entropy_of_logits() {
    entropies::<f32>();
    entropies::<f64>();
}

fn binary<T: Float>() {
    let mut value = Worst::of::<T>("binary_cross_entropy");
    let mut gradient = Worst::of::<T>("its gradient, sure targets");
    let logits = [-1000.0, -100.0, -20.0, -1.0, -1e-3, -0.0, 0.0, 1e-3, 0.5, 3.0, 40.0, 100.0, 1e30].map(num::<T>);
    for t in [0.0, 1.0, 0.25, 0.9].map(num::<T>) {
        for x in logits.into_iter().chain(data(9, Kind::Within(30.0), 500)) {
            on_every_isa(|isa| {
                let context = format!("{isa}, {x:e}, {t:e}");
                let loss = binary_cross_entropy(Reduction::Sum, &[x], &[t]).expect(&context);
                value.compare(&[loss.value], &[reference::binary_cross_entropy(x, t)], &context);
                let mut dx = [T::nan()];
                binary_cross_entropy_backward(Reduction::Sum, &[x], &[t], num(-3.0), &mut dx).expect(&context);
                let want = reference::binary_cross_entropy_backward(x, t, num(-3.0));
                if t.is_zero() || t == T::one() {
                    gradient.compare(&dx, &[want], &context);
                } else {
                    let error = (Wide::new(dx[0]) - want).abs().to_f64();
                    assert!(error <= 3.0 * 3.0 * wide(T::epsilon()), "{context}: {error:e}");
                }
            });
        }
    }
    value.assert_at_most(2.0);
    gradient.assert_at_most(3.0);

    let (inf, one, zero) = (T::infinity(), T::one(), T::zero());
    let loss = |x, t| binary_cross_entropy(Reduction::Mean, &[x], &[t]);
    assert_eq!(loss(-inf, zero).unwrap().value, zero);
    assert_eq!(loss(inf, one).unwrap().value, zero);
    assert_eq!(report(loss(inf, zero)).operand, "logits");
    assert_eq!(report(loss(-inf, num(0.9))).class, Class::NegInf);
    assert_eq!(binary_cross_entropy::<T>(Reduction::Mean, &[], &[]).unwrap().value, zero);
    let mut dx = [T::nan(); 4];
    let (x, t) = ([-inf, inf, -inf, inf], [zero, one, num(0.9), zero]);
    binary_cross_entropy_backward(Reduction::Sum, &x, &t, one, &mut dx).unwrap();
    assert_same("at infinity", &dx, &[zero, zero, num(-0.9), one]);
}

#[test]
fn binary_cross_entropy_of_logits() {
    binary::<f32>();
    binary::<f64>();
}

fn divergences<T: Float>() {
    let u = wide(T::epsilon()) / 2.0;
    for len in [0, 1, 15, 16, 17, 100] {
        let mut p = data::<T>(1, Kind::Within(1.0), len).into_iter().map(T::abs).collect::<Vec<_>>();
        let log_q = data::<T>(2, Kind::Within(9.0), len).into_iter().map(|x| -x.abs()).collect::<Vec<_>>();
        let mut hidden = log_q.clone();
        if len > 3 {
            (p[2], hidden[2]) = (T::zero(), T::nan());
        }
        let terms = p.iter().zip(&log_q).map(|(&p, &q)| reference::kl_divergence(p, q)).collect::<Vec<_>>();
        let want = terms.iter().fold(Wide::new(0.0), |sum, &term| sum + term).to_f64();
        let size = p
            .iter()
            .zip(&log_q)
            .filter(|(p, _)| !p.is_zero())
            .map(|(&p, &q)| wide(p) * (wide(p).ln().abs() + wide(q).abs()));
        let bound = (4.0 * u) * size.sum::<f64>();
        let found = kl_divergence(&p, &hidden).unwrap();
        assert!((wide(found) - want).abs() <= bound + u * want.abs(), "{len}: {found} for {want}");
        let (mut dp, mut dq) = (vec![T::nan(); len], vec![T::nan(); len]);
        kl_divergence_backward(&p, &hidden, num(3.0), &mut dp, &mut dq).unwrap();
        for i in 0..len {
            let want = reference::kl_divergence_backward(p[i], log_q[i], num(3.0));
            let size = if p[i].is_zero() { 0.0 } else { wide(p[i]).ln().abs() + 1.0 + wide(log_q[i]).abs() };
            assert!((Wide::new(dp[i]) - want[0]).abs().to_f64() <= 12.0 * u * size, "{len}, {i}");
            assert!((Wide::new(dq[i]) - want[1]).abs().to_f64() <= 4.0 * u * wide(p[i]), "{len}, {i}");
        }
    }
    let impossible = kl_divergence(&[T::one()], &[T::neg_infinity()]);
    assert_eq!(report(impossible).operand, "log_q");
    // Through the pole nothing gives nothing.
    let (p, log_q, mut dp, mut dq) = ([num::<T>(0.5); 2], [T::neg_infinity(), T::zero()], [T::nan(); 2], [T::nan(); 2]);
    kl_divergence_backward(&p, &log_q, T::zero(), &mut dp, &mut dq).unwrap();
    assert!(dp.iter().chain(&dq).all(|d| d.is_zero()), "{dp:?}, {dq:?}");
    assert_eq!(report(kl_divergence_backward(&p, &log_q, T::one(), &mut dp, &mut dq)).operand, "log_q");
    assert_eq!(dp[0], T::infinity());
}

#[test]
fn kullback_leibler() {
    everywhere!(divergences);
}

fn extrema<T: Float>() {
    // More rows than are looked through together, too.
    for (rows, cols) in SHAPES.into_iter().chain([(130, 5)]) {
        for kind in [Kind::Within(1.0), Kind::Whole, Kind::AnyFinite] {
            let x = data::<T>(1, kind, rows * cols);
            let dy = data::<T>(2, Kind::Within(1.0), rows);
            let (mut max, mut min) = (vec![T::nan(); rows], vec![T::nan(); rows]);
            let (mut high, mut low) = (vec![0; rows], vec![0; rows]);
            let (mut dx, mut dx_min) = (vec![T::nan(); x.len()], vec![T::nan(); x.len()]);
            max_rows(mat(&x, rows, cols), &mut max).unwrap();
            min_rows(mat(&x, rows, cols), &mut min).unwrap();
            argmax_rows(mat(&x, rows, cols), &mut high).unwrap();
            argmin_rows(mat(&x, rows, cols), &mut low).unwrap();
            max_rows_backward(mat(&x, rows, cols), &dy, mat_mut(&mut dx, rows, cols)).unwrap();
            min_rows_backward(mat(&x, rows, cols), &dy, mat_mut(&mut dx_min, rows, cols)).unwrap();
            for i in 0..rows {
                let row = &x[i * cols..][..cols];
                let want = row.iter().fold(row[0], |max, &x| if x > max { x } else { max });
                assert!(max[i] == want && row.iter().all(|&x| min[i] <= x) && row.contains(&min[i]));
                assert_eq!(Some(high[i]), row.iter().position(|&x| x == want));
                assert_eq!(Some(low[i]), row.iter().position(|&x| x == min[i]));
                let ties = row.iter().filter(|&&x| x == want).count();
                for (j, &x) in row.iter().enumerate() {
                    let share = if x == want { dy[i] / num(ties as f64) } else { T::zero() };
                    assert!(same(dx[i * cols + j], share));
                    assert_eq!(dx_min[i * cols + j].is_zero(), x != min[i] || dy[i].is_zero());
                }
            }
        }
    }
}

#[test]
fn extrema_of_rows() {
    everywhere!(extrema);
}

fn extrema_with_nan<T: Float>() {
    for cols in [1, 2, 15, 16, 17, 40] {
        for at in 0..cols {
            let mut x = data::<T>(3, Kind::Within(1.0), cols);
            x[at] = T::nan();
            if at + 3 < cols {
                x[at + 3] = T::nan();
            }
            let (mut y, mut column) = ([T::zero()], [usize::MAX]);
            assert_eq!(report(max_rows(mat(&x, 1, cols), &mut y)).index, Index::Cell(0, at));
            assert!(y[0].is_nan());
            assert_eq!(report(min_rows(mat(&x, 1, cols), &mut y)).index, Index::Cell(0, at));
            assert!(y[0].is_nan());
            assert_eq!(report(argmax_rows(mat(&x, 1, cols), &mut column)).index, Index::Cell(0, at));
            assert_eq!(column, [at]);
            assert!(argmin_rows(mat(&x, 1, cols), &mut column).is_err());
            assert_eq!(column, [at]);
        }
    }
    let mut y = [T::zero(); 2];
    max_rows(mat(&[], 2, 0), &mut y).unwrap();
    assert_eq!(y, [T::neg_infinity(); 2]);
    assert!(argmax_rows::<T>(mat(&[], 2, 0), &mut [0; 2]).is_err());
    // More ties than a 16-bit number counts.
    let (ones, mut dx) = (vec![T::one(); 70_000], vec![T::nan(); 70_000]);
    max_rows_backward(mat(&ones, 1, 70_000), &[T::one()], mat_mut(&mut dx, 1, 70_000)).unwrap();
    assert!(dx.iter().all(|&dx| dx == T::one() / num(70_000.0)));
}

#[test]
fn a_nan_is_the_extreme() {
    everywhere!(extrema_with_nan);
}
